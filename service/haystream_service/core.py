"""What a service works with, whoever calls: its pipelines, its runs, its threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haystream_service.failure import failure_of
from haystream_service.pipelines.build_threads import BuildThreads
from haystream_service.pipelines.callbacks import quiet_misleading_warning
from haystream_service.pipelines.keyed import KeyedPipelines
from haystream_service.pipelines.loading import Loader
from haystream_service.pipelines.registry import PipelineRegistry
from haystream_service.pipelines.sharing import Closings
from haystream_service.run.runs import Capacity, Runs
from haystream_service.run.store import MemoryStore
from haystream_service.run.threads import ComponentThreads

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from structlog.typing import FilteringBoundLogger

    from haystream_service.logs import Secrets
    from haystream_service.settings import Settings


@dataclass(frozen=True, slots=True)
class Core:
    """Pipelines that are found, and not loaded yet; runs, of which there are none; threads that stand by."""

    registry: PipelineRegistry
    keyed: KeyedPipelines
    store: MemoryStore
    runs: Runs
    threads: ComponentThreads


@asynccontextmanager
async def working(settings: Settings, log: FilteringBoundLogger, hidden: Secrets) -> AsyncGenerator[Core]:
    """Have it while the block lasts. Raises PipelineFileError for the folder of pipelines itself."""
    async with _pipelines(settings, log, hidden) as (registry, keyed), _component_threads(settings, log) as threads:
        store = MemoryStore(settings.replay_bytes, settings.replay_seconds, settings.replay_total_bytes)
        capacity = Capacity(settings.max_runs, settings.max_readers, settings.queue_total_bytes)
        quiet_misleading_warning()
        try:
            yield Core(registry, keyed, store, Runs(capacity, store, failure_of), threads)
        finally:
            store.close()


@asynccontextmanager
async def _pipelines(
    settings: Settings, log: FilteringBoundLogger, hidden: Secrets
) -> AsyncGenerator[tuple[PipelineRegistry, KeyedPipelines]]:
    """Find the pipelines, and close at the end what has become of them."""
    threads = BuildThreads()
    closings = Closings(threads.close, log)
    keyed = KeyedPipelines(settings.keyed_pipelines, settings.keyed_seconds, closings, hidden)
    loader = Loader(threads, settings.build_seconds, closings)
    registry = PipelineRegistry(settings.pipelines, settings.default_pipeline, loader, keyed, log)
    registry.find()
    try:
        yield registry, keyed
    finally:
        await registry.close()
        await closings.finish()
        threads.shutdown()


@asynccontextmanager
async def _component_threads(settings: Settings, log: FilteringBoundLogger) -> AsyncGenerator[ComponentThreads]:
    """Have components that cannot be async run in threads of the service's own."""
    threads = ComponentThreads(
        settings.max_sync_runs, lambda count: log.info("a thread goes on after its run was stopped", orphans=count)
    )
    asyncio.get_running_loop().set_default_executor(threads)
    try:
        yield threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())  # as it would be without a service
