"""From a pipeline's file to a pipeline that can be called: read and built in threads, and warmed.

What a component's own `warm_up_async` does is on the event loop, since its connections belong there.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from haystack.utils import Secret

from haystream_service.errors import PipelineBuildFailed, PipelineFileError
from haystream_service.pipelines.files.folder import pipeline_files
from haystream_service.pipelines.files.source import read_source
from haystream_service.pipelines.generation import as_pipeline, components_of, warm_up
from haystream_service.pipelines.shape import shape_of
from haystream_service.pipelines.sharing import SharedPipeline
from haystream_service.run.threads import ComponentExited

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
    from pathlib import Path

    from haystream_service.pipelines.build_threads import BuildThreads, InThread
    from haystream_service.pipelines.files.folder import PipelineFile
    from haystream_service.pipelines.files.source import Source
    from haystream_service.pipelines.shape import Shape
    from haystream_service.pipelines.sharing import Closings

T = TypeVar("T")

TURN_SECONDS = 1.0
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
    """Reads, builds and warms, in `threads`: those of components may all be taken.

    Files take turns: what two of them import, each in its thread, could get in the other's way. Who takes long gives
    the turn away.
    """

    def __init__(self, threads: BuildThreads, build_seconds: float, closings: Closings) -> None:
        self._threads = threads
        self._build_seconds = build_seconds
        self._closings = closings
        self._turn = asyncio.Lock()

    async def load(self, file: PipelineFile) -> LoadedPipeline:
        """Return the pipeline of a file. Raises PipelineFileError, or whatever the file's own code raises."""
        if file.problem:
            raise PipelineFileError(file.problem)
        async with self._taking_turns():
            source = await self._within_limit(self._threads.run(read_source, file))
            try:
                pipeline, needs_api_key = await self._within_limit(self._first_build(source))
            except BaseException:  # a cancellation included: nobody else knows the source yet
                source.forget()
                raise
        shared = self._shared(pipeline, source.forget)
        try:
            shape = shape_of(pipeline, source.manifest)
            if not needs_api_key:
                await self._warm_on_own_keys(pipeline)
        except BaseException:  # whatever it is, what is warm already is to be closed
            shared.retire()
            raise
        return LoadedPipeline(file.name, source, shared, shape, needs_api_key)

    def unload(self, loaded: LoadedPipeline) -> None:
        """Have a pipeline closed after its last run."""
        self._closings.retire_soon(loaded.shared)

    async def files(self, folder: Path) -> dict[str, PipelineFile]:
        """Return what a folder has. Raises OSError."""
        return await self._threads.look(pipeline_files, folder)

    async def build_with(self, api_key: str, source: Source) -> Any:
        """Return a warm pipeline for a caller's key. Raises PipelineBuildFailed."""
        try:
            async with asyncio.timeout(self._build_seconds):
                pipeline = await self._build(source, Secret.from_token(api_key), self._threads.run_for_key)
                try:
                    await self._warm(pipeline)
                except BaseException:  # a cancellation included: what is warm already is to be closed
                    self._shared(pipeline).retire()
                    raise
        except Exception as error:  # whatever the owner's code raises, with the key perhaps in its words
            raise PipelineBuildFailed from error
        return pipeline

    async def _first_build(self, source: Source) -> tuple[Any, bool]:
        """Return the pipeline on the service's own key, and whether it has none, so that each caller brings one."""
        if not source.takes_api_key:
            return await self._build(source, None, self._threads.run), False
        try:
            pipeline = await self._build(source, None, self._threads.run)
        except Exception:  # whatever the owner's code raises
            # Components of Haystack 2 want their key when they are made. Where only that was amiss, this one is made.
            with suppress(Exception):  # the first failure is the story
                return await self._build(source, Secret.from_token(PLACEHOLDER), self._threads.run), True
            raise
        return pipeline, bool(_keys_that_are_not_there(components_of(pipeline)))

    async def _build(self, source: Source, api_key: Secret | None, run: InThread) -> Any:
        built = await run(source.build, api_key)
        return as_pipeline(await built if inspect.isawaitable(built) else built)

    def _shared(self, pipeline: Any, on_closed: Callable[[], None] = lambda: None) -> SharedPipeline:
        built = asyncio.get_running_loop().create_future()
        built.set_result(pipeline)
        return SharedPipeline(built, self._closings, on_closed)

    async def _warm_on_own_keys(self, pipeline: Any) -> None:
        try:
            await self._warm(pipeline)
        except ValueError as error:
            if lacking := _keys_that_are_not_there(components_of(pipeline)):
                cure = "set it, or take callers' own keys, by `build(api_key=None)` or `api_key_components`"
                raise PipelineFileError(f"{lacking[0]}, which is not in the environment: {cure}") from error
            raise

    async def _warm(self, pipeline: Any) -> None:
        try:
            await warm_up(components_of(pipeline), self._threads.warm)
        except (SystemExit, ComponentExited):
            raise PipelineFileError("a component calls `sys.exit`: raise an exception instead") from None

    async def _within_limit(self, step: Coroutine[Any, Any, T]) -> T:
        limit = asyncio.timeout(self._build_seconds)
        try:
            async with limit:
                return await step
        except TimeoutError:
            if not limit.expired():
                raise  # the file's own
            seconds = f"{self._build_seconds:g} seconds (HAYSTREAM_BUILD_SECONDS)"
            raise PipelineFileError(f"it is not built within {seconds}: load what takes long in `warm_up`") from None

    @asynccontextmanager
    async def _taking_turns(self) -> AsyncGenerator[None]:
        await self._turn.acquire()
        with ExitStack() as turn:
            turn.callback(self._turn.release)
            timer = asyncio.get_running_loop().call_later(TURN_SECONDS, turn.close)
            try:
                yield
            finally:
                timer.cancel()


def _keys_that_are_not_there(components: Mapping[str, Any]) -> list[str]:
    """Return what components, or the models inside them, want from the environment and do not find there."""
    found: list[str] = []
    for name, component in components.items():
        values = getattr(component, "__dict__", {})
        secrets = [value for value in values.values() if isinstance(value, Secret) and not _is_there(value)]
        found += [f"{name} wants {' or '.join(secret.to_dict().get('env_vars', ()))}" for secret in secrets]
        if "chat_generator" in values:
            found += _keys_that_are_not_there({name: values["chat_generator"]})
    return found


def _is_there(secret: Secret) -> bool:
    try:
        secret.resolve_value()
    except ValueError:
        return False
    return True
