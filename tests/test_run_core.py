"""The way from callback to reader without a network: queue, joining, log, run and writer."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystream_service.run.ending import Completed, DeadlineExceeded, Disconnected, Drained, Failed, ReaderTooSlow
from haystream_service.run.events import Entry, Event, Finished, FinishReason, Gap, Reasoning, Started, Text, size_bytes
from haystream_service.run.joining import JOINED_LIMIT_BYTES, joined
from haystream_service.run.log import RunLog
from haystream_service.run.queue import CallbackQueue, RunStopped
from haystream_service.run.run import Budget, Run, Sink
from haystream_service.run.writer import Writer

WORD = Text("llm", 0, "word")
ROOMY = 1_000_000
FOR_TWO = 2 * size_bytes(WORD)
BUDGET = Budget(seconds=60, queue_bytes=ROOMY, replay_bytes=ROOMY)


def nobody(_: Run) -> None:
    """Take no notice that a run is over."""


class Wakes:
    """Counts how often a queue wakes its reader."""

    def __init__(self) -> None:
        self.count = 0
        self.first = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self.first.set()


async def test_entries_are_stamped_in_the_order_in_which_they_came() -> None:
    """From one, without a hole, across drains."""
    queue = CallbackQueue(ROOMY, Wakes())
    await queue.put(WORD)
    queue.put_from_thread(WORD)
    first = queue.drain()
    await queue.put(WORD)
    assert [entry.seq for entry in [*first, *queue.drain()]] == [1, 2, 3]
    assert queue.drain() == []


async def test_the_reader_is_woken_once_per_change_from_empty_to_filled() -> None:
    """Never once per chunk: each wake-up from a thread is a write to a socket."""
    wakes = Wakes()
    queue = CallbackQueue(ROOMY, wakes)

    def produce() -> None:
        for _ in range(500):
            queue.put_from_thread(WORD)

    await asyncio.gather(*(asyncio.to_thread(produce) for _ in range(4)))
    await wakes.first.wait()
    assert wakes.count == 1
    assert len(queue.drain()) == 2000
    await queue.put(WORD)
    await queue.put(WORD)
    assert wakes.count == 2


async def test_a_full_queue_makes_an_async_callback_wait() -> None:
    """And lets it go on as soon as it was drained."""
    queue = CallbackQueue(FOR_TWO, Wakes())
    await queue.put(WORD)
    await queue.put(WORD)
    third = asyncio.create_task(queue.put(WORD))
    await asyncio.sleep(0)
    assert not third.done()
    assert len(queue.drain()) == 2
    await third
    assert [entry.seq for entry in queue.drain()] == [3]


async def test_a_full_queue_blocks_the_thread_of_a_sync_callback() -> None:
    """And lets it go on as soon as it was drained."""
    wakes = Wakes()
    queue = CallbackQueue(FOR_TWO, wakes)
    passed: list[int] = []
    blocked = threading.Event()

    def produce() -> None:
        for number in range(3):
            if number == 2:
                blocked.set()
            queue.put_from_thread(WORD)
            passed.append(number)

    producer = asyncio.create_task(asyncio.to_thread(produce))
    await asyncio.to_thread(blocked.wait)
    assert passed == [0, 1]
    assert len(queue.drain()) == 2
    await producer
    assert [entry.seq for entry in queue.drain()] == [3]


async def test_an_entry_larger_than_the_queue_passes_when_it_is_empty() -> None:
    """Otherwise it would wait for ever."""
    queue = CallbackQueue(1, Wakes())
    await queue.put(Text("llm", 0, "x" * 10_000))
    assert len(queue.drain()) == 1


@pytest.mark.parametrize("full", [False, True])
async def test_a_closed_queue_stops_whoever_puts(*, full: bool) -> None:
    """Those who wait for room as well as those who come later; what is there can still be read."""
    queue = CallbackQueue(1 if full else ROOMY, Wakes())
    await queue.put(WORD)
    waiting = [
        asyncio.create_task(queue.put(WORD)),
        asyncio.create_task(asyncio.to_thread(queue.put_from_thread, WORD)),
    ]
    if not full:
        await asyncio.gather(*waiting)
    queue.close()
    if full:
        stopped = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(error) for error in stopped} == {RunStopped}
    with pytest.raises(RunStopped):
        await queue.put(WORD)
    with pytest.raises(RunStopped):
        queue.put_from_thread(WORD)
    assert len(queue.drain()) == (1 if full else 3)


async def test_a_generator_that_never_waits_does_not_keep_the_loop() -> None:
    """Others get their turn while it fills the queue."""
    queue = CallbackQueue(100_000_000, Wakes())
    done = asyncio.Event()

    async def produce() -> None:
        for _ in range(200_000):
            await queue.put(WORD)
        done.set()

    producer = asyncio.create_task(produce())
    turns = 0
    while not done.is_set():
        await asyncio.sleep(0)
        turns += 1
    await producer
    assert turns > 10


def entries_of(events: list[Event]) -> list[Entry]:
    """Return events as numbered entries."""
    return [Entry(seq, event, size_bytes(event)) for seq, event in enumerate(events, start=1)]


texts = st.builds(Text, st.sampled_from(["a", "b"]), st.integers(0, 1), st.text(max_size=5))
reasonings = st.builds(Reasoning, st.sampled_from(["a", "b"]), st.integers(0, 1), st.text(max_size=5))
others = st.builds(Started, st.just("r"), st.just("p"))


@given(st.lists(texts | reasonings | others))
def test_joining_loses_and_moves_nothing(events: list[Event]) -> None:
    """The text of each stream stays as it was, and so does the order of everything else."""
    entries = entries_of(events)
    result = joined(entries)
    numbers = [entry.seq for entry in result]
    assert numbers == sorted(set(numbers))
    assert numbers[-1:] == [entry.seq for entry in entries[-1:]]

    def said(among: list[Entry]) -> str:
        parts = [entry.event for entry in among]
        return "".join(
            f"{part.delta}" if isinstance(part, Text | Reasoning) else f"<{type(part).__name__}>" for part in parts
        )

    assert said(result) == said(entries)
    for before, after in pairwise(result):
        if isinstance(before.event, Text) and isinstance(after.event, Text):
            assert (before.event.component, before.event.index) != (after.event.component, after.event.index)


def test_a_joined_event_stays_within_what_a_client_takes_in_one_message() -> None:
    """However much there is to join."""
    entries = entries_of([Text("llm", 0, "x" * 1000)] * 10_000)
    result = joined(entries)
    assert sum(len(entry.event.delta) for entry in result if isinstance(entry.event, Text)) == 10_000_000
    assert max(entry.size_bytes for entry in result) < JOINED_LIMIT_BYTES + 2000


@given(st.lists(st.integers(10, 40), min_size=1), st.integers(0, 30))
def test_the_log_returns_all_that_follows_or_names_what_is_missing(sizes: list[int], after_seq: int) -> None:
    """Within its budget, whatever the sizes and wherever the reader is."""
    log = RunLog(100)
    log.append(Entry(seq, WORD, size) for seq, size in enumerate(sizes, start=1))
    result = log.after(after_seq)
    expected = after_seq
    for entry in result:
        if isinstance(entry.event, Gap):
            assert entry.event.from_seq == expected + 1
            assert entry.event.to_seq == entry.seq
        else:
            assert entry.seq == expected + 1
        expected = entry.seq
    assert expected == max(after_seq, len(sizes))
    assert log.last_seq == len(sizes)
    kept = [entry for entry in result if not isinstance(entry.event, Gap)]
    assert sum(entry.size_bytes for entry in kept) <= 100 or len(kept) == 1


class Collector:
    """A reader that keeps what it gets, and may stop taking."""

    def __init__(self, *, takes: bool = True) -> None:
        self.entries: list[Entry] = []
        self.beats: list[int] = []
        self._takes = takes
        self._got = asyncio.Semaphore(0)

    async def send(self, entry: Entry) -> None:
        if not self._takes:
            await asyncio.Event().wait()
        self.entries.append(entry)
        self._got.release()

    async def has(self, count: int) -> None:
        """Wait for as many more entries."""
        for _ in range(count):
            await self._got.acquire()

    async def beat(self, seq: int) -> None:
        self.beats.append(seq)


def writer_of(run: Run, collector: Collector, slow_reader_seconds: float = 60) -> Writer:
    """Return a writer for a reader."""
    return Writer(run, collector, heartbeat_seconds=60, slow_reader_seconds=slow_reader_seconds)


async def test_a_run_delivers_everything_before_its_ending() -> None:
    """The last event is there before the reader learns that it was the last."""

    async def work(sink: Sink) -> Finished:
        await sink.put(WORD)
        await asyncio.to_thread(sink.put_from_thread, WORD)
        return Finished(FinishReason.STOP)

    run, collector = Run("r", "p", BUDGET, nobody), Collector()
    task = run.start(work)
    assert await writer_of(run, collector).follow() == Completed()
    await task
    first, *between, last = [entry.event for entry in collector.entries]
    assert isinstance(first, Started)
    assert "".join(event.delta for event in between if isinstance(event, Text)) == "wordword"
    assert isinstance(last, Finished)
    assert collector.entries[-1].seq == 4


async def test_a_failure_comes_after_what_was_said_before_it() -> None:
    """Nothing that the model said is lost."""
    error = ValueError()

    async def work(sink: Sink) -> Finished:
        await sink.put(WORD)
        raise error

    run, collector = Run("r", "p", BUDGET, nobody), Collector()
    task = run.start(work)
    assert await writer_of(run, collector).follow() == Failed(error)
    await task
    assert [type(entry.event) for entry in collector.entries] == [Started, Text]


async def test_the_first_ending_stays() -> None:
    """A run ends once; what comes later changes nothing."""

    async def work(_: Sink) -> Finished:
        return Finished(FinishReason.STOP)

    run = Run("r", "p", BUDGET, nobody)
    await run.start(work)
    run.stop(Disconnected())
    assert run.ending == Completed()


async def test_a_run_over_its_time_is_stopped() -> None:
    """The component is cancelled, and the ending says why."""
    cancelled = asyncio.Event()

    async def work(_: Sink) -> Finished:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    run, collector = Run("r", "p", Budget(0.01, ROOMY, ROOMY), nobody), Collector()
    task = run.start(work)
    assert await writer_of(run, collector).follow() == DeadlineExceeded()
    await task
    assert cancelled.is_set()


async def test_a_component_that_cancels_itself_ends_its_run() -> None:
    """Without this its reader would wait for ever."""

    async def work(_: Sink) -> Finished:
        raise asyncio.CancelledError

    run, collector = Run("r", "p", BUDGET, nobody), Collector()
    task = run.start(work)
    ending = await writer_of(run, collector).follow()
    assert isinstance(ending, Failed)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_reader_that_takes_nothing_is_given_up() -> None:
    """Its run is told by whoever holds the writer."""

    async def work(_: Sink) -> Finished:
        await asyncio.Event().wait()
        raise AssertionError

    run = Run("r", "p", BUDGET, nobody)
    task = run.start(work)
    assert await writer_of(run, Collector(takes=False), slow_reader_seconds=0.01).follow() == ReaderTooSlow()
    run.stop(ReaderTooSlow())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_run_is_over_when_its_work_is_done_and_nobody_reads_it() -> None:
    """Until then it takes memory, and counts."""
    over: list[Run] = []

    async def work(_: Sink) -> Finished:
        return Finished(FinishReason.STOP)

    run, collector = Run("r", "p", BUDGET, over.append), Collector(takes=False)
    writer = writer_of(run, collector)
    task = run.start(work)
    reading = asyncio.create_task(writer.follow())
    await task
    await asyncio.sleep(0)
    assert run.ending == Completed()
    assert over == []
    run.dismiss_followers(Drained())
    assert await reading == Drained()
    assert over == [run]


async def test_a_second_reader_gets_what_the_first_had_and_then_the_same() -> None:
    """Readers do not take words from each other."""
    proceed = asyncio.Event()

    async def work(sink: Sink) -> Finished:
        await sink.put(WORD)
        await proceed.wait()
        await sink.put(Text("llm", 1, "more"))
        return Finished(FinishReason.STOP)

    run, first, second = Run("r", "p", BUDGET, nobody), Collector(), Collector()
    task = run.start(work)
    reading = asyncio.create_task(writer_of(run, first).follow())
    await first.has(2)
    following = asyncio.create_task(writer_of(run, second).follow())
    await second.has(2)
    proceed.set()
    await asyncio.gather(task, reading, following)
    assert first.entries == second.entries
