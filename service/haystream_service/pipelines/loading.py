"""From a pipeline's file to a pipeline that can be called: read and built in threads, and warmed.

What a component's own `warm_up_async` does is on the event loop, since its connections belong there.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from haystack.utils import Secret

from haystream_service.errors import PipelineBuildFailed, PipelineFileError
from haystream_service.pipelines.files.source import read_source
from haystream_service.pipelines.generation import as_pipeline, components_of, warm_up
from haystream_service.pipelines.shape import shape_of
from haystream_service.pipelines.sharing import SharedPipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor

    from haystream_service.pipelines.files.folder import PipelineFile
    from haystream_service.pipelines.files.source import Source
    from haystream_service.pipelines.shape import Shape
    from haystream_service.pipelines.sharing import Closings

T = TypeVar("T")

PLACEHOLDER = "a-key-that-each-caller-brings"


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPipeline:
    """A pipeline that can be called. `needs_api_key`: the service has no key for it, so each caller brings one."""

    name: str
    source: Source
    shared: SharedPipeline
    shape: Shape
    needs_api_key: bool


class Loader:
    """Reads, builds and warms. `threads` are apart from the components', which may all be taken."""

    def __init__(self, threads: Executor, build_seconds: float, closings: Closings) -> None:
        self._threads = threads
        self._build_seconds = build_seconds
        self._closings = closings
        # One file at a time: what two of them import, each in its thread, could get in the other's way.
        self._turn = asyncio.Lock()

    async def load(self, file: PipelineFile) -> LoadedPipeline:
        """Return the pipeline of a file. Raises PipelineFileError, or whatever the file's own code raises."""
        if file.problem:
            raise PipelineFileError(file.problem)
        async with self._turn:
            limit = asyncio.timeout(self._build_seconds)
            try:
                async with limit:
                    source = await self.in_thread(read_source, file)
                    pipeline, needs_api_key = await self._first_build(source)
            except TimeoutError:
                if not limit.expired():
                    raise  # the file's own
                seconds = f"{self._build_seconds:g} seconds (HAYSTREAM_BUILD_SECONDS)"
                raise PipelineFileError(
                    f"it is not built within {seconds}: load what takes long in `warm_up`"
                ) from None
        shape = shape_of(pipeline, source.manifest)
        if not needs_api_key:
            await self._warm(pipeline)
        return LoadedPipeline(file.name, source, self._shared(pipeline), shape, needs_api_key)

    def unload(self, loaded: LoadedPipeline) -> None:
        """Have a pipeline closed after its last run."""
        self._closings.retire_soon(loaded.shared)

    async def build_with(self, api_key: str, source: Source) -> Any:
        """Return a warm pipeline for a caller's key. Raises PipelineBuildFailed."""
        try:
            async with asyncio.timeout(self._build_seconds):
                pipeline = await self._build(source, Secret.from_token(api_key))
                await self._warm(pipeline)
        except Exception as error:
            raise PipelineBuildFailed from error
        return pipeline

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function in one of the threads for all that concerns files."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _first_build(self, source: Source) -> tuple[Any, bool]:
        """Return the pipeline on the service's own key, and whether it has none, so that each caller brings one."""
        if not source.takes_api_key:
            return await self._build(source), False
        try:
            pipeline = await self._build(source)
        except Exception:
            # Components of Haystack 2 want their key when they are made. Where only that was amiss, this one is made.
            try:
                return await self._build(source, Secret.from_token(PLACEHOLDER)), True
            except Exception:  # noqa: BLE001, S110 - the first one is the story
                pass
            raise
        return pipeline, _lacks_a_key(components_of(pipeline).values())

    async def _build(self, source: Source, api_key: Secret | None = None) -> Any:
        built = await self.in_thread(source.build, api_key)
        return as_pipeline(await built if inspect.isawaitable(built) else built)

    def _shared(self, pipeline: Any) -> SharedPipeline:
        built = asyncio.get_running_loop().create_future()
        built.set_result(pipeline)
        return SharedPipeline(built, self._closings)

    async def _warm(self, pipeline: Any) -> None:
        """Warm a pipeline; where that fails, close what is warm already."""
        try:
            await warm_up(components_of(pipeline), self.in_thread)
        except BaseException:  # whatever it is
            self._shared(pipeline).retire()
            raise


def _lacks_a_key(components: Iterable[Any]) -> bool:
    """Whether a component, or the model inside it, has a Secret from the environment that is not there."""
    for component in components:
        values = getattr(component, "__dict__", {})
        if any(isinstance(value, Secret) and not _is_there(value) for value in values.values()):
            return True
        if "chat_generator" in values and _lacks_a_key([values["chat_generator"]]):
            return True
    return False


def _is_there(secret: Secret) -> bool:
    try:
        secret.resolve_value()
    except ValueError:
        return False
    return True
