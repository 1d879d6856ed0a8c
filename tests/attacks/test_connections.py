"""Ten thousand connections: held, and refused at the limit."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.attacks.canary import canary, withstood
from tests.attacks.target import target
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.attacks.canary import Canary
    from tests.attacks.target import Target

CONNECTIONS = 10_000
LIMIT = 100

# 10,000 connections take some 250 MB while they last; this is 3 KB for each.
TOLERANCE_BYTES = 32 << 20


@asynccontextmanager
async def crowd(address: str, count: int) -> AsyncGenerator[tuple[int, int]]:
    """Hold connections; yield how many there are, and how many were refused."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.attacks.crowd",
        address,
        str(count),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        held, refused = map(int, (await process.stdout.readline()).split())
        yield held, refused
        process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_ten_thousand_connections_are_held_beside_others(attacked: Target) -> None:
    """With room for them, new callers are answered while they are there, and nothing of them stays."""

    async def attack(seen: Canary) -> None:
        async with crowd(attacked.service.address, CONNECTIONS) as (held, refused):
            assert (held, refused) == (CONNECTIONS, 0)
            await seen.speaks()

    await withstood(attacked, attack, rounds=1, tolerance_bytes=TOLERANCE_BYTES)


async def test_at_the_limit_those_who_are_there_go_on() -> None:
    """Further connections are closed at once; as soon as there is room again, others are let in."""
    async with target(HAYSTREAM_MAX_CONNECTIONS=str(LIMIT)) as running:

        async def attack(seen: Canary) -> None:
            async with crowd(running.service.address, CONNECTIONS) as (held, refused):
                assert refused >= CONNECTIONS - LIMIT
                assert held > 0
                await seen.speaks()

        await withstood(running, attack, rounds=1, comes_anew=False)
        async with canary(running):
            pass
