"""All runs of a service without a network, readers that read when a test says so, and work that speaks then."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from haystream_service.run.events import Finished, Started, Text
from haystream_service.run.quota import Quota
from haystream_service.run.run import Budget, OnDisconnect, Run, Sink, Work
from haystream_service.run.runs import Capacity, Runs
from haystream_service.run.store import MemoryStore, RunRecord
from tests.bare_runs import END, FAILURE, ROOMY
from tests.clock import ClockedLoop, clocked, turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from haystream_service.run.ending import Ending

CANCEL, GO_ON, GRACE = OnDisconnect(), OnDisconnect(goes_on=True), OnDisconnect(goes_on=True, grace_seconds=30)
STARTED = Started("r", "p")


class Follower:
    """A reader that reads when the test says so."""

    def __init__(self, *, leads: bool) -> None:
        self._leads = leads
        self.wakes = 0

    @property
    def leads(self) -> bool:
        return self._leads

    def wake(self) -> None:
        self.wakes += 1

    def dismiss(self, ending: Ending) -> None:
        raise AssertionError


class House:
    """The runs of a service, and a note of each that ended."""

    def __init__(self, *, max_runs: int = 10, log_bytes: int = ROOMY, queue_bytes: int = ROOMY) -> None:
        self.store = MemoryStore(log_bytes, 60, ROOMY)
        self.runs = Runs(Capacity(max_runs, 100, ROOMY), self.store, lambda _: FAILURE)
        self.ended: list[Run] = []
        self._budget = Budget(10_000, queue_bytes)

    def start(self, work: Work, policy: OnDisconnect = CANCEL, *, run_id: str = "r", principal: str = "me") -> Run:
        """Start a run."""
        record = RunRecord(run_id, principal, "p", b"")
        return self.runs.start(record, Quota(), self._budget, policy, work, lambda run, _: self.ended.append(run))


@asynccontextmanager
async def house_of(*, max_runs: int = 10, log_bytes: int = ROOMY, queue_bytes: int = ROOMY) -> AsyncGenerator[House]:
    """Keep house, and assert at the end that no run is left."""
    house = House(max_runs=max_runs, log_bytes=log_bytes, queue_bytes=queue_bytes)
    yield house
    await house.runs.drain(0)
    assert len(house.runs) == 0
    house.store.close()


def on_a_clock(story: Callable[[ClockedLoop, House], Coroutine[None, None, None]]) -> None:
    """Play a story in which time passes when it says so."""

    async def play(loop: ClockedLoop) -> None:
        async with house_of() as house:
            await story(loop, house)

    with clocked() as loop:
        loop.run_until_complete(play(loop))


class Speaker:
    """Work that says a word each time it is told to."""

    def __init__(self) -> None:
        self.said = 0
        self._may_speak = asyncio.Semaphore(0)
        self._is_done = False

    async def __call__(self, sink: Sink, seconds: float, /) -> Finished:
        while True:
            await self._may_speak.acquire()
            if self._is_done:
                return END
            await sink.put(Text("llm", 0, f"<{self.said + 1}>"))
            self.said += 1

    async def speak(self, words: int) -> None:
        """Say so many words, as far as the reader lets it."""
        for _ in range(words):
            self._may_speak.release()
        await turns()

    async def finish(self) -> None:
        """Come to an end."""
        self._is_done = True
        await self.speak(1)
