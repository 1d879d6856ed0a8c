"""A file that is looked at again whenever something changes in its folder."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]  # of an option that is not used here

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

# Several changes in a row are one: an editor's, a copy's, a Secret's.
QUIET_MILLISECONDS = 50
LONGEST_MILLISECONDS = 500


@asynccontextmanager
async def watched(
    file: Path, look_again: Callable[[], Awaitable[None]], log: FilteringBoundLogger
) -> AsyncGenerator[None]:
    """Have a file looked at while the block lasts. What is read within the block misses no change after it."""
    task = asyncio.create_task(_watch(file, look_again, log), name=f"watch {file.name}")
    await asyncio.sleep(0)  # the task's first turn, in which the kernel begins to watch
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _watch(file: Path, look_again: Callable[[], Awaitable[None]], log: FilteringBoundLogger) -> None:
    """Watch the folder: editors replace a file, and Kubernetes a link beside it that the file's own leads through."""
    try:
        async for _ in awatch(
            file.parent,
            watch_filter=None,
            step=QUIET_MILLISECONDS,
            debounce=LONGEST_MILLISECONDS,
            recursive=False,
        ):
            await _look(file, look_again, log)
    except (OSError, RuntimeError) as error:  # the folder is gone, or the machine has no more watches to give
        log.warning("a file of who may call is not watched any longer", file=str(file), exc_info=error)


async def _look(file: Path, look_again: Callable[[], Awaitable[None]], log: FilteringBoundLogger) -> None:
    try:
        await look_again()
    except Exception as error:  # noqa: BLE001 - a defect in one reading must not hide what changes after it
        # Its words and its story could have what is in the file.
        log.error("a file of who may call could not be taken", file=str(file), error=type(error).__name__)


def read_at_most(file: Path, max_bytes: int) -> bytes:
    """Return what a file holds. Raises OSError, also where that is more."""
    with file.open("rb") as opened:
        content = opened.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(0, f"it has more than {max_bytes} bytes")
    return content
