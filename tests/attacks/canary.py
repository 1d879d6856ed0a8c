"""A caller that an attack must not disturb, and what every attack is held to."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.attacks.target import ANSWER_SECONDS, READY, called
from tests.calls import all_events, kinds_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import grpc.aio

    from tests.attacks.target import Metadata, Rest, Target

    Attack = Callable[["Canary"], Awaitable[object]]

# What the canary's words may come apart. They are 50 ms apart in peace; what is more is what the attack takes of two
# cores that the service, the attacker and the rest of the machine share.
GAP_SECONDS = 5.0

# What may stay of memory after a repeated attack. The attack was there before, so that what is made once is made, such
# as gRPC's threads and pools and Python's caches. How much the allocator can hand back then differs by a few MiB with
# what else lies on the same pages; a leak grows with the rounds.
MEMORY_TOLERANCE_BYTES = 8 << 20


@dataclass(slots=True)
class Canary:
    """What the caller has seen."""

    heard: asyncio.Event = field(default_factory=asyncio.Event)
    events: list[chat_pb2.Event] = field(default_factory=list[chat_pb2.Event])
    longest_gap_seconds: float = 0.0
    chats: int = 0

    async def is_answered(self) -> None:
        """Wait until a question is answered that is asked from now on."""
        enough = self.chats + 2
        while self.chats < enough:
            await self.speaks()

    async def speaks(self) -> None:
        """Wait for its next word."""
        self.heard.clear()
        await self.heard.wait()


@asynccontextmanager
async def canary(target: Target, *, comes_anew: bool = True) -> AsyncGenerator[Canary]:
    """While the block lasts, read a stream, ask new questions, and ask after the service's health.

    All of it must go well, to the stream's end, without a word lost, doubled or out of order. Who asks `comes_anew`
    with each question on a connection of its own.
    """
    seen = Canary()
    name = secrets.token_hex(4)
    async with called(target.service.address) as channel:
        listening = asyncio.create_task(_listen(channel, name, seen, target.metadata))
        hushed = asyncio.Event()
        try:
            await _unless_failed(seen.heard.wait(), listening)
            asking = asyncio.create_task(_ask_until(hushed, target, None if comes_anew else channel, seen))
            try:
                yield seen
            finally:
                hushed.set()
                await asking
            await _chat(channel, f"hush {name}", target.metadata)
            await listening
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    _check(seen)


async def withstood(
    target: Target,
    attack: Attack,
    *,
    rounds: int = 2,
    comes_anew: bool = True,
    tolerance_bytes: int = MEMORY_TOLERANCE_BYTES,
) -> None:
    """Attack so often beside a canary, and then as often again; assert that nothing of the second time stays."""
    await _attacked(target, attack, rounds, comes_anew)
    before = await target.rest()
    seen = await _attacked(target, attack, rounds, comes_anew)
    after = await target.rest(before)
    print(_report(before, after, seen))  # noqa: T201 - pytest shows it for a test that fails, and with -s
    check_nothing_stays(target, before, after, tolerance_bytes)


def check_nothing_stays(
    target: Target, before: Rest, after: Rest, tolerance_bytes: int = MEMORY_TOLERANCE_BYTES
) -> None:
    """Assert that no more is held than before, and that no defect was met."""
    assert not after.exceeds(before)
    assert after.service.memory_bytes <= before.service.memory_bytes + tolerance_bytes
    assert after.gateway.memory_bytes <= before.gateway.memory_bytes + tolerance_bytes
    assert not target.service.complaints, "".join(target.service.complaints)
    assert not target.gateway.complaints, "".join(target.gateway.complaints)


async def _attacked(target: Target, attack: Attack, rounds: int, comes_anew: bool) -> Canary:
    async with canary(target, comes_anew=comes_anew) as seen:
        for _ in range(rounds):
            await attack(seen)
            await seen.is_answered()
    return seen


async def _listen(channel: grpc.aio.Channel, name: str, seen: Canary, metadata: Metadata) -> None:
    request = chat_pb2.ChatRequest(query=f"sing {name}")
    call = chat_pb2_grpc.ChatServiceStub(channel).Chat(request, metadata=metadata)
    loop = asyncio.get_running_loop()
    last = loop.time()
    try:
        async for response in call:
            now = loop.time()
            seen.longest_gap_seconds = max(seen.longest_gap_seconds, now - last)
            last = now
            seen.events.append(response.event)
            if response.event.HasField("text"):
                seen.heard.set()
    finally:
        call.cancel()


async def _ask_until(hushed: asyncio.Event, target: Target, channel: grpc.aio.Channel | None, seen: Canary) -> None:
    """Ask a question, at least one, for each of the canary's words that one can be asked for."""
    while not (hushed.is_set() and seen.chats):
        await seen.speaks()
        if channel is None:
            async with called(target.service.address) as anew:
                await _ask(anew, target.metadata)
        else:
            await _ask(channel, target.metadata)
        seen.chats += 1


async def _ask(channel: grpc.aio.Channel, metadata: Metadata) -> None:
    answer = await health_pb2_grpc.HealthStub(channel).Check(READY, timeout=ANSWER_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert await _chat(channel, "tweet", metadata) == ["started", "finished"]


async def _chat(channel: grpc.aio.Channel, query: str, metadata: Metadata) -> list[str]:
    request = chat_pb2.ChatRequest(query=query)
    call = chat_pb2_grpc.ChatServiceStub(channel).Chat(request, timeout=ANSWER_SECONDS, metadata=metadata)
    return kinds_of(await all_events(call))


async def _unless_failed(waited: Awaitable[object], listening: asyncio.Task[None]) -> None:
    waiting = asyncio.ensure_future(waited)
    await asyncio.wait([waiting, listening], return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        await listening


def _check(seen: Canary) -> None:
    assert kinds_of(seen.events[:1]) == ["started"]
    assert kinds_of(seen.events[-1:]) == ["finished"]
    numbers = [event.seq for event in seen.events if not event.HasField("heartbeat")]
    assert all(one < next_one for one, next_one in pairwise(numbers))
    words = "".join(event.text.delta for event in seen.events).split()
    assert words == [str(number) for number in range(1, len(words) + 1)]
    assert seen.longest_gap_seconds < GAP_SECONDS


def _report(before: Rest, after: Rest, seen: Canary) -> str:
    return "\n".join(
        f"{name}: {value}"
        for name, value in (
            ("before", before),
            ("after", after),
            ("canary", f"{len(seen.events)} events, longest gap {seen.longest_gap_seconds:.3f} s, {seen.chats} chats"),
        )
    )
