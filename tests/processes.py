"""The two commands in processes of their own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LISTEN = {"haystream_service": "HAYSTREAM_LISTEN", "haystream_gateway": "HAYSTREAM_GATEWAY_LISTEN"}


@asynccontextmanager
async def started(module: str, *arguments: str, **settings: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Start a command with settings from the environment; make sure that it is gone afterwards."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HAYSTREAM_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        env={**environment, LISTEN[module]: "127.0.0.1:0", **settings},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with gone_afterwards(process):
        yield process


@asynccontextmanager
async def gone_afterwards(process: asyncio.subprocess.Process) -> AsyncGenerator[None]:
    """Make sure that a process is gone when the block is left, and that all it said was read."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def address_of(process: asyncio.subprocess.Process) -> str:
    """Read the log until it says where the command serves."""
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(rb"address\W+(?:http://)?([\d.]+:\d+)", line):
            return found[1].decode()
    raise AssertionError("it never said where it serves")
