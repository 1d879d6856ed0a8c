"""What the processes use while they are at work, seen from outside, and what is open in them."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from benchmarks.process import ServerFailed
from benchmarks.scraping import scrape
from benchmarks.soak.browser import CutOff, asking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.soak.servers import Server, Servers

OPEN_STREAMS = re.compile(rb"^haystream_gateway_open_streams ([0-9.]+)", re.MULTILINE)
MEBIBYTE = 1 << 20
LOST = (ServerFailed, psutil.Error, ConnectionError, CutOff, ValueError)


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one time.

    `own_mebibytes` is what would be freed if it ended (USS); `open_runs` are a gateway's streams; `pooled_threads`, in
    a service, those of its components.
    """

    seconds: float
    own_mebibytes: float
    resident_mebibytes: float
    threads: int
    pooled_threads: int
    descriptors: int
    open_runs: int
    held: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(slots=True)
class Samples:
    """All samples, by process; those of one that is just being restarted are left out."""

    began: float = field(default_factory=time.monotonic)
    by_server: dict[str, list[Sample]] = field(default_factory=dict[str, list[Sample]])

    async def take(self, servers: Servers) -> None:
        """Take one of each."""
        for server in servers.all:
            try:
                sample = await sample_of(server, time.monotonic() - self.began)
            except LOST:
                continue
            self.by_server.setdefault(server.name, []).append(sample)

    async def keep_taking(self, servers: Servers, interval_seconds: float) -> None:
        """Take some again and again."""
        while True:
            await self.take(servers)
            await asyncio.sleep(interval_seconds)


async def sample_of(server: Server, seconds: float) -> Sample:
    """Measure a process, and scrape a service. Raises one of LOST where it is not there."""
    if server.process is None:
        raise ServerFailed(f"{server.name} is not there")
    process = psutil.Process(server.process.process.pid)
    held = await server.held() if server.is_service else {}
    open_runs = held["runs"] if server.is_service else await open_streams(server)
    memory = process.memory_full_info()
    sample = Sample(
        seconds,
        memory.uss / MEBIBYTE,
        memory.rss / MEBIBYTE,
        process.num_threads(),
        held.pop("pooled", 0),
        process.num_fds(),
        open_runs,
        held,
    )
    if server.is_service:  # afterwards: a scrape takes a thread and a socket for its time
        await scrape(server.metrics_port)
    return sample


async def open_streams(gateway: Server) -> int:
    """Ask a gateway for its open streams."""
    async with asking(gateway.port, "GET", "/metrics", gateway.access.headers) as answer:
        body = b"".join([block async for block in answer.blocks()])
    found = OPEN_STREAMS.search(body)
    if found is None:
        raise ServerFailed(f"{gateway.name} does not tell its open streams")
    return round(float(found[1]))
