"""The pipelines of the service: loaded from their folder, warmed, described, lent to runs, and closed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from haystack.utils import Secret

from haystream_service.errors import (
    ApiKeyRequired,
    InvalidRequest,
    PipelineFileError,
    PipelineNotFound,
    PipelineNotReady,
    Violation,
)
from haystream_service.pipelines.files import pipeline_files
from haystream_service.pipelines.running import prepare, run_pipeline
from haystream_service.pipelines.shape import shape_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from haystack import Pipeline
    from structlog.typing import FilteringBoundLogger

    from haystream_service.pipelines.call import Call
    from haystream_service.pipelines.files import Builder, PipelineFile
    from haystream_service.pipelines.shape import Shape
    from haystream_service.run.events import Finished
    from haystream_service.run.run import Sink, Work

T = TypeVar("T")

PREFERRED_DEFAULT = "local"
CLOSE_SECONDS = 2.0  # for a pipeline's components to close their connections


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """A pipeline that can be called. `needs_api_key`: the service has no key for it, so each caller brings one."""

    name: str
    builder: Builder
    pipeline: Pipeline
    shape: Shape
    needs_api_key: bool


@dataclass(slots=True)
class Slot:
    """A pipeline's place: loading while both are unset, then loaded, or failed with words for its owner."""

    file: PipelineFile
    loaded: LoadedPipeline | None = None
    error: str = ""

    @property
    def is_loading(self) -> bool:
        """Whether neither is known yet."""
        return self.loaded is None and not self.error

    def ready(self) -> LoadedPipeline:
        """Return the pipeline. Raises PipelineNotReady."""
        if self.loaded is None:
            why = self.error or "it is still being loaded"
            raise PipelineNotReady(self.file.name, why, loading=self.is_loading)
        return self.loaded


@dataclass(slots=True)
class PipelineRegistry:
    """All pipelines of a folder. `default` is the name of the one for requests that name none; empty: there is none."""

    folder: Path
    default: str
    log: FilteringBoundLogger
    builders: ThreadPoolExecutor  # apart from the components' threads, which may all be taken
    slots: dict[str, Slot] = field(default_factory=dict[str, Slot])

    def find(self) -> None:
        """Look which pipelines the folder has. Raises PipelineFileError for a folder or a default that is not there."""
        if not self.folder.is_dir():
            raise PipelineFileError(f"HAYSTREAM_PIPELINES: there is no folder {str(self.folder)!r}")
        self.slots = {file.name: Slot(file) for file in pipeline_files(self.folder)}
        if not self.slots:
            raise PipelineFileError(f"HAYSTREAM_PIPELINES: no pipeline in the folder {str(self.folder)!r}")
        if self.default and self.default not in self.slots:
            known = ", ".join(self.slots)
            raise PipelineFileError(f"HAYSTREAM_DEFAULT_PIPELINE: {self.default!r} is not one of {known}")
        if not self.default and PREFERRED_DEFAULT in self.slots:
            self.default = PREFERRED_DEFAULT
        if not self.default and len(self.slots) == 1:
            self.default = next(iter(self.slots))

    async def load(self) -> None:
        """Build and warm every pipeline, one after another. A file that is wrong does not take the others down."""
        for slot in self.slots.values():
            try:
                slot.loaded = await self._load(slot.file)
            except PipelineFileError as error:
                slot.error = str(error)
                self.log.warning("pipeline not served", pipeline=slot.file.name, reason=slot.error)
            except Exception as error:  # a file of the operator's may raise anything
                slot.error = f"its file raised {type(error).__name__}; the service's log has the details"
                self.log.warning("pipeline not served", pipeline=slot.file.name, exc_info=error)
            else:
                self.log.info("pipeline ready", pipeline=slot.file.name)

    async def close(self) -> None:
        """Close every pipeline."""
        for slot in self.slots.values():
            if slot.loaded is not None:
                await _close(slot.loaded.pipeline, self.log)
                slot.loaded = None

    def slot(self, name: str) -> Slot:
        """Return a pipeline's slot; an empty name means the default. Raises PipelineNotFound, InvalidRequest."""
        if not name and not self.default:
            raise InvalidRequest(Violation("pipeline", f"there is no default; name one of {', '.join(self.slots)}"))
        try:
            return self.slots[name or self.default]
        except KeyError:
            raise PipelineNotFound(name, list(self.slots)) from None

    def work(self, name: str, call: Call) -> tuple[str, Work]:
        """Return the pipeline's name and a run's work for a call. Raises a Refusal where it cannot be served."""
        loaded = self.slot(name).ready()
        if call.api_key and not loaded.builder.takes_api_key:
            raise InvalidRequest(Violation("api_key", f"pipeline {loaded.name!r} does not take a provider's key"))
        if loaded.needs_api_key and not call.api_key:
            raise ApiKeyRequired(loaded.name)
        prepared = prepare(loaded.shape, call)

        async def work(sink: Sink, seconds: float, /) -> Finished:
            async with self._lent(loaded, call.api_key) as pipeline:
                return await run_pipeline(pipeline, prepared, sink, seconds)

        return loaded.name, work

    @asynccontextmanager
    async def _lent(self, loaded: LoadedPipeline, api_key: str) -> AsyncGenerator[Pipeline]:
        """Lend the pipeline, or one built for the caller's own key, which is closed afterwards and not kept."""
        if not api_key:
            yield loaded.pipeline
            return
        pipeline = await self._in_thread(loaded.builder.build, Secret.from_token(api_key))
        try:
            yield pipeline
        finally:
            await _close(pipeline, self.log)

    async def _load(self, file: PipelineFile) -> LoadedPipeline:
        builder = await self._in_thread(file.load)
        pipeline = await self._in_thread(builder.build)
        shape = shape_of(pipeline)
        needs_api_key = builder.takes_api_key and _lacks_a_key(pipeline)
        if not needs_api_key:
            await pipeline.warm_up_async()
        return LoadedPipeline(file.name, builder, pipeline, shape, needs_api_key)

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.builders, function, *arguments)


def _lacks_a_key(pipeline: Pipeline) -> bool:
    """Whether a component has a Haystack Secret that must come from the environment and is not there."""
    return any(
        isinstance(value, Secret) and not _is_there(value)
        for _, component in pipeline.walk()
        for value in vars(component).values()
    )


def _is_there(secret: Secret) -> bool:
    try:
        secret.resolve_value()
    except ValueError:
        return False
    return True


async def _close(pipeline: Pipeline, log: FilteringBoundLogger) -> None:
    """Release a pipeline's connections and models. Only its own components can fail here, and then it is gone too."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pipeline.close_async()
    except Exception as error:  # a component of the operator's may raise anything
        log.warning("a pipeline did not close cleanly", exc_info=error)
