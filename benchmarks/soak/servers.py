"""The processes: a service and a gateway that stay, and a service and a gateway that are restarted."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.contestants.entrant import GATEWAY_COMMAND, free_port
from benchmarks.contestants.health import is_open, until
from benchmarks.process import ServerFailed, module, running
from benchmarks.provider import PROVIDER
from benchmarks.soak.access import OPTIONS
from benchmarks.soak.operator import write_first

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from benchmarks.process import ServerProcess
    from benchmarks.soak.access import Access

PIPELINES = Path(__file__).parent / "pipelines"
SERVICE = "haystream.v1.ChatService"
STOP_SLACK_SECONDS = 8  # what an orderly end may take besides the drain, on a machine that has other things to do
LINGER_SECONDS = 1.0  # after a restart: what was under way while it happened


@dataclass(frozen=True, slots=True)
class Pace:
    """The times of the settings, so that a short soak goes the whole way as well.

    `longest_seconds` is what a run takes at most that is to fit into the drain, also where the machine is busy.
    """

    drain_seconds: float = 5
    longest_seconds: float = 2.5
    slow_reader_seconds: float = 3
    keep_seconds: float = 15

    def service(self) -> dict[str, str]:
        """Return a service's settings: small enough that each limit is met."""
        return {
            "HAYSTREAM_DRAIN_SECONDS": str(self.drain_seconds),
            "HAYSTREAM_SLOW_READER_SECONDS": str(self.slow_reader_seconds),
            "HAYSTREAM_REPLAY_SECONDS": str(self.keep_seconds),
            "HAYSTREAM_REPLAY_BYTES": str(128 * 1024),
            "HAYSTREAM_KEYED_SECONDS": str(self.keep_seconds),
            "HAYSTREAM_KEYED_PIPELINES": "6",
            "HAYSTREAM_HEARTBEAT_SECONDS": "0.5",
            "HAYSTREAM_MAX_SYNC_RUNS": "8",
            "HAYSTREAM_LOG_FORMAT": "json",
        }

    def gateway(self) -> dict[str, str]:
        """Return a gateway's settings."""
        return {"HAYSTREAM_SLOW_READER_SECONDS": str(self.slow_reader_seconds)}


