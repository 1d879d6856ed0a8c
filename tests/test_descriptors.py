"""File descriptors: as many as the system allows, and a warning where those are too few."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.processes import LISTEN, gone_afterwards

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LIMITED = "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
RUN = "runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
WARNING = b"too few file descriptors"


@asynccontextmanager
async def limited(module: str, soft: int, hard: int, **settings: str) -> AsyncGenerator[tuple[int, bytes]]:
    """Start a command under limits; lend its process id and what it has logged until it serves."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HAYSTREAM_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        LIMITED.format(soft=soft, hard=hard) + RUN.format(module=module),
        env={**environment, LISTEN[module]: "127.0.0.1:0", **settings},
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with gone_afterwards(process):
        assert process.stderr is not None
        logged = b""
        async for line in process.stderr:
            logged += line
            if b"serving" in line:
                break
        yield process.pid, logged


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the system does not tell of another process")
@pytest.mark.parametrize("module", LISTEN)
async def test_a_command_takes_as_many_descriptors_as_it_may_have(module: str) -> None:
    """Though it was started with few; with those it had no reason to warn."""
    async with limited(module, 300, 900, HAYSTREAM_MAX_CONNECTIONS="500") as (process, logged):
        assert resource.prlimit(process, resource.RLIMIT_NOFILE) == (900, 900)
        assert b"serving" in logged
        assert WARNING not in logged


async def test_the_service_warns_of_connections_that_it_has_no_descriptors_for() -> None:
    """Before somebody finds out who cannot connect."""
    async with limited("haystream_service", 300, 900, HAYSTREAM_MAX_CONNECTIONS="700") as (_, logged):
        assert WARNING in logged
        assert b"wanted=900" in logged
