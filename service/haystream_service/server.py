"""The composition: settings in, a serving address out, and an orderly end on the way out."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from haystream.v1 import chat_pb2_grpc
from haystream_service.attachments import Attachments
from haystream_service.chat import ChatServicer, Limits
from haystream_service.core import Core, working
from haystream_service.entrance.binding import AddressInUse, bind
from haystream_service.entrance.decoding import Decoding
from haystream_service.entrance.door import Door
from haystream_service.entrance.encryption import Encryption, certificate_of, encryption_of
from haystream_service.entrance.health import NOT_SERVING, SERVICE_NAME, health_port, keep_readiness, new_health
from haystream_service.entrance.listening import listening_server
from haystream_service.entrance.metadata_limit import BoundedMetadata
from haystream_service.entrance.transport import options_of
from haystream_service.identity.authentication import Authenticator, authenticating
from haystream_service.images import ImageFetcher
from haystream_service.logs import Secrets
from haystream_service.pipelines.watching import watch
from haystream_service.run.run import Budget
from haystream_service.run.writer import Patience
from haystream_service.settings import listed
from haystream_service.sizes import RequestLimits
from haystream_service.telemetry.collected import Metrics, metrics_of
from haystream_service.telemetry.exposition import exposed
from haystream_service.telemetry.gauges import Holdings
from haystream_service.telemetry.observer import Observer
from haystream_service.telemetry.report import Report
from haystream_service.telemetry.rpcs import WatchedRpcs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    import grpc.aio
    from prometheus_client import CollectorRegistry
    from structlog.typing import FilteringBoundLogger

    from haystream_service.entrance.health_servicer import HealthServicer
    from haystream_service.identity.certificate import PeerCertificate
    from haystream_service.identity.principal import Principal
    from haystream_service.pipelines.keyed import KeyedPipelines
    from haystream_service.pipelines.registry import PipelineRegistry
    from haystream_service.run.runs import Runs
    from haystream_service.run.store import MemoryStore
    from haystream_service.run.threads import ComponentThreads
    from haystream_service.settings import Settings
    from haystream_service.telemetry.tracing import Traces

SERVICES = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)

# After the last run is over its caller still has to get the status, and an open Health.Watch never ends by itself.
GOODBYE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service that serves.

    `port` is the one it got where port 0 was asked for; so are `health_port`, for probes, and `metrics_port`, where
    there are such. `loaded` is set once all pipelines are warm or have failed.
    """

    port: int
    health_port: int | None
    metrics_port: int | None
    loaded: asyncio.Event
    runs: Runs
    store: MemoryStore
    threads: ComponentThreads
    registry: PipelineRegistry
    keyed: KeyedPipelines
    authenticator: Authenticator
    encryption: Encryption | None
    metrics: CollectorRegistry


