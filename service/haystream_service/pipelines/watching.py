"""The folder of pipelines, watched: what changes in it is looked at within a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]  # of an option that is not used here

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from haystream_service.pipelines.registry import PipelineRegistry

# Several changes in a row are one: an editor's, a copy's, a ConfigMap's.
QUIET_MILLISECONDS = 50
LONGEST_MILLISECONDS = 500


async def watch(folder: Path, registry: PipelineRegistry, log: FilteringBoundLogger) -> None:
    """Have the registry look again whenever something changes; for ever, or until the folder cannot be watched."""
    try:
        async for _ in awatch(folder, step=QUIET_MILLISECONDS, debounce=LONGEST_MILLISECONDS):
            await registry.look_again()
    except (OSError, RuntimeError) as error:  # the folder is gone, or the machine has no more watches to give
        log.warning("the folder of pipelines is not watched any longer; SIGHUP has it looked at", exc_info=error)
