"""What all runs hold together: of what is not read yet, and of what was. Each byte is counted, and given back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from haystream_service.run.ending import (
    Cancelled,
    Completed,
    DeadlineExceeded,
    Disconnected,
    Drained,
    Failed,
    ReaderTooSlow,
)
from haystream_service.run.events import Entry, Event, Gap, Reasoning, Text
from haystream_service.run.queue import CallbackQueue, RunStopped
from haystream_service.run.quota import Quota
from haystream_service.run.run import Budget, OnDisconnect, Sink
from haystream_service.run.runs import Capacity, Runs
from haystream_service.run.store import EndedRun, MemoryStore, RunRecord
from haystream_service.run.stretch import STRETCH_BYTES, size_bytes
from haystream_service.run.total import Total
from tests.audit import pieces_of
from tests.bare_runs import END, FAILURE, Collector, writer_of
from tests.clock import ClockedLoop, turns
from tests.test_queue import ROOMY, WORD, Wakes, put_as_task, put_in_thread
from tests.test_quotas import note_nothing

if TYPE_CHECKING:
    from haystream_service.run.ending import Ending
    from haystream_service.run.events import Finished
    from haystream_service.run.log import RunLog
    from haystream_service.run.run import Work

WORD_BYTES = STRETCH_BYTES + size_bytes(WORD)


async def full_total() -> tuple[Total, CallbackQueue]:
    """Return a budget that is used up, and the queue that did it."""
    total = Total(WORD_BYTES)
    other = CallbackQueue(ROOMY, total, Wakes())
    await other.put(WORD)
    _ = other.put(WORD)
    assert total.surplus_bytes > 0
    return total, other


async def test_over_the_limit_of_all_a_queue_takes_one_event_until_it_is_read() -> None:
    """On the loop the callback waits from then on; its own reader, and nobody else, lets it go on."""
    total, other = await full_total()
    mine = CallbackQueue(ROOMY, total, Wakes())
    first = asyncio.create_task(put_as_task(mine, WORD))
    await turns()
    assert not first.done()
    other.close()  # that is no room yet
    await turns()
    assert not first.done()
    assert len(mine.drain()) == 1
    await first
    assert total.surplus_bytes > 0
    other.drain()
    assert total.size_bytes == 0


async def test_over_the_limit_of_all_a_thread_puts_one_event_until_it_is_read() -> None:
    """It blocks before the second."""
    total, other = await full_total()
    mine = CallbackQueue(ROOMY, total, Wakes())
    await asyncio.to_thread(mine.put_from_thread, WORD)
    second = await put_in_thread(mine, WORD)
    await turns()
    assert not second.done()
    assert mine.drain()[-1].seq == 1
    await second
    assert mine.drain()[-1].seq == 2
    other.drain()
    assert total.size_bytes == 0


async def test_within_the_limit_of_all_nobody_waits() -> None:
    """Up to its last byte: a queue has room as long as its own limit and that of all say so."""
    total = Total(2 * WORD_BYTES)
    queues = [CallbackQueue(ROOMY, total, Wakes()) for _ in range(2)]
    for queue in queues:
        await queue.put(WORD)
    assert total.surplus_bytes == 0
    waiting = asyncio.create_task(put_as_task(queues[0], WORD))
    await turns()
    assert not waiting.done()
    for queue in queues:
        queue.drain()
    await waiting
    assert total.size_bytes == 0


async def test_threads_that_put_at_once_stay_within_the_limit_and_an_event_each() -> None:
    """And lose no byte of the count to each other."""
    total = Total(20 * WORD_BYTES)
    queues = [CallbackQueue(ROOMY, total, Wakes()) for _ in range(8)]
    highest = 0

    def produce(queue: CallbackQueue) -> None:
        for number in range(400):
            queue.put_from_thread(Text("llm", number % 2, "word"))

    producing = [asyncio.create_task(asyncio.to_thread(produce, queue)) for queue in queues]
    seqs = dict.fromkeys(queues, 0)
    while not all(task.done() for task in producing):
        highest = max(highest, total.size_bytes)
        for queue in queues:
            for entry in queue.drain():
                seqs[queue] = entry.seq
        await asyncio.sleep(0)
    await asyncio.gather(*producing)
    for queue in queues:
        for entry in queue.drain():
            seqs[queue] = entry.seq
    assert set(seqs.values()) == {400}
    assert highest <= (20 + len(queues)) * WORD_BYTES
    assert total.size_bytes == 0


async def put_until_stopped(sink: Sink, seconds: float) -> Finished:
    """Work that speaks until nobody lets it."""
    while True:
        await sink.put(WORD)


async def put_in_threads_until_stopped(sink: Sink, seconds: float) -> Finished:
    """The same in a thread."""

    def speak() -> Finished:
        while True:
            sink.put_from_thread(WORD)

    return await asyncio.to_thread(speak)


async def fail_with_words_unread(sink: Sink, seconds: float) -> Finished:
    """Work that fails while what it said waits."""
    for _ in range(3):
        _ = sink.put(WORD)
    raise ValueError


async def end_with_words_unread(sink: Sink, seconds: float) -> Finished:
    """Work that ends while what it said waits."""
    for _ in range(3):
        _ = sink.put(WORD)
    return END


ENDINGS: list[tuple[Work, Ending]] = [
    (end_with_words_unread, Completed()),
    (fail_with_words_unread, Failed(FAILURE)),
    *(
        (work, ending)
        for work in (put_until_stopped, put_in_threads_until_stopped)
        for ending in (Cancelled(), DeadlineExceeded(), Disconnected(), Drained(), ReaderTooSlow())
    ),
]


@pytest.mark.parametrize(("work", "ending"), ENDINGS)
@pytest.mark.parametrize("reads", ["nobody", "one who takes nothing", "one who takes all"])
async def test_what_a_run_held_is_given_back_however_it_ends(work: Work, ending: Ending, reads: str) -> None:
    """Whether somebody reads it, takes nothing, or has left."""
    store = MemoryStore(ROOMY, 60, ROOMY)
    runs = Runs(Capacity(10, 10, 3 * WORD_BYTES), store, lambda _: FAILURE)
    record = RunRecord("r", "me", "p", b"")
    run = runs.start(record, Quota(), Budget(60, ROOMY), OnDisconnect(goes_on=True), work, note_nothing)
    reader = Collector(takes=reads == "one who takes all")
    following = asyncio.create_task(writer_of(run, reader).follow()) if reads != "nobody" else None
    await turns()
    run.stop(ending)  # unless it has ended already
    if following is not None:
        await turns()
        reader.takes.set()
        await following
    await runs.until_idle()
    assert run.ending == ending
    assert runs.queues.size_bytes == 0
    store.close()
    assert store.held.size_bytes == 0


async def test_a_thread_that_puts_after_the_end_adds_nothing() -> None:
    """It is stopped instead, and the count stays what it was."""
    total = Total(ROOMY)
    queue = CallbackQueue(ROOMY, total, Wakes())
    queue.close()
    with pytest.raises(RunStopped):
        await asyncio.to_thread(queue.put_from_thread, WORD)
    with pytest.raises(RunStopped):
        await queue.put(WORD)
    queue.put_last(WORD)
    assert total.size_bytes == 0


async def test_a_log_at_work_gives_up_its_own_oldest_when_nothing_else_is_left() -> None:
    """Its readers see a gap; others at work lose nothing, and its newest stretch stays."""
    store = MemoryStore(ROOMY, 60, total_bytes=6 * WORD_BYTES)
    quiet = store.open(RunRecord("quiet", "me", "p", b""))
    quiet.append([Entry(1, WORD)])
    log = store.open(RunRecord("loud", "me", "p", b""))
    for seq in range(1, 21):
        log.append([Entry(seq, Text("llm", seq % 2, "word"))])
        assert store.held.surplus_bytes <= 0
    assert quiet.after(0) == [Entry(1, WORD)]
    assert log.after(0)[0] == Entry(15, Gap(1, 15))
    large = Text("llm", 7, "x" * 100_000)
    log.append([Entry(21, large)])
    assert log.after(0) == [Entry(20, Gap(1, 20)), Entry(21, large)]
    assert quiet.after(0) == [Entry(1, WORD)]
    store.close()
    assert store.held.size_bytes == 0


async def test_whoever_reads_a_log_that_makes_room_is_told_by_a_gap() -> None:
    """What it holds is gone at once, whoever holds it."""
    store = MemoryStore(ROOMY, 60, total_bytes=2 * WORD_BYTES)
    record = RunRecord("over", "me", "p", b"")
    log = store.open(record)
    log.append([Entry(1, WORD), Entry(2, Reasoning("llm", 0, "word"))])
    ended = EndedRun(record, log, Completed(), ())
    store.keep(ended)
    reader = Collector()
    store.open(RunRecord("new", "me", "p", b"")).append([Entry(1, WORD)])
    assert await writer_of(ended, reader).follow() == Completed()
    assert reader.entries == [Entry(2, Gap(1, 2))]
    assert store.held.size_bytes == WORD_BYTES
    store.close()


@dataclass
class Kept:
    """A run's log, and what came into it."""

    record: RunRecord
    log: RunLog
    puts: int = 0
    newest_bytes: int = 0
    is_over: bool = False


