"""All runs: who may start, read and stop which; whose pace counts; what becomes of a run that nobody reads."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from haystream_service.errors import RunExists, RunNotFound, ServiceDraining, TooManyRuns
from haystream_service.run.ending import Cancelled, Completed, DeadlineExceeded, Disconnected, Drained, ReaderTooSlow
from haystream_service.run.events import Entry, Finished, Gap, Started, Text
from haystream_service.run.quota import Quota
from haystream_service.run.run import Budget, OnDisconnect, Run, Sink, Work
from haystream_service.run.runs import Capacity, Runs
from haystream_service.run.store import EndedRun, MemoryStore, RunRecord
from haystream_service.run.stretch import STRETCH_BYTES
from tests.clock import ClockedLoop, clocked
from tests.test_run_core import END, FAILURE, ROOMY, WORD, Collector, never, saying, writer_of

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


async def turns() -> None:
    """Let what is ready on the loop happen; a cancellation takes ten turns."""
    for _ in range(15):
        await asyncio.sleep(0)


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


async def test_a_run_whose_reader_left_is_stopped_and_its_id_is_free() -> None:
    """Nobody wants it, so the model stops; nothing is kept, and the same id may start anew meanwhile."""
    async with house_of() as house:
        stopping, may_end = asyncio.Event(), asyncio.Event()

        async def stubborn(sink: Sink, seconds: float) -> Finished:
            try:
                await asyncio.Event().wait()
            finally:
                stopping.set()
                await may_end.wait()
            return END

        run, reader = house.start(stubborn), Follower(leads=True)
        run.join(reader)
        await turns()
        run.leave(reader, Disconnected())
        await stopping.wait()
        assert run.ending == Disconnected()
        assert await house.runs.find("r", "me") is None
        again = house.start(never)
        assert len(house.runs) == 2
        may_end.set()
        await turns()
        assert await house.runs.find("r", "me") is again
        assert len(house.runs) == 1


async def test_a_run_whose_caller_has_no_time_left_ends_with_its_deadline() -> None:
    """Why the last reader left is why the run ends; what it said is kept."""
    async with house_of() as house:
        run, reader = house.start(never), Follower(leads=True)
        run.join(reader)
        run.leave(reader, DeadlineExceeded())
        await turns()
        found = await house.runs.get("r", "me")
        assert isinstance(found, EndedRun)
        assert found.ending == DeadlineExceeded()


async def test_what_a_slow_reader_did_not_take_is_there_when_it_comes_back() -> None:
    """Its run was stopped for it, with words still on their way."""
    async with house_of() as house:
        run, reader = house.start(never), Follower(leads=True)
        run.join(reader)
        await turns()
        await run.put(WORD)
        run.leave(reader, ReaderTooSlow())
        await turns()
        found = await house.runs.get("r", "me")
        assert isinstance(found, EndedRun)
        assert found.log.after(0) == [Entry(1, STARTED), Entry(2, WORD)]


async def test_a_run_that_goes_on_is_read_later() -> None:
    """Its reader leaves, it works to its end, and whoever comes gets all of it."""
    async with house_of(queue_bytes=1) as house:
        speaker, reader = Speaker(), Follower(leads=True)
        run = house.start(speaker, GO_ON)
        run.join(reader)
        await turns()
        run.leave(reader, ReaderTooSlow())
        await speaker.speak(100)
        assert speaker.said == 100  # nobody is there to hold it back
        await speaker.finish()
        found, collector = await house.runs.get("r", "me"), Collector()
        assert isinstance(found, EndedRun)
        assert await writer_of(found, collector).follow() == Completed()
        words = Text("llm", 0, "".join(f"<{number}>" for number in range(1, 101)))
        assert collector.entries == [Entry(1, STARTED), Entry(101, words), Entry(102, END)]


def test_a_run_in_grace_is_stopped_when_nobody_comes_back_in_time() -> None:
    """Nothing is kept of it then."""

    async def story(loop: ClockedLoop, house: House) -> None:
        run, reader = house.start(never, GRACE), Follower(leads=True)
        run.join(reader)
        run.leave(reader, Disconnected())
        await loop.later(29)
        assert house.ended == []
        assert await house.runs.find("r", "me") is run
        await loop.later(1)
        assert run.ending == Disconnected()
        assert len(house.runs) == len(house.store) == 0

    on_a_clock(story)


def test_a_reader_who_comes_back_in_time_ends_the_grace() -> None:
    """And the next one to leave begins another."""

    async def story(loop: ClockedLoop, house: House) -> None:
        run, first, second = house.start(never, GRACE), Follower(leads=True), Follower(leads=False)
        run.join(first)
        run.leave(first, Disconnected())
        await loop.later(29)
        run.join(second)
        await loop.later(100)
        assert house.ended == []
        run.leave(second, Disconnected())
        await loop.later(29)
        assert house.ended == []
        await loop.later(1)
        assert run.ending == Disconnected()

    on_a_clock(story)


def test_a_run_that_finishes_in_its_grace_is_kept() -> None:
    """The grace is for running runs; its timer is gone with it."""

    async def story(loop: ClockedLoop, house: House) -> None:
        speaker, reader = Speaker(), Follower(leads=True)
        run = house.start(speaker, GRACE)
        run.join(reader)
        run.leave(reader, Disconnected())
        await speaker.finish()
        await loop.later(40)
        found = await house.runs.get("r", "me")
        assert found.ending == Completed()
        assert house.ended == [run]

    on_a_clock(story)


async def test_a_reader_who_is_left_keeps_the_run() -> None:
    """It is stopped when the last one leaves, not before."""
    async with house_of() as house:
        run, first, second = house.start(never), Follower(leads=True), Follower(leads=False)
        run.join(first)
        run.join(second)
        run.leave(first, Disconnected())
        assert house.ended == []
        run.leave(second, Disconnected())
        assert run.ending == Disconnected()


async def test_the_run_waits_for_a_reader_who_leads_though_another_would_take_more() -> None:
    """The pace is that of the one who asked; the other gets the same as soon as that one has it."""
    async with house_of(queue_bytes=1) as house:
        speaker, leader, other = Speaker(), Follower(leads=True), Follower(leads=False)
        run = house.start(speaker)
        run.join(leader)
        run.join(other)
        await turns()
        assert run.read(other, 0) == []
        assert run.read(leader, 0) == [Entry(1, STARTED)]
        assert run.read(other, 0) == [Entry(1, STARTED)]
        await speaker.speak(3)
        assert run.read(other, 1) == []
        assert speaker.said == 0  # the first is in, and waits for the leader
        wakes = other.wakes
        assert run.read(leader, 1) == [Entry(2, Text("llm", 0, "<1>"))]
        assert other.wakes == wakes + 1
        assert run.read(other, 1) == [Entry(2, Text("llm", 0, "<1>"))]
        await turns()
        assert speaker.said == 1
        run.leave(other, Disconnected())
        run.leave(leader, Disconnected())


async def test_without_a_leader_the_reader_who_is_ahead_sets_the_pace() -> None:
    """Those behind read the log; those who wait for a leader are told that it has left."""
    async with house_of(queue_bytes=1) as house:
        speaker, leader = Speaker(), Follower(leads=True)
        ahead, behind = Follower(leads=False), Follower(leads=False)
        run = house.start(speaker)
        for reader in (leader, ahead, behind):
            run.join(reader)
        await turns()
        wakes = ahead.wakes
        run.leave(leader, Disconnected())
        assert ahead.wakes > wakes
        assert run.read(ahead, 0) == [Entry(1, STARTED)]
        await speaker.speak(3)
        assert run.read(behind, 0) == [Entry(1, STARTED)]
        assert speaker.said == 0
        assert run.read(ahead, 1) == [Entry(2, Text("llm", 0, "<1>"))]
        await turns()
        assert speaker.said == 1
        run.leave(ahead, Disconnected())
        run.leave(behind, Disconnected())


async def test_after_the_ending_everybody_reads_the_rest() -> None:
    """A leader who stands still holds up nobody any more."""
    async with house_of(queue_bytes=1) as house:
        run, leader, other = house.start(saying(WORD)), Follower(leads=True), Follower(leads=False)
        run.join(leader)
        run.join(other)
        await turns()
        assert run.read(other, 0) == []
        run.stop(Cancelled())
        assert run.read(other, 0) == [Entry(1, STARTED)]
        run.leave(other, Cancelled())
        run.leave(leader, Cancelled())


async def test_a_reader_who_comes_late_gets_what_was_said_before_and_then_what_comes() -> None:
    """Also in the middle of a text that goes on, and as a leader."""
    async with house_of() as house:
        speaker, first, late = Speaker(), Follower(leads=True), Follower(leads=True)
        run = house.start(speaker)
        run.join(first)
        await speaker.speak(2)
        assert run.read(first, 0)[-1] == Entry(3, Text("llm", 0, "<1><2>"))
        await speaker.speak(1)
        run.join(late)
        assert run.read(late, 0) == [Entry(1, STARTED), Entry(3, Text("llm", 0, "<1><2>"))]
        assert run.read(late, 3) == [Entry(4, Text("llm", 0, "<3>"))]
        assert run.read(first, 3) == [Entry(4, Text("llm", 0, "<3>"))]
        run.leave(first, Disconnected())
        run.leave(late, Disconnected())


async def test_a_reader_who_falls_behind_the_log_is_told_what_it_missed() -> None:
    """The run goes at the pace of the others, and memory stays within its budget."""
    async with house_of(log_bytes=4 * STRETCH_BYTES) as house:
        speaker, leader, slow = Speaker(), Follower(leads=True), Follower(leads=False)
        run = house.start(speaker)
        run.join(leader)
        run.join(slow)
        for seq in range(30):
            await speaker.speak(1)
            assert not any(isinstance(entry.event, Gap) for entry in run.read(leader, seq + 1 if seq else 0))
        gap, *rest = run.read(slow, 0)
        assert isinstance(gap.event, Gap)
        assert (gap.event.from_seq, gap.event.to_seq) == (1, gap.seq)
        text = "".join(entry.event.delta for entry in rest if isinstance(entry.event, Text))
        assert text == "".join(f"<{seq - 1}>" for seq in range(gap.seq + 1, 32))
        run.leave(leader, Disconnected())
        run.leave(slow, Disconnected())


async def test_a_principal_cannot_see_nor_stop_the_run_of_another() -> None:
    """Not even that it exists; the same id may be another run of theirs."""
    async with house_of() as house:
        mine = house.start(never)
        assert await house.runs.find("r", "you") is None
        with pytest.raises(RunNotFound):
            await house.runs.get("r", "you")
        with pytest.raises(RunNotFound):
            await house.runs.cancel("r", "you")
        yours = house.start(never, principal="you")
        await house.runs.cancel("r", "you")
        assert (mine.ending, yours.ending) == (None, Cancelled())


async def test_a_cancel_may_be_repeated() -> None:
    """It stops a run once, and leaves one that has ended as it is, as long as that is known."""
    async with house_of() as house:
        run = house.start(never)
        for _ in range(3):
            await house.runs.cancel("r", "me")
            await turns()
        assert house.ended == [run]
        assert (await house.runs.get("r", "me")).ending == Cancelled()
        house.start(saying(WORD), run_id="done")
        await turns()
        await house.runs.cancel("done", "me")
        assert (await house.runs.get("done", "me")).ending == Completed()


async def test_an_id_is_taken_as_long_as_its_run_can_be_read() -> None:
    """Two runs of one id would mix their events."""
    async with house_of() as house:
        house.start(never)
        with pytest.raises(RunExists):
            house.start(never)
        assert len(house.runs) == 1


async def test_no_more_runs_are_started_than_there_are_places() -> None:
    """One that is over gives its place back; one that is still read does not."""
    async with house_of(max_runs=1) as house:
        run, reader = house.start(saying(WORD)), Follower(leads=True)
        run.join(reader)
        await turns()
        assert run.ending == Completed()
        with pytest.raises(TooManyRuns):
            house.start(never, run_id="next")
        run.leave(reader, Completed())
        house.start(never, run_id="next")


async def test_every_run_tells_its_ending_once() -> None:
    """Whatever else comes to end it, and whoever leaves."""
    async with house_of() as house:
        run, reader = house.start(never), Follower(leads=True)
        run.join(reader)
        run.stop(Cancelled())
        run.stop(Drained())
        await turns()
        run.leave(reader, Disconnected())
        assert house.ended == [run]
        assert run.ending == Cancelled()


async def test_a_drain_dismisses_readers_of_runs_that_are_over() -> None:
    """A reader of a kept log who takes nothing does not hold up the service's end; new ones are refused."""
    async with house_of() as house:
        house.start(saying(WORD))
        await turns()
        found = await house.runs.get("r", "me")
        assert isinstance(found, EndedRun)
        writer = writer_of(found, Collector(takes=False))

        async def read() -> Ending:
            with house.runs.reading(writer, "me", Quota()):
                return await writer.follow()

        reading = asyncio.create_task(read())
        await turns()
        await house.runs.drain(0)
        assert await reading == Drained()
        with pytest.raises(ServiceDraining):
            house.start(never)
        with pytest.raises(ServiceDraining), house.runs.reading(writer, "me", Quota()):
            raise AssertionError
