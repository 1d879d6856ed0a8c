"""The composition: settings in, a serving address out, and an orderly end on the way out."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from haystream.v1 import chat_pb2_grpc
from haystream_service.attachments import Attachments
from haystream_service.binding import bind
from haystream_service.chat import ChatServicer, Limits
from haystream_service.decoding import Decoding
from haystream_service.door import Door
from haystream_service.encryption import Encryption, certificate_of, encryption_of
from haystream_service.failure import failure_of
from haystream_service.health import NOT_SERVING, SERVICE_NAME, health_port, keep_readiness, new_health
from haystream_service.identity.authentication import authenticating
from haystream_service.images import ImageFetcher
from haystream_service.logs import Secrets
from haystream_service.metadata_limit import BoundedMetadata
from haystream_service.pipelines.build_threads import BuildThreads
from haystream_service.pipelines.callbacks import quiet_misleading_warning
from haystream_service.pipelines.keyed import KeyedPipelines
from haystream_service.pipelines.loading import Loader
from haystream_service.pipelines.registry import PipelineRegistry
from haystream_service.pipelines.sharing import Closings
from haystream_service.pipelines.watching import watch
from haystream_service.run.run import Budget
from haystream_service.run.runs import Capacity, Runs
from haystream_service.run.store import MemoryStore
from haystream_service.run.threads import ComponentThreads
from haystream_service.run.writer import Patience
from haystream_service.sizes import RequestLimits
from haystream_service.transport import options_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from structlog.typing import FilteringBoundLogger

    from haystream_service.settings import Settings

    Interceptor: TypeAlias = grpc.aio.ServerInterceptor

# After the last run is over its caller still has to get the status, and an open Health.Watch never ends by itself.
GOODBYE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Service:
    """A service that serves.

    `port` is the one it got where port 0 was asked for, `health_port` the one for probes, where there is one. `loaded`
    is set once all pipelines are warm or have failed.
    """

    port: int
    runs: Runs
    store: MemoryStore
    threads: ComponentThreads
    registry: PipelineRegistry
    keyed: KeyedPipelines
    loaded: asyncio.Event
    health_port: int | None = None
    encryption: Encryption | None = None


@asynccontextmanager
async def serving(
    settings: Settings, log: FilteringBoundLogger, hidden: Secrets | None = None
) -> AsyncGenerator[Service]:
    """Serve until the block is left, then drain. Callers' keys are `hidden` from the log while they are in use.

    Raises AddressInUse, CertificateUnusable, IdentityFileError, or PipelineFileError for the folder itself.
    """
    encryption = encryption_of(settings, log)
    async with (
        authenticating(settings, log) as authenticator,
        _pipelines(settings, log, hidden or Secrets()) as (registry, keyed),
    ):
        store = MemoryStore(settings.replay_bytes, settings.replay_seconds, settings.replay_total_bytes)
        runs = Runs(_capacity(settings), store, failure_of)
        quiet_misleading_warning()
        watch_of_health = await new_health()
        async with (
            _images(settings) as fetcher,
            _component_threads(settings, log) as threads,
            health_port(watch_of_health, settings.health_listen, has_reflection=settings.reflection) as probed,
        ):
            servicer = ChatServicer(registry, Attachments(fetcher), runs, _limits(settings), log)
            door = Door(SERVICE_NAME, authenticator, log, certificate_of if settings.tls_client_ca else None)
            server = _server(settings, servicer, watch_of_health, [BoundedMetadata(), door, Decoding()])
            credentials = encryption.credentials() if encryption else None
            port = bind(server, "HAYSTREAM_LISTEN", settings.listen, credentials)
            await server.start()
            loaded = asyncio.Event()
            tasks = [asyncio.create_task(keep_readiness(registry, watch_of_health, loaded), name="readiness")]
            if settings.watch_pipelines:
                tasks.append(asyncio.create_task(watch(settings.pipelines, registry, log), name="watch pipelines"))
            try:
                yield Service(port, runs, store, threads, registry, keyed, loaded, probed, encryption)
            finally:
                for task in tasks:
                    task.cancel()
                await watch_of_health.set(SERVICE_NAME, NOT_SERVING)
                await runs.drain(settings.drain_seconds)
                await server.stop(GOODBYE_SECONDS)
                await asyncio.gather(*tasks, return_exceptions=True)
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


def _images(settings: Settings) -> ImageFetcher:
    hosts = frozenset(host for name in settings.image_hosts.split(",") if (host := name.strip()))
    return ImageFetcher(max_bytes=settings.image_bytes, allowed_hosts=hosts)


def _server(
    settings: Settings,
    servicer: ChatServicer,
    watch_of_health: health.aio.HealthServicer,
    interceptors: Sequence[Interceptor],
) -> grpc.aio.Server:
    server = grpc.aio.server(interceptors=interceptors, options=options_of(settings))  # pyright: ignore[reportUnknownMemberType]  # half typed in its stubs
    chat_pb2_grpc.add_ChatServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(watch_of_health, server)
    if settings.reflection:
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


def _capacity(settings: Settings) -> Capacity:
    return Capacity(settings.max_runs, settings.max_readers, settings.queue_total_bytes)


def _limits(settings: Settings) -> Limits:
    return Limits(
        run=Budget(settings.max_run_seconds, settings.queue_bytes),
        reader=Patience(settings.heartbeat_seconds, settings.slow_reader_seconds),
        request=RequestLimits(settings.max_query_bytes, settings.max_messages),
    )
