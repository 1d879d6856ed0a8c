"""The pipelines of the service: what the folder has, what of it is served, and a run's way to its pipeline."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from haystream_service.errors import (
    ApiKeyRequired,
    InvalidRequest,
    PipelineFileError,
    PipelineForbidden,
    PipelineNotFound,
    PipelineNotReady,
    Violation,
)
from haystream_service.pipelines.files.folder import pipeline_files
from haystream_service.pipelines.running import prepare, run_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from haystream_service.pipelines.call import Call
    from haystream_service.pipelines.files.folder import PipelineFile
    from haystream_service.pipelines.keyed import KeyedPipelines
    from haystream_service.pipelines.loading import LoadedPipeline, Loader
    from haystream_service.pipelines.sharing import SharedPipeline
    from haystream_service.run.events import Finished
    from haystream_service.run.run import Sink, Work

    MayCall: TypeAlias = Callable[[str], bool]

PREFERRED_DEFAULT = "local"
STILL_SERVED = "; the version before is still served"


@dataclass(slots=True)
class Slot:
    """A pipeline's place.

    `loaded` is what new runs get. `error` says why the file as it is now is not that; both are unset while the first
    version is being loaded.
    """

    file: PipelineFile
    loaded: LoadedPipeline | None = None
    error: str = ""
    loading: asyncio.Task[None] | None = None

    def ready(self) -> LoadedPipeline:
        """Return the pipeline. Raises PipelineNotReady."""
        if self.loaded is None:
            why = self.error or "it is still being loaded"
            raise PipelineNotReady(self.file.name, why, loading=not self.error)
        return self.loaded


@dataclass(frozen=True, slots=True)
class Job:
    """What a call comes to: a pipeline's name, the work to be run, and the longest it may take where that is set."""

    pipeline: str
    work: Work
    seconds: float | None


