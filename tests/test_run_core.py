"""One run and its writers without a network: what readers get, and how it ends."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from haystream_service.run.ending import (
    Cancelled,
    Completed,
    DeadlineExceeded,
    Disconnected,
    Drained,
    Ending,
    Failed,
    Failure,
    FailureKind,
    ReaderTooSlow,
)
from haystream_service.run.events import Entry, Event, Finished, FinishReason, Started, Text, ToolCall, Usage
from haystream_service.run.log import RunLog
from haystream_service.run.queue import RunStopped
from haystream_service.run.run import Budget, OnDisconnect, Run, Sink, Work
from haystream_service.run.store import RunRecord
from haystream_service.run.total import Total
from haystream_service.run.writer import Patience, Source, Writer
from tests.clock import ClockedLoop, clocked

WORD = Text("llm", 0, "word")
END = Finished(FinishReason.STOP)
ROOMY = 1_000_000
FAILURE = Failure(FailureKind.COMPONENT_FAILED, "llm")


@dataclass
class Ledger:
    """Notes what becomes of runs."""

    ended: list[tuple[Ending | None, BaseException | None]] = field(
        default_factory=list[tuple[Ending | None, BaseException | None]]
    )
    over: list[Run] = field(default_factory=list[Run])

    def on_ended(self, run: Run, error: BaseException | None) -> None:
        self.ended.append((run.ending, error))

    def on_over(self, run: Run) -> None:
        self.over.append(run)

    def explain(self, error: BaseException, /) -> Failure:
        return FAILURE


class Collector:
    """A reader that keeps what it gets, and may stop taking."""

    def __init__(self, *, takes: bool = True) -> None:
        self.entries: list[Entry] = []
        self.beats: list[int] = []
        self.takes = asyncio.Event()
        self._got = asyncio.Semaphore(0)
        self._takes_one = False
        if takes:
            self.takes.set()

    async def send(self, entry: Entry) -> None:
        await self.takes.wait()
        if self._takes_one:
            self.takes.clear()
        self.entries.append(entry)
        self._got.release()

    def take_one(self) -> None:
        """Take the next entry, and then no more."""
        self._takes_one = True
        self.takes.set()

    async def has(self, count: int) -> None:
        """Wait for as many more entries."""
        for _ in range(count):
            await self._got.acquire()

    async def beat(self, seq: int) -> None:
        self.beats.append(seq)

    def why_gone(self, error: BaseException) -> Ending:
        return Disconnected()

    @property
    def events(self) -> list[Event]:
        """What it got, without the numbers."""
        return [entry.event for entry in self.entries]


def run_of(
    ledger: Ledger, *, seconds: float = 60, queue_bytes: int = ROOMY, on_disconnect: OnDisconnect | None = None
) -> Run:
    """Return a run that has not begun."""
    record = RunRecord("r", "me", "p", b"")
    budget = Budget(seconds, queue_bytes)
    return Run(record, RunLog(ROOMY), budget, Total(ROOMY), on_disconnect or OnDisconnect(), ledger)


def writer_of(source: Source, collector: Collector, *, patience_seconds: float = 60, leads: bool = True) -> Writer:
    """Return a writer for a reader."""
    return Writer(source, collector, Patience(60, patience_seconds), leads=leads)


def saying(*events: Event) -> Work:
    """Return work that puts events, and is done."""

    async def work(sink: Sink, seconds: float) -> Finished:
        for event in events:
            await sink.put(event)
        return END

    return work


async def never(sink: Sink, seconds: float) -> Finished:
    """Work that comes to no end."""
    await asyncio.Event().wait()
    return END


async def test_a_run_delivers_everything_before_its_ending() -> None:
    """The last event is there before the reader learns that it was the last."""

    async def work(sink: Sink, seconds: float) -> Finished:
        await sink.put(WORD)
        await asyncio.to_thread(sink.put_from_thread, WORD)
        return END

    run, collector = run_of(Ledger()), Collector()
    task = run.start(work)
    assert await writer_of(run, collector).follow() == Completed()
    await task
    first, *between, last = collector.events
    assert first == Started("r", "p")
    assert "".join(event.delta for event in between if isinstance(event, Text)) == "wordword"
    assert last == END
    assert collector.entries[-1].seq == 4


async def test_a_failure_comes_after_what_was_said_before_it() -> None:
    """Nothing that the model said is lost; the error itself goes to the log, not to the reader."""
    error = ValueError()

    async def work(sink: Sink, seconds: float) -> Finished:
        await sink.put(WORD)
        raise error

    ledger, collector = Ledger(), Collector()
    run = run_of(ledger)
    task = run.start(work)
    assert await writer_of(run, collector).follow() == Failed(FAILURE)
    await task
    assert collector.events == [Started("r", "p"), WORD]
    assert ledger.ended == [(Failed(FAILURE), error)]


async def test_the_first_ending_stays() -> None:
    """A run ends once; what comes later changes nothing, and is told to nobody."""
    ledger = Ledger()
    run = run_of(ledger)
    await run.start(saying())
    run.stop(Disconnected())
    assert run.ending == Completed()
    assert ledger.ended == [(Completed(), None)]


async def test_a_run_over_its_time_is_stopped() -> None:
    """The component is cancelled, and the ending says why."""
    cancelled = asyncio.Event()

    async def work(sink: Sink, seconds: float) -> Finished:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return END

    run, collector = run_of(Ledger(), seconds=0.01), Collector()
    task = run.start(work)
    assert await writer_of(run, collector).follow() == DeadlineExceeded()
    await asyncio.wait([task])
    assert cancelled.is_set()


async def test_a_run_over_its_time_ends_for_its_reader_also_where_its_component_does_not_stop() -> None:
    """A component that takes no notice of its cancellation keeps no reader waiting."""
    proceed = asyncio.Event()

    async def work(sink: Sink, seconds: float) -> Finished:
        while not proceed.is_set():
            with suppress(asyncio.CancelledError):
                await proceed.wait()
        return END

    run, collector = run_of(Ledger(), seconds=0.01), Collector()
    task = run.start(work)
    async with asyncio.timeout(5):
        assert await writer_of(run, collector).follow() == DeadlineExceeded()
    proceed.set()
    await asyncio.wait([task])


async def test_a_failure_that_cannot_be_explained_ends_its_run_all_the_same() -> None:
    """What is asked of a foreign exception may fail itself; nobody waits for ever for it."""

    class Speechless(Ledger):
        def explain(self, error: BaseException, /) -> Failure:
            raise ValueError

    async def work(sink: Sink, seconds: float) -> Finished:
        raise RuntimeError

    run, collector = run_of(Speechless()), Collector()
    task = run.start(work)
    async with asyncio.timeout(5):
        assert await writer_of(run, collector).follow() == Failed(Failure(FailureKind.DEFECT))
    await asyncio.wait([task])


async def test_a_component_that_cancels_itself_ends_its_run() -> None:
    """Without this its reader would wait for ever."""

    async def work(sink: Sink, seconds: float) -> Finished:
        raise asyncio.CancelledError

    run, collector = run_of(Ledger()), Collector()
    task = run.start(work)
    assert await writer_of(run, collector).follow() == Failed(FAILURE)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stop_reaches_components_that_wait_for_the_reader() -> None:
    """A full queue is no place to hide, neither for a thread nor on the loop."""
    loop, stopped = asyncio.get_running_loop(), list[str]()
    full, thread_begun, thread_stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def put_from_thread(sink: Sink) -> None:
        loop.call_soon_threadsafe(thread_begun.set)
        try:
            sink.put_from_thread(WORD)
        except RunStopped:
            stopped.append("thread")
        loop.call_soon_threadsafe(thread_stopped.set)

    async def put(sink: Sink) -> None:
        room = sink.put(WORD)
        full.set()
        try:
            await room
        except asyncio.CancelledError:
            stopped.append("task")
            raise

    async def work(sink: Sink, seconds: float) -> Finished:
        await asyncio.gather(put(sink), asyncio.to_thread(put_from_thread, sink))
        return END

    run, collector = run_of(Ledger(), queue_bytes=1), Collector(takes=False)
    reading = asyncio.create_task(writer_of(run, collector).follow())
    task = run.start(work)
    await full.wait()
    await thread_begun.wait()
    assert stopped == []
    run.stop(Cancelled())
    collector.takes.set()
    assert await reading == Cancelled()
    await asyncio.wait([task])
    await thread_stopped.wait()
    assert sorted(stopped) == ["task", "thread"]


async def test_a_reader_that_takes_nothing_is_given_up() -> None:
    """Its run ends so, too, where nobody else wants it."""
    ledger = Ledger()
    run = run_of(ledger)
    task = run.start(never)
    assert await writer_of(run, Collector(takes=False), patience_seconds=0.01).follow() == ReaderTooSlow()
    assert run.ending == ReaderTooSlow()
    await asyncio.wait([task])
    assert ledger.over == [run]


def test_a_reader_who_waits_for_the_model_is_not_too_slow() -> None:
    """Time counts against readers only while there is something to take; heartbeats fill the silence."""

    async def story(loop: ClockedLoop) -> None:
        run, collector = run_of(Ledger(), seconds=10_000), Collector()
        run.start(never)
        reading = asyncio.create_task(Writer(run, collector, Patience(30, 20), leads=True).follow())
        for _ in range(50):
            await loop.later(5)
        assert collector.events == [Started("r", "p")]
        assert 7 <= len(collector.beats) <= 8
        assert set(collector.beats) == {1}
        run.stop(Cancelled())
        assert await reading == Cancelled()

    with clocked() as loop:
        loop.run_until_complete(story(loop))


def test_a_reader_who_takes_steadily_is_not_too_slow() -> None:
    """However long all of it takes: what counts is the time since the last event."""

    async def story(loop: ClockedLoop) -> None:
        run, collector = run_of(Ledger(), seconds=10_000), Collector(takes=False)
        run.start(saying(*[ToolCall("llm", index, "", "", "{}") for index in range(10)]))
        reading = asyncio.create_task(Writer(run, collector, Patience(1000, 20), leads=True).follow())
        for _ in range(12):
            await loop.later(15)
            collector.take_one()
        assert await reading == Completed()
        assert len(collector.entries) == 12

    with clocked() as loop:
        loop.run_until_complete(story(loop))


async def test_a_run_is_over_when_its_work_is_done_and_nobody_reads_it() -> None:
    """Until then it takes memory, and counts; and it is over once."""
    ledger, collector = Ledger(), Collector(takes=False)
    run = run_of(ledger)
    writer = writer_of(run, collector)
    reading = asyncio.create_task(writer.follow())
    await run.start(saying())
    await asyncio.sleep(0)
    assert run.ending == Completed()
    assert ledger.over == []
    writer.dismiss(Drained())
    assert await reading == Drained()
    assert ledger.over == [run]


async def test_a_run_is_over_once_also_when_its_reader_leaves_as_it_ends() -> None:
    """The work's end and the reader's may come in one turn of the loop."""
    ledger, collector = Ledger(), Collector()
    run = run_of(ledger)
    reading = asyncio.create_task(writer_of(run, collector).follow())
    await asyncio.gather(run.start(saying(WORD)), reading)
    await asyncio.sleep(0)
    assert ledger.over == [run]


async def test_a_second_reader_gets_what_the_first_had_and_then_the_same() -> None:
    """Readers do not take words from each other."""
    proceed = asyncio.Event()

    async def work(sink: Sink, seconds: float) -> Finished:
        await sink.put(WORD)
        await proceed.wait()
        await sink.put(Text("llm", 1, "more"))
        return END

    run, first, second = run_of(Ledger()), Collector(), Collector()
    task = run.start(work)
    reading = asyncio.create_task(writer_of(run, first).follow())
    await first.has(2)
    following = asyncio.create_task(writer_of(run, second, leads=False).follow())
    await second.has(2)
    proceed.set()
    await asyncio.gather(task, reading, following)
    assert first.entries == second.entries


async def test_nothing_follows_the_last_event() -> None:
    """`finished` is the last also where a component still talks while the reader is behind."""
    run, collector = run_of(Ledger(), queue_bytes=1), Collector(takes=False)
    reading = asyncio.create_task(writer_of(run, collector).follow())
    task = run.start(saying())
    await asyncio.sleep(0)  # `started` is on its way
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late = asyncio.ensure_future(run.put(WORD))
    collector.takes.set()
    assert await reading == Completed()
    await asyncio.gather(task, late, return_exceptions=True)
    assert collector.events == [Started("r", "p"), END]


async def test_a_reader_who_gets_finished_gets_no_other_ending() -> None:
    """A stop that comes when all has been said comes too late."""
    run, collector = run_of(Ledger(), queue_bytes=1), Collector(takes=False)
    reading = asyncio.create_task(writer_of(run, collector).follow())
    task = run.start(saying())
    for _ in range(5):
        await asyncio.sleep(0)
    run.stop(Cancelled())
    collector.takes.set()
    ending = await reading
    await asyncio.wait([task])
    assert (END in collector.events) == (ending == Completed())


async def test_the_last_event_tells_what_the_run_has_used() -> None:
    """And so does the run, where there is no last event."""

    async def work(sink: Sink, seconds: float) -> Finished:
        sink.account([Usage("llm", "small", 1, 2, 3)])
        sink.account([Usage("llm", "small", 101, 202, 303), Usage("llm", "large", 10, 20, 30)])
        return END

    run, collector = run_of(Ledger()), Collector()
    task = run.start(work)
    await writer_of(run, collector).follow()
    await task
    assert run.usage == (Usage("llm", "small", 101, 202, 303), Usage("llm", "large", 10, 20, 30))
    assert collector.events[-1] == Finished(FinishReason.STOP, run.usage)


async def test_a_run_that_nobody_reads_does_not_keep_the_loop() -> None:
    """A component that never really waits lets other runs have their turn."""
    run, stop_at = run_of(Ledger(), on_disconnect=OnDisconnect(goes_on=True)), time.monotonic() + 0.2

    async def chatter(sink: Sink, seconds: float) -> Finished:
        while time.monotonic() < stop_at:
            await sink.put(WORD)
        return END

    task, turns = run.start(chatter), 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
