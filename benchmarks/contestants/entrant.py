"""The contestants by name, and how each is started."""

from __future__ import annotations

import secrets
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.contestants.health import is_open, is_serving, until
from benchmarks.contestants.lane import InProcessLane, Lane, ServedLane
from benchmarks.process import PIPELINES, module, running, script
from benchmarks.readers.grpc_line import IN_THE_CLEAR, grpc_lines, no_key
from benchmarks.readers.http_line import EventStream, PlainStream, http_lines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from benchmarks.process import ServerProcess
    from benchmarks.readers.grpc_line import Keys, Way

Environment: TypeAlias = "Mapping[str, str]"
Start: TypeAlias = "Callable[[Environment], AbstractAsyncContextManager[Lane]]"

SERVICE = [script("haystream-service")]
GATEWAY_NAME = "haystream-gateway"
GATEWAY_COMMAND = [script(GATEWAY_NAME)]
FIRST_PORT, PORTS = 20_000, 12_000
MANY = "100000"  # runs and threads: what a row asks for, never the limit, is what is measured


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contestant: `key` for the command line and the results' file, `title` for people."""

    key: str
    title: str
    start: Start


def free_port() -> int:
    """Return a port that nobody has now, of those that the system gives to no outgoing connection by itself."""
    while True:
        port = FIRST_PORT + secrets.randbelow(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@asynccontextmanager
async def in_process(environment: Environment) -> AsyncGenerator[Lane]:
    """Run Haystack without any server."""
    async with running("in process", module("benchmarks.servers.in_process"), environment) as process:
        await process.next_line()
        yield InProcessLane(process)


@asynccontextmanager
async def bare(environment: Environment) -> AsyncGenerator[Lane]:
    """Run grpc.aio without Haystack."""
    async with running("bare grpc.aio", module("benchmarks.servers.bare"), environment) as process:
        port = int(await process.next_line())
        async with lane((process,), partial(grpc_lines, port)) as served:
            yield served


@asynccontextmanager
async def plain_http(name: str, environment: Environment) -> AsyncGenerator[Lane]:
    """Run one of the benchmark's own HTTP servers."""
    async with running(name, module(f"benchmarks.servers.{name}"), environment) as process:
        port = int(await process.next_line())
        await until(partial(is_open, port), process)
        async with lane((process,), partial(http_lines, port, stream=PlainStream)) as served:
            yield served


@asynccontextmanager
async def service(
    environment: Environment, command: Sequence[str] = SERVICE, way: Way = IN_THE_CLEAR
) -> AsyncGenerator[tuple[ServerProcess, int]]:
    """Run the service; yield it and its port. It is asked that way whether it serves."""
    port = free_port()
    settings = {
        "HAYSTREAM_LISTEN": f"127.0.0.1:{port}",
        "HAYSTREAM_PIPELINES": str(PIPELINES),
        "HAYSTREAM_MAX_RUNS": MANY,
        "HAYSTREAM_LOG_LEVEL": "warning",
        "HAYSTREAM_DRAIN_SECONDS": "0.5",
        **environment,
    }
    async with running("haystream-service", command, settings) as process:
        await until(partial(is_serving, port, way), process)
        yield process, port


@asynccontextmanager
async def haystream(
    environment: Environment, command: Sequence[str] = SERVICE, keys: Keys = no_key
) -> AsyncGenerator[Lane]:
    """Run the service, read over gRPC by callers with such keys."""
    async with (
        service(environment, command) as (process, port),
        lane((process,), partial(grpc_lines, port, keys=keys)) as served,
    ):
        yield served


@asynccontextmanager
async def gateway(environment: Environment, command: Sequence[str] = GATEWAY_COMMAND) -> AsyncGenerator[Lane]:
    """Run the service and the gateway, read through the gateway; both count."""
    async with service(environment) as (behind, target):
        port = free_port()
        settings = {
            "HAYSTREAM_GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "HAYSTREAM_TARGET": f"127.0.0.1:{target}",
            "HAYSTREAM_LOG_LEVEL": "warning",
            **environment,
        }
        async with running(GATEWAY_NAME, command, settings) as process:
            await until(partial(is_open, port), process)
            dial = partial(http_lines, port, stream=EventStream)
            async with lane((process, behind), dial) as served:
                yield served


@asynccontextmanager
async def lane(processes: tuple[ServerProcess, ...], dial: Callable[..., object]) -> AsyncGenerator[ServedLane]:
    """Read a server for as long as the block lasts."""
    served = ServedLane(processes, dial)  # type: ignore[arg-type]  # lists of one kind of line
    try:
        yield served
    finally:
        served.hang_up()


IN_PROCESS = Entrant("in-process", "Haystack in process", in_process)
BARE = Entrant("bare", "bare grpc.aio", bare)
HAYSTREAM = Entrant("haystream", "Haystream over gRPC", haystream)
GATEWAY = Entrant("gateway", "Haystream through the gateway", gateway)
HAYHOOKS = Entrant("hayhooks", "hayhooks over FastAPI", partial(plain_http, "hayhooks"))
STREAM = Entrant("stream", "Haystack's stream() over FastAPI", partial(plain_http, "stream"))
BRIDGE = Entrant("bridge", "a bridge per chunk over FastAPI", partial(plain_http, "bridge"))
