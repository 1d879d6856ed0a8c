"""The composition: settings in, a serving address out, and an orderly end on the way out."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.attachments import Attachments
from haystream_service.chat import ChatServicer, Limits
from haystream_service.decoding import Decoding
from haystream_service.failure import failure_of
from haystream_service.images import ImageFetcher
from haystream_service.listening import listening_server
from haystream_service.logs import Secrets
from haystream_service.metadata_limit import BoundedMetadata
from haystream_service.pipelines.build_threads import BuildThreads
from haystream_service.pipelines.callbacks import quiet_misleading_warning
from haystream_service.pipelines.keyed import KeyedPipelines
from haystream_service.pipelines.loading import Loader
from haystream_service.pipelines.registry import PipelineRegistry
from haystream_service.pipelines.sharing import Closings
from haystream_service.pipelines.watching import watch
from haystream_service.requests import MAX_REQUEST_BYTES
from haystream_service.run.run import Budget
from haystream_service.run.runs import Runs
from haystream_service.run.store import MemoryStore
from haystream_service.run.threads import ComponentThreads
from haystream_service.run.writer import Patience

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import grpc.aio
    from structlog.typing import FilteringBoundLogger

    from haystream_service.settings import Settings

SERVICE_NAME = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# After the last run is over its caller still has to get the status, and an open Health.Watch never ends by itself.
GOODBYE_SECONDS = 0.5

OPTIONS = (
    ("grpc.so_reuseport", 0),  # otherwise a second service would share the port without a word
    ("grpc.max_receive_message_length", 4 * MAX_REQUEST_BYTES),
    # More than about 1,000 calls that nobody has accepted yet are cancelled at random below these.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    # gRPC takes one call in a few turns of the loop, and cancels those that it has not taken for 30 s. A service that
    # is busy to its limits needs longer for a thousand that come at once; who cannot wait has a deadline.
    ("grpc.server_max_unrequested_time_in_server", 600),
    # A peer that froze or lost its network is noticed within 25 s. The keepalive timeout alone never fires.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class AddressInUse(Exception):
    """The address to serve on is taken, or cannot be had."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service that serves.

    `port` is the one it got where port 0 was asked for; `loaded` is set once all pipelines are warm or have failed.
    """

    port: int
    runs: Runs
    store: MemoryStore
    threads: ComponentThreads
    registry: PipelineRegistry
    keyed: KeyedPipelines
    loaded: asyncio.Event


@asynccontextmanager
async def serving(
    settings: Settings, log: FilteringBoundLogger, hidden: Secrets | None = None
) -> AsyncGenerator[Service]:
    """Serve until the block is left, then drain. Callers' keys are `hidden` from the log while they are in use.

    Raises AddressInUse, or PipelineFileError for the folder itself.
    """
    async with _pipelines(settings, log, hidden or Secrets()) as (registry, keyed):
        store = MemoryStore(settings.replay_bytes, settings.replay_seconds, settings.replay_total_bytes)
        runs = Runs(settings.max_runs, store, failure_of)
        quiet_misleading_warning()
        watch_of_health = health.aio.HealthServicer()
        async with _images(settings) as fetcher, _component_threads(settings, log) as threads:
            servicer = ChatServicer(registry, Attachments(fetcher), runs, _limits(settings), log)
            server = _server(servicer, watch_of_health)
            port = _bind(server, settings.listen)
            await watch_of_health.set("", SERVING)
            await watch_of_health.set(SERVICE_NAME, NOT_SERVING)
            await server.start()
            loaded = asyncio.Event()
            tasks = [asyncio.create_task(_keep_readiness(registry, watch_of_health, loaded), name="readiness")]
            if settings.watch_pipelines:
                tasks.append(asyncio.create_task(watch(settings.pipelines, registry, log), name="watch pipelines"))
            try:
                yield Service(port, runs, store, threads, registry, keyed, loaded)
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


def _server(servicer: ChatServicer, watch_of_health: health.aio.HealthServicer) -> grpc.aio.Server:
    server = listening_server([BoundedMetadata(), Decoding()], OPTIONS)
    chat_pb2_grpc.add_ChatServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(watch_of_health, server)
    reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


async def _keep_readiness(
    registry: PipelineRegistry, watch_of_health: health.aio.HealthServicer, loaded: asyncio.Event
) -> None:
    """Load the pipelines; the service is ready once all are warm that can be, and as long as there is one."""
    await registry.load()
    while True:
        registry.changed.clear()
        is_ready = any(slot.loaded is not None for slot in registry.slots.values())
        await watch_of_health.set(SERVICE_NAME, SERVING if is_ready else NOT_SERVING)
        loaded.set()
        await registry.changed.wait()


def _bind(server: grpc.aio.Server, address: str) -> int:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, int(port)), family=family).close()  # gRPC's core would say more than one line
        return server.add_insecure_port(address)
    except (OSError, RuntimeError):
        raise AddressInUse(f"HAYSTREAM_LISTEN: {address} is taken or cannot be bound") from None


def _limits(settings: Settings) -> Limits:
    return Limits(
        run=Budget(settings.max_run_seconds, settings.queue_bytes),
        reader=Patience(settings.heartbeat_seconds, settings.slow_reader_seconds),
    )
