"""What is attacked: a service and a gateway in processes of their own, and what they hold."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import grpc.aio
import httpx
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.calls import all_events, text_of
from tests.processes import address_of, started

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    Metadata: TypeAlias = tuple[tuple[str, str], ...]

PIPELINES = Path(__file__).parent / "pipelines"
READY = health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
ANSWER_SECONDS = 30.0

# Logs of runs that have ended are not what an attack leaves behind, so they go soon; readers who take nothing are let
# go soon as well.
SETTINGS = {
    "HAYSTREAM_REPLAY_SECONDS": "0.5",
    "HAYSTREAM_SLOW_READER_SECONDS": "2",
    "HAYSTREAM_DRAIN_SECONDS": "0.2",
    "HAYSTREAM_GATEWAY_RECONNECT_SECONDS": "0",
    # With several arenas glibc's allocator keeps pages, of which a few bytes are in use, for tens of MiB more.
    "MALLOC_ARENA_MAX": "1",
}

SETTLE_SECONDS = 15.0  # what the kernel, gRPC's timers and threads without work take to be done, and much more
LOOK_SECONDS = 0.2

# gRPC's own threads come and go with what there is to do, and so do the 40 of the gateway's pool.
SPARE_THREADS = 4
POOL_THREADS = 40

DEFECT = re.compile(rb"Traceback|defect|\[error|\[critical|Segmentation|Check failed")
MAX_COMPLAINTS, MAX_LINES = 150, 20


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds."""

    threads: int
    descriptors: int
    connections: int
    memory_bytes: int

    def exceeds(self, other: Footprint, spare_threads: int = SPARE_THREADS) -> bool:
        """Whether there is more here than elsewhere of what can be counted."""
        return (
            self.threads > other.threads + spare_threads
            or self.descriptors > other.descriptors
            or self.connections > other.connections
        )


@dataclass(frozen=True, slots=True)
class Rest:
    """What is held when nobody calls, and the tasks of the service's loop: runs, readers and calls are among them."""

    service: Footprint
    gateway: Footprint
    tasks: dict[str, int]

    def exceeds(self, other: Rest) -> bool:
        """Whether there is more here than elsewhere of what can be counted."""
        return (
            self.service.exceeds(other.service)
            or self.gateway.exceeds(other.gateway, SPARE_THREADS + POOL_THREADS)
            or any(count > other.tasks.get(name, 0) for name, count in self.tasks.items())
        )


@dataclass(frozen=True, slots=True)
class Command:
    """A process that serves, and what it has said once it had spoken of a defect."""

    address: str
    process: asyncio.subprocess.Process
    complaints: list[str]
    lines: list[str] = field(default_factory=list[str])

    @property
    def health_address(self) -> str:
        """Where it answers probes, as its log says."""
        return next(found[1] for line in self.lines if (found := re.search(r"at\W+([\d.]+:\d+)", line)))

    def footprint(self) -> Footprint:
        """Look from outside."""
        seen = psutil.Process(self.process.pid)
        sockets = [one for one in seen.net_connections("tcp") if one.status != psutil.CONN_LISTEN]
        return Footprint(seen.num_threads(), seen.num_fds(), len(sockets), seen.memory_full_info().uss)


@dataclass(frozen=True, slots=True)
class Target:
    """A service, a gateway in front of it, and a channel to look at the service by.

    `metadata` is what those send who may call.
    """

    service: Command
    gateway: Command
    channel: grpc.aio.Channel
    metadata: Metadata = ()

    async def rest(self, before: Rest | None = None) -> Rest:
        """Return what is held once that changes no more and is not more than before, or does not get less in time.

        It has to look again and again: no event tells that nothing happens any more.
        """
        gc.collect()  # a call that was refused lies in a cycle with its error, and holds its connection
        last = await self._look()
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_SECONDS
        while loop.time() < until:
            await asyncio.sleep(LOOK_SECONDS)
            now = await self._look()
            if not (now.exceeds(last) or last.exceeds(now) or (before and now.exceeds(before))):
                return now
            last = now
        return last

    async def _look(self) -> Rest:
        call = chat_pb2_grpc.ChatServiceStub(self.channel).Chat(
            chat_pb2.ChatRequest(pipeline="census", query="?"), timeout=ANSWER_SECONDS, metadata=self.metadata
        )
        tasks: dict[str, int] = json.loads(text_of(await all_events(call)))
        return Rest(self.service.footprint(), self.gateway.footprint(), tasks)


@asynccontextmanager
async def target(metadata: Metadata = (), **settings: str) -> AsyncGenerator[Target]:
    """Start a service with its gateway, and end both; neither may have spoken of a defect."""
    async with AsyncExitStack() as stack:
        served = {**SETTINGS, "HAYSTREAM_PIPELINES": str(PIPELINES), "HAYSTREAM_DEFAULT_PIPELINE": "canary"}
        service = await stack.enter_async_context(_serving("haystream_service", **served, **settings))
        gateway = await stack.enter_async_context(
            _serving("haystream_gateway", **SETTINGS, HAYSTREAM_TARGET=service.address)
        )
        channel = await stack.enter_async_context(called(service.address))
        await _ready(channel)
        async with httpx.AsyncClient(base_url=f"http://{gateway.address}") as browser:
            for way in ("/pipelines", "/chat?query=tweet"):  # over both connections that it has to the service
                answer = await browser.get(way, headers=metadata)
                assert answer.is_success
        yield Target(service, gateway, channel, metadata)
    assert not service.complaints
    assert not gateway.complaints


@asynccontextmanager
async def called(address: str) -> AsyncGenerator[grpc.aio.Channel]:
    """Open a channel with connections of its own; those of one process share theirs otherwise."""
    async with grpc.aio.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        yield channel


async def _ready(channel: grpc.aio.Channel) -> None:
    watcher = health_pb2_grpc.HealthStub(channel).Watch(READY)
    try:
        async for health in watcher:
            if health.status == health_pb2.HealthCheckResponse.SERVING:
                return
    finally:
        watcher.cancel()


@asynccontextmanager
async def _serving(module: str, **settings: str) -> AsyncGenerator[Command]:
    async with started(module, **settings) as process:
        command = Command(await address_of(process), process, [])
        reading = asyncio.create_task(_read_log(command))
        try:
            yield command
        finally:
            if process.returncode is None:
                process.terminate()
            await reading
            await process.wait()
        assert process.returncode == 0


async def _read_log(command: Command) -> None:
    assert command.process.stderr is not None
    async for line in command.process.stderr:
        if len(command.lines) < MAX_LINES:
            command.lines.append(line.decode(errors="replace"))
        if len(command.complaints) < MAX_COMPLAINTS and (command.complaints or DEFECT.search(line)):
            command.complaints.append(line.decode(errors="replace"))