@dataclass(frozen=True, slots=True)
class Patient:
    """Tells who calls, which may need an issuer's keys: at the end of the drain it is no longer waited for."""

    authenticator: Authenticator
    runs: Runs

    async def principal_of(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Principal:
        """Return who calls. Raises as the authenticator, and ServiceDraining."""
        self.runs.check_not_over()
        principal = self.authenticator.principal_at_once(authorization, certificate)
        if principal is not None:  # as nearly always: to wait takes longer than all the rest
            return principal
        async with self.runs.waiting():
            return await self.authenticator.principal_of(authorization, certificate)


@asynccontextmanager
async def serving(
    settings: Settings, log: FilteringBoundLogger, hidden: Secrets | None = None, traces: Traces | None = None
) -> AsyncGenerator[Service]:
    """Serve until the block is left, then drain. Callers' keys are `hidden` from the log while they are in use.

    Raises AddressInUse, CertificateUnusable, IdentityFileError, or PipelineFileError for the folder itself.
    """
    encryption = encryption_of(settings, log)
    async with (
        authenticating(settings, log) as authenticator,
        working(settings, log, hidden or Secrets()) as core,
        _images(settings) as fetcher,
    ):
        metrics = metrics_of(_holdings(settings, core, encryption), SERVICES)
        observer = Observer(Report(log), metrics.runs, traces, lambda: core.registry.slots)
        asked = Patient(authenticator, core.runs)
        door = Door(SERVICE_NAME, asked, observer, certificate_of if settings.tls_client_ca else None)
        server = _server(settings, [_watched(metrics, traces), BoundedMetadata(observer), door, Decoding(observer)])
        servicer = ChatServicer(core.registry, Attachments(fetcher), core.runs, _limits(settings), observer)
        chat_pb2_grpc.add_ChatServiceServicer_to_server(servicer, server)
        health_servicer = new_health()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        async with _other_ports(settings, health_servicer, observer, metrics, traces) as (probed, scraped):
            port = bind(server, "HAYSTREAM_LISTEN", settings.listen, encryption.credentials() if encryption else None)
            loaded = asyncio.Event()
            async with _at_work(settings, log, core, server, health_servicer, loaded):
                yield Service(
                    port=port,
                    health_port=probed,
                    metrics_port=scraped,
                    loaded=loaded,
                    runs=core.runs,
                    store=core.store,
                    threads=core.threads,
                    registry=core.registry,
                    keyed=core.keyed,
                    authenticator=authenticator,
                    encryption=encryption,
                    metrics=metrics.registry,
                )


@asynccontextmanager
async def _at_work(  # noqa: PLR0913, PLR0917 - all that begins and ends with it
    settings: Settings,
    log: FilteringBoundLogger,
    core: Core,
    server: grpc.aio.Server,
    health_servicer: HealthServicer,
    loaded: asyncio.Event,
) -> AsyncGenerator[None]:
    """Take calls and look after the pipelines until the block is left, then drain."""
    await server.start()
    tasks = [asyncio.create_task(keep_readiness(core.registry, health_servicer, loaded), name="readiness")]
    if settings.watch_pipelines:
        tasks.append(asyncio.create_task(watch(settings.pipelines, core.registry, log), name="watch pipelines"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        health_servicer.set(SERVICE_NAME, NOT_SERVING)
        await core.runs.drain(settings.drain_seconds)
        await server.stop(GOODBYE_SECONDS)
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _other_ports(
    settings: Settings, health_servicer: HealthServicer, observer: Observer, metrics: Metrics, traces: Traces | None
) -> AsyncGenerator[tuple[int | None, int | None]]:
    """Answer probes and scrapes, and have Haystack's own spans among the traces, for longer than there are calls."""
    interceptors = [WatchedRpcs(SERVICES), BoundedMetadata(observer), Decoding(observer)]  # with places of their own
    async with (
        health_port(health_servicer, settings, interceptors) as probed,
        _exposed(settings.metrics_listen, metrics.registry) as scraped,
    ):
        with traces.of_pipelines() if traces is not None else nullcontext():
            yield probed, scraped


@asynccontextmanager
async def _exposed(address: str, registry: CollectorRegistry) -> AsyncGenerator[int | None]:
    """Serve the metrics where there is an address for them; yields the port."""
    if not address:
        yield None
        return
    async with AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(exposed(registry, address))
        except OSError:
            raise AddressInUse(f"HAYSTREAM_METRICS_LISTEN: {address} is taken or cannot be bound") from None
        yield port


def _server(settings: Settings, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> grpc.aio.Server:
    server = listening_server(interceptors, options_of(settings))
    if settings.reflection:
        reflection.enable_server_reflection(SERVICES, server)
    return server


def _watched(metrics: Metrics, traces: Traces | None) -> WatchedRpcs:
    return WatchedRpcs(SERVICES, metrics.rpcs, *([] if traces is None else [traces]))


def _holdings(settings: Settings, core: Core, encryption: Encryption | None) -> Holdings:
    return Holdings(
        core.runs,
        core.store,
        core.threads,
        core.registry,
        settings.max_runs,
        settings.max_sync_runs,
        lambda: encryption.expires_at.timestamp() if encryption is not None else None,
        lambda: end.timestamp() if encryption is not None and (end := encryption.client_ca_expires_at) else None,
    )


def _images(settings: Settings) -> ImageFetcher:
    return ImageFetcher(max_bytes=settings.image_bytes, allowed_hosts=frozenset(listed(settings.image_hosts)))


def _limits(settings: Settings) -> Limits:
    return Limits(
        run=Budget(settings.max_run_seconds, settings.queue_bytes),
        reader=Patience(settings.heartbeat_seconds, settings.slow_reader_seconds),
        request=RequestLimits(settings.max_query_bytes, settings.max_messages),
    )