class PipelineRegistry:
    """All pipelines of a folder. `changed` is set whenever one of them has been loaded, has failed or is gone."""

    def __init__(
        self, folder: Path, default: str, loader: Loader, keyed: KeyedPipelines, log: FilteringBoundLogger
    ) -> None:
        self.slots: dict[str, Slot] = {}
        self.changed = asyncio.Event()
        self._folder = folder
        self._default = default
        self._loader = loader
        self._keyed = keyed
        self._log = log
        self._looking = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()  # of loading, those included that were overtaken

    @property
    def default(self) -> str:
        """The name of the pipeline for requests that name none; empty where there is none."""
        if self._default or len(self.slots) != 1:
            return self._default or (PREFERRED_DEFAULT if PREFERRED_DEFAULT in self.slots else "")
        return next(iter(self.slots))

    def find(self) -> None:
        """Look for the first time. Raises PipelineFileError for a folder or a default that is not there."""
        if not self._folder.is_dir():
            raise PipelineFileError(f"HAYSTREAM_PIPELINES: there is no folder {str(self._folder)!r}")
        self.slots = {name: Slot(file) for name, file in pipeline_files(self._folder).items()}
        if not self.slots:
            raise PipelineFileError(f"HAYSTREAM_PIPELINES: no pipeline in the folder {str(self._folder)!r}")
        if self._default and self._default not in self.slots:
            known = ", ".join(self.slots)
            raise PipelineFileError(f"HAYSTREAM_DEFAULT_PIPELINE: {self._default!r} is not one of {known}")

    async def load(self) -> None:
        """Load every pipeline that was found. A file that is wrong does not take the others down."""
        self._begin_loading(self.slots.values())
        # Not `gather`, which would end with the first that is cancelled, as one is whose file changes meanwhile.
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def look_again(self, *, retry_failed: bool = False) -> None:
        """Begin to load what has changed in the folder, and what had failed if so asked; let go of what is gone."""
        async with self._looking:
            try:
                files = await self._loader.files(self._folder)
            except OSError as error:  # the folder is gone, or being exchanged: what is loaded stays
                self._log.warning("the folder of pipelines cannot be read", exc_info=error)
                return
            for name in self.slots.keys() - files.keys():
                self._remove(self.slots.pop(name))
            stale = [slot for name, file in files.items() if (slot := self._slot_of(name, file, retry_failed))]
            self.slots = {name: self.slots[name] for name in files}
            self._begin_loading(stale)

    async def close(self) -> None:
        """Close every pipeline."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for slot in self.slots.values():
            if slot.loaded is not None:
                slot.loaded.shared.retire()
                slot.loaded = None
        self._keyed.close()

    def default_for(self, may_call: MayCall) -> str:
        """Return the pipeline of requests that name none; empty where there is none for this caller."""
        return self.default if may_call(self.default) else ""

    def slot(self, name: str, may_call: MayCall) -> Slot:
        """Return a pipeline's slot; an empty name means the default. Raises PipelineForbidden before all else.

        Raises PipelineNotFound, or InvalidRequest where there is no default.
        """
        names = [name for name in self.slots if may_call(name)]
        name = name or self.default_for(may_call)
        if not name:
            cure = f"; name one of {', '.join(names)}" if names else ", and no pipeline that you may call"
            raise InvalidRequest(Violation("pipeline", f"there is no default{cure}"))
        if not may_call(name):
            raise PipelineForbidden(name)
        if name not in self.slots:
            raise PipelineNotFound(name, names)
        return self.slots[name]

    def job(self, name: str, call: Call, may_call: MayCall) -> Job:
        """Return what a call comes to, to be run at once. Raises a Refusal where it cannot be served."""
        loaded = self.slot(name, may_call).ready()
        if call.api_key and not loaded.source.takes_api_key:
            raise InvalidRequest(Violation("api_key", f"pipeline {loaded.name!r} does not take a provider's key"))
        if loaded.needs_api_key and not call.api_key:
            raise ApiKeyRequired(loaded.name)
        prepared = prepare(loaded.shape, call)

        async def work(sink: Sink, seconds: float, /) -> Finished:
            async with self._shared(loaded, call.api_key).lent() as pipeline:
                return await run_pipeline(pipeline, prepared, sink, seconds)

        return Job(loaded.name, work, loaded.source.manifest.timeout_seconds)

    def _shared(self, loaded: LoadedPipeline, api_key: str) -> SharedPipeline:
        """Return the pipeline on the service's own key, or the one that is kept for the caller's."""
        if not api_key:
            return loaded.shared
        return self._keyed.shared(loaded, api_key, lambda: self._loader.build_with(api_key, loaded.source))

    def _slot_of(self, name: str, file: PipelineFile, retry_failed: bool) -> Slot | None:
        """Return the slot of a file that is to be loaded; None where it is loaded as it is."""
        slot = self.slots.get(name)
        if slot is None:
            slot = self.slots[name] = Slot(file)
            return slot
        if slot.file == file and not (retry_failed and slot.error):
            return None
        slot.file = file
        return slot

    def _begin_loading(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            if slot.loading is not None:
                slot.loading.cancel()  # the file has changed in the meantime
            slot.loading = asyncio.create_task(self._load(slot), name="load a pipeline")
            self._tasks.add(slot.loading)
            slot.loading.add_done_callback(self._tasks.discard)

    async def _load(self, slot: Slot) -> None:
        file = slot.file
        log = self._log.bind(pipeline=file.name)
        try:
            loaded = await self._loader.load(file)
        except PipelineFileError as error:
            self._fail(slot, f"{file.title}: {error}")
            log.warning("pipeline not served", reason=slot.error, exc_info=error.__cause__)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # the file has changed, or the service stops; else it is the file that raises it
            self._fail(slot, f"{file.title} raised CancelledError while it was built; await what it waits for")
            log.warning("pipeline not served", reason=slot.error)
        except Exception as error:  # a file of the operator's may raise anything
            self._fail(slot, f"{file.title} raised {type(error).__name__}; the service's log has the details")
            log.warning("pipeline not served", reason=slot.error, exc_info=error)
        else:
            self._swap(slot, loaded)
            log.info("pipeline ready")
        self.changed.set()

    def _fail(self, slot: Slot, why: str) -> None:
        slot.error = why + (STILL_SERVED if slot.loaded is not None else "")

    def _swap(self, slot: Slot, loaded: LoadedPipeline) -> None:
        """Give new runs the new version. Those that go on finish with the one they began with."""
        before, slot.loaded, slot.error = slot.loaded, loaded, ""
        if before is not None:
            self._retire(before)

    def _remove(self, slot: Slot) -> None:
        if slot.loading is not None:
            slot.loading.cancel()
        if slot.loaded is not None:
            self._retire(slot.loaded)
        self._log.info("pipeline removed", pipeline=slot.file.name)
        self.changed.set()

    def _retire(self, loaded: LoadedPipeline) -> None:
        self._loader.unload(loaded)
        self._keyed.forget(loaded)