class Logs(RuleBasedStateMachine):
    """The logs of several runs in one store: begun, filled, ended, dropped and forgotten in whatever order."""

    store: MemoryStore
    total_bytes: int

    def __init__(self) -> None:
        super().__init__()
        self.loop = ClockedLoop()
        self.kept: dict[str, Kept] = {}

    @initialize(
        run_bytes=st.sampled_from([1, 4 * WORD_BYTES, 40 * WORD_BYTES]),
        total_bytes=st.sampled_from([1, 6 * WORD_BYTES, 30 * WORD_BYTES]),
    )
    def serve(self, run_bytes: int, total_bytes: int) -> None:
        async def compose() -> None:
            self.store = MemoryStore(run_bytes, 100.0, total_bytes)

        self.loop.run_until_complete(compose())
        self.total_bytes = total_bytes

    @rule(name=st.sampled_from("abcd"))
    def open(self, name: str) -> None:
        """A run begins; one of the same id that is over makes way for it."""
        if name not in self.kept or self.kept[name].is_over:
            record = RunRecord(name, "me", "p", b"")
            self.kept[name] = Kept(record, self.store.open(record))

    @rule(name=st.sampled_from("abcd"), index=st.integers(0, 1), count=st.integers(1, 8), size=st.integers(0, 2000))
    def append(self, name: str, index: int, count: int, size: int) -> None:
        """A run at work says something."""
        kept = self.kept.get(name)
        if kept is None or kept.is_over:
            return
        for _ in range(count):
            kept.puts += 1
            event: Event = Text("llm", index, f"<{kept.puts}>" + f"<{'0' * size}>" * (size > 1000))
            kept.log.append([Entry(kept.puts, event)])
        self.check_readable(kept)

    @rule(name=st.sampled_from("abcd"))
    def end(self, name: str) -> None:
        """A run is over, and its log kept from now on."""
        kept = self.kept.get(name)
        if kept is not None and not kept.is_over:
            kept.is_over = True
            self.store.keep(EndedRun(kept.record, kept.log, Completed(), ()))

    @rule(name=st.sampled_from("abcd"))
    def drop(self, name: str) -> None:
        """A run is dropped, at work or over."""
        self.store.drop(("me", name))
        self.kept.pop(name, None)

    @rule(seconds=st.sampled_from([1.0, 60.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        """Logs are forgotten."""
        self.loop.turn(seconds)

    @invariant()
    def all_is_counted_and_within_the_limit(self) -> None:
        """To the byte; over it are the newest stretches of the runs at work alone."""
        if not hasattr(self, "store"):
            return
        at_work = [kept for kept in self.kept.values() if not kept.is_over]
        over = [kept for kept in self.kept.values() if kept.is_over and self.find(kept)]
        assert self.store.held.size_bytes == sum(kept.log.size_bytes for kept in [*at_work, *over])
        assert len(self.store) == len(at_work) + len(over)
        if self.store.held.size_bytes > self.total_bytes:
            assert not over, "those of runs that are over go first"

    def find(self, kept: Kept) -> bool:
        """Tell whether a run that is over is still kept."""
        return self.loop.run_until_complete(self.store.find(kept.record.key)) is not None

    def check_readable(self, kept: Kept) -> None:
        """Check that a reader gets the newest, and an exact gap for what it misses; and who is over the limit."""
        entries = kept.log.after(0)
        assert entries[-1].seq == kept.puts
        seq = 0
        for entry in entries:
            if isinstance(entry.event, Gap):
                assert (entry.event.from_seq, entry.event.to_seq) == (1, entry.seq)
            else:
                said = [piece for piece in pieces_of(entry.event) if not piece.startswith("<00")]
                assert said == [f"<{number}>" for number in range(seq + 1, entry.seq + 1)]
            seq = entry.seq
        if self.store.held.size_bytes > self.total_bytes:
            assert len([entry for entry in entries if not isinstance(entry.event, Gap)]) == 1, "it keeps its newest"

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            assert self.store.held.size_bytes == 0
        self.loop.close()


@pytest.mark.timeout(400)  # Hypothesis takes up to five minutes to make a failure short
def test_all_logs_together_stay_within_their_budget() -> None:
    """Whatever the order in which runs begin, speak, end and are dropped."""
    run_state_machine_as_test(Logs, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))