@dataclass(slots=True)
class Server:
    """A server at a port of its own, which can be restarted there.

    `stops` are the seconds that each stop took. `log_begin` is where in its log the process begins that runs now.
    """

    name: str
    port: int
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    access: Access
    is_service: bool
    metrics_port: int = 0
    log_begin: int = 0
    process: ServerProcess | None = None
    stops: list[float] = field(default_factory=list[float])
    restarts: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _restarting_since: float | None = None

    @property
    def address(self) -> str:
        """Where it serves."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        log: BinaryIO = self._stack.enter_context(self.log.open("ab"))
        self.log_begin = self.log.stat().st_size
        process = await self._stack.enter_async_context(running(self.name, self.command, self.environment, log))
        ready = partial(is_serving, self.address, self.access) if self.is_service else partial(is_open, self.port)
        await until(ready, process)
        self.process = process  # not before: a signal that nobody hears yet would end it

    async def restart(self, patience_seconds: float) -> None:
        """Have it end in order, and start it again at the same port. Raises ServerFailed where it does not."""
        self._restarting_since = time.monotonic()
        await self.stop(patience_seconds)
        await self.start()
        self.restarts.append((self._restarting_since, time.monotonic()))
        self._restarting_since = None

    async def stop(self, patience_seconds: float) -> None:
        """Have it end in order. Raises ServerFailed where that takes too long, or it says that it failed."""
        if self.process is None:
            return
        process, began = self.process.process, time.monotonic()
        self.process = None
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience_seconds + STOP_SLACK_SECONDS):
                code = await process.wait()
        except TimeoutError:
            raise ServerFailed(
                f"{self.name} has not ended {patience_seconds + STOP_SLACK_SECONDS} s after SIGTERM"
            ) from None
        finally:
            await self._stack.aclose()
        self.stops.append(time.monotonic() - began)
        if code != 0:
            raise ServerFailed(f"{self.name} ended with exit code {code} after SIGTERM")

    async def abandon(self) -> None:
        """End it, however."""
        await self._stack.aclose()

    def was_restarted_since(self, since: float) -> bool:
        """Whether some of the time since then fell into a restart."""
        if self._restarting_since is not None:
            return True
        return any(ended + LINGER_SECONDS > since for _, ended in self.restarts[-1:])

    def hang_up(self) -> None:
        """Have it look for changed pipelines (SIGHUP)."""
        if self.process is not None:
            self.process.process.send_signal(signal.SIGHUP)

    async def held(self) -> dict[str, int]:
        """Return what a service holds, as it tells itself. Raises ServerFailed."""
        if self.process is None:
            raise ServerFailed(f"{self.name} is not there")
        self.process.process.send_signal(signal.SIGUSR1)
        held: dict[str, int] = json.loads(await self.process.next_line())
        return held


@dataclass(frozen=True, slots=True)
class Servers:
    """All of them. The `rolling` ones are restarted, the `steady` ones are what is watched for leaks."""

    pace: Pace
    access: Access
    folder: Path
    pipelines: Path
    steady: Server
    rolling: Server
    steady_gateway: Server
    rolling_gateway: Server

    @property
    def all(self) -> tuple[Server, ...]:
        """Every one that is sampled."""
        return (self.steady, self.rolling, self.steady_gateway, self.rolling_gateway)

    @property
    def both(self) -> str:
        """The address of both services, for callers who take turns."""
        return f"ipv4:{self.steady.address},{self.rolling.address}"

    def logged_about(self, run_id: str) -> str:
        """Return all lines that the servers have logged about a run."""
        lines: list[str] = []
        for server in self.all:
            with server.log.open(encoding="utf-8", errors="replace") as log:
                lines += [f"  {server.name}: {line}" for line in log if run_id in line]
        return "".join(lines)


@asynccontextmanager
async def serving(folder: Path, pace: Pace, access: Access) -> AsyncGenerator[Servers]:
    """Run everything until the block is left."""
    pipelines = folder / "pipelines"
    shutil.copytree(PIPELINES, pipelines, ignore=shutil.ignore_patterns("__pycache__"))
    write_first(pipelines)
    async with running("provider", module("benchmarks.soak.provider"), {}) as provider, AsyncExitStack() as stack:
        settings = {PROVIDER: f"127.0.0.1:{int(await provider.next_line())}", "HAYSTREAM_PIPELINES": str(pipelines)}
        steady, rolling = (_service(name, folder, pace, access, settings) for name in ("service", "rolling service"))
        both = f"ipv4:{steady.address},{rolling.address}"
        steady_gateway = _gateway("gateway", folder, pace, access, steady.address)
        rolling_gateway = _gateway("rolling gateway", folder, pace, access, both)
        servers = Servers(pace, access, folder, pipelines, steady, rolling, steady_gateway, rolling_gateway)
        for server in servers.all:
            stack.push_async_callback(server.abandon)
        await asyncio.gather(*(server.start() for server in servers.all))
        yield servers


def _service(name: str, folder: Path, pace: Pace, access: Access, settings: Mapping[str, str]) -> Server:
    port, metrics_port = free_port(), free_port()
    addresses = {
        "HAYSTREAM_LISTEN": f"127.0.0.1:{port}",
        "HAYSTREAM_METRICS_LISTEN": f"127.0.0.1:{metrics_port}",
    }
    return Server(
        name,
        port,
        module("benchmarks.soak.watched"),
        {**pace.service(), **settings, **addresses, **access.service},
        folder / f"{name}.log",
        access,
        is_service=True,
        metrics_port=metrics_port,
    )


def _gateway(name: str, folder: Path, pace: Pace, access: Access, target: str) -> Server:
    port = free_port()
    addresses = {"HAYSTREAM_GATEWAY_LISTEN": f"127.0.0.1:{port}", "HAYSTREAM_TARGET": target}
    environment = {**pace.gateway(), **addresses, **access.gateway}
    return Server(name, port, GATEWAY_COMMAND, environment, folder / f"{name}.log", access, is_service=False)


async def is_serving(address: str, access: Access) -> bool:
    """Whether the chat service is healthy."""
    async with access.channel(address, OPTIONS) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await health.Check(
                health_pb2.HealthCheckRequest(service=SERVICE), metadata=tuple(access.metadata), timeout=2
            )
        except grpc.aio.AioRpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING
