"""A server in a process of its own: started, measured from outside, and stopped."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import psutil

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
IMPORT_ROOTS = (ROOT, ROOT / "proto", ROOT / "service", ROOT / "gateway")
PIPELINES = ROOT / "benchmarks" / "pipelines"
START_SECONDS = 90
STOP_SECONDS = 10
LINE_BYTES = 1 << 24  # of what a process prints


class ServerFailed(Exception):
    """A server ended by itself, or did not say what it should."""


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server; what its workers use counts as its own."""

    name: str
    process: asyncio.subprocess.Process

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, the kernel's part included."""
        return sum(times.user + times.system for times in (one.cpu_times() for one in self._family()))

    def resident_bytes(self) -> int:
        """Return the memory in use."""
        return sum(one.memory_info().rss for one in self._family())

    def threads(self) -> int:
        """Return the number of threads."""
        return sum(one.num_threads() for one in self._family())

    def connections(self, port: int) -> int:
        """Return the number of open connections to a port."""
        opened = [link for one in self._family() for link in one.net_connections("tcp") if link.raddr]
        return sum(link.raddr.port == port for link in opened)

    async def next_line(self) -> str:
        """Return the next line it prints. Raises ServerFailed where there is none."""
        assert self.process.stdout is not None  # noqa: S101 - every process is started with a pipe
        line = await self.process.stdout.readline()
        if not line:
            raise ServerFailed(f"{self.name} ended by itself; the lines above tell why")
        return line.decode()

    async def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None  # noqa: S101 - as above
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    def _family(self) -> Iterator[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        yield parent
        yield from parent.children(recursive=True)


@asynccontextmanager
async def running(
    name: str, command: Sequence[str], environment: Mapping[str, str], log: BinaryIO | None = None
) -> AsyncGenerator[ServerProcess]:
    """Run a program of this environment until the block is left. Its folder is an empty one: no `.env` is read.

    What it logs goes to the terminal, or into a file.
    """
    with tempfile.TemporaryDirectory(prefix="haystream-bench-") as folder:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env=environment_for(environment),
            limit=LINE_BYTES,
        )
        try:
            yield ServerProcess(name, process)
        finally:
            await stop(process)


def environment_for(additions: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which nothing but the benchmark configures Haystream, and nothing phones home.

    The servers are those of this tree, also where another one's are installed.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HAYSTREAM_", "HAYHOOKS_"))}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(map(str, IMPORT_ROOTS)),
        "HAYSTACK_TELEMETRY_ENABLED": "False",
        **additions,
    }


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module."""
    return [sys.executable, "-m", name, *arguments]


def script(name: str) -> str:
    """Return the path of a command that is installed in this environment."""
    return str(Path(sys.executable).parent / name)


async def stop(process: asyncio.subprocess.Process) -> None:
    """Ask a process to end, and make it after a while."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
