"""Queue, log, run and store under whatever a service can do to them, in whatever order.

The rules start runs, put from the loop and from threads, let readers come, take, stall and go, stop runs, finish them,
and let time pass on a clock of their own. Whatever happened: every reader got exactly what was put, in its order, but
for what a gap named; and once everybody takes and works to the end, nothing waits for ever.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from haystream_service.errors import RunExists
from haystream_service.run.ending import Cancelled, Failure, FailureKind, ReaderTooSlow
from haystream_service.run.events import Event, Finished, FinishReason, Reasoning, Text
from haystream_service.run.queue import RunStopped
from haystream_service.run.quota import Quota
from haystream_service.run.run import Budget, OnDisconnect, Run, Sink
from haystream_service.run.runs import Capacity, Runs
from haystream_service.run.store import EndedRun, MemoryStore, RunRecord
from haystream_service.run.stretch import STRETCH_BYTES
from haystream_service.run.writer import Patience, Writer
from tests.audit import AuditedLog, AuditingStore, Put, Taker, Told, check_told
from tests.clock import ClockedLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

EXAMPLES = 150
STEPS = 40
SELDOM = st.integers(0, 7).map(lambda number: number == 7)  # lest no run lives long enough for much to happen in it
ROUNDS = 200  # of turns at the end, in which everything has to come to rest
THREAD_SECONDS = 10  # what a thread takes that can go on, and much more

GRACE_SECONDS = 20.0
SLOW_SECONDS = 50.0
KEEP_SECONDS = 100.0
TIME_STEPS = (1.0, 5.0, 10.0, GRACE_SECONDS, SLOW_SECONDS, KEEP_SECONDS)

POLICIES = (OnDisconnect(), OnDisconnect(goes_on=True), OnDisconnect(goes_on=True, grace_seconds=GRACE_SECONDS))
PRINCIPAL, RUN_ID = "me", "r"


class Service(RuleBasedStateMachine):
    """A service of one run at a time, and those of the same id before it that are still being stopped or read."""

    memory: MemoryStore
    store: AuditingStore
    runs: Runs
    budget: Budget

    def __init__(self) -> None:
        super().__init__()
        self.loop = ClockedLoop()
        self.told: list[Told] = []
        self.takers: list[Taker] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.threads: list[threading.Thread] = []
        self.outcomes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.outcomes_seen = 0
        self.texts = 0

    @initialize(
        queue_bytes=st.sampled_from([1, STRETCH_BYTES + 150, 2 * STRETCH_BYTES]),
        log_bytes=st.sampled_from([1, 6 * STRETCH_BYTES, 20 * STRETCH_BYTES]),
        total_bytes=st.sampled_from([1, 8 * STRETCH_BYTES, 1000 * STRETCH_BYTES]),
        queue_total_bytes=st.sampled_from([1, STRETCH_BYTES + 150, 1000 * STRETCH_BYTES]),
        policy=st.sampled_from(POLICIES),
    )
    def serve(
        self, queue_bytes: int, log_bytes: int, total_bytes: int, queue_total_bytes: int, policy: OnDisconnect
    ) -> None:
        async def compose() -> None:
            self.memory = MemoryStore(log_bytes, KEEP_SECONDS, total_bytes)
            self.store = AuditingStore(self.memory)
            self.runs = Runs(Capacity(1000, 1000, queue_total_bytes), self.store, lambda _: Failure(FailureKind.DEFECT))

        self.budget = Budget(seconds=1_000_000, queue_bytes=queue_bytes)
        self.loop.run_until_complete(compose())
        self.start(policy)

    @rule(policy=st.sampled_from(POLICIES))
    def start(self, policy: OnDisconnect) -> None:
        """A run is started anew; while the id is taken, that is refused."""
        finish = asyncio.Event()

        async def work(sink: Sink, seconds: float) -> Finished:
            await finish.wait()
            return Finished(FinishReason.STOP)

        async def start() -> None:
            record = RunRecord(RUN_ID, PRINCIPAL, "p", b"")
            if isinstance(await self.runs.find(RUN_ID, PRINCIPAL), Run):
                with pytest.raises(RunExists):
                    self.runs.start(record, Quota(), self.budget, policy, work, self.note_ending)
                return
            run = self.runs.start(record, Quota(), self.budget, policy, work, self.note_ending)
            assert self.store.newest is not None
            self.told.append(Told(run, self.store.newest, finish))

        self.do(start())

    @rule(indexes=st.lists(st.integers(0, 1), min_size=1, max_size=6), which=st.integers(0, 3))
    def put_on_the_loop(self, indexes: list[int], which: int) -> None:
        """Components put at once, each in a task of its own."""
        told = self.some_told(which)

        async def put(event: Event, note: Put) -> None:
            note.was_accepted = told.run.ending is None
            try:
                await told.run.put(event)
            except RunStopped:
                note.was_stopped = True
            else:
                note.was_stopped = False

        async def begin() -> None:
            for index in indexes:
                note = self.new_put(told)
                self.tasks.append(asyncio.create_task(put(Text("llm", index, note.text), note)))
                await asyncio.sleep(0)

        self.do(begin())

    @rule(kind=st.sampled_from([Text, Reasoning]), count=st.integers(1, 3), which=st.integers(0, 3))
    def put_in_threads(self, kind: type[Text | Reasoning], count: int, which: int) -> None:
        """Sync components put, each in a thread of its own."""
        told = self.some_told(which)

        def put(note: Put) -> None:
            try:
                told.run.put_from_thread(kind("llm", 0, note.text))
            except RunStopped:
                note.was_stopped, note.was_accepted = True, False
            else:
                note.was_stopped, note.was_accepted = False, True
            self.outcomes.put(None)

        for _ in range(count):
            thread = threading.Thread(target=put, args=(self.new_put(told),))
            self.threads.append(thread)
            thread.start()
        self.loop.turn()

    @rule(leads=st.booleans(), seen=st.integers(0, 50), entries=st.integers(0, 3), which=st.integers(0, 3))
    def read(self, leads: bool, seen: int, entries: int, which: int) -> None:
        """A reader comes, from the beginning or from where one has been; or finds no run that it may read."""
        told = self.some_told(which)

        async def begin() -> None:
            source = await self.runs.find(RUN_ID, PRINCIPAL)
            if source is None or source.log is not told.log:
                return
            taker = Taker(told, told.seen_seqs[seen % len(told.seen_seqs)])
            taker.task = asyncio.create_task(self.follow(source, taker, leads=leads))
            taker.take(entries)
            self.takers.append(taker)

        self.do(begin())

    @rule(entries=st.integers(1, 5), which=st.integers(0, 9))
    def take(self, entries: int, which: int) -> None:
        """A reader takes what it was too slow for."""
        if self.takers:
            self.takers[which % len(self.takers)].take(entries)
        self.loop.turn()

    @rule(which=st.integers(0, 9))
    def leave(self, which: int) -> None:
        """A reader's connection is lost, if there are that many."""
        if which < len(self.takers):
            task = self.takers[which].task
            assert task is not None
            task.cancel()
        self.loop.turn()

    @rule(seldom=SELDOM)
    def cancel(self, seldom: bool) -> None:
        """The caller stops the run, if there is one of this id."""

        async def cancel() -> None:
            if await self.runs.find(RUN_ID, PRINCIPAL) is not None:
                await self.runs.cancel(RUN_ID, PRINCIPAL)

        if seldom:
            self.do(cancel())

    @rule(seldom=SELDOM, which=st.integers(0, 3))
    def finish(self, seldom: bool, which: int) -> None:
        """The pipeline comes to its end."""
        if seldom:
            self.some_told(which).finish.set()
        self.loop.turn()

    @rule(seconds=st.sampled_from(TIME_STEPS))
    def time_passes(self, seconds: float) -> None:
        """Graces end, readers that are stuck are given up, logs are forgotten: none is there at twice its time."""
        over = [told for told in self.told if told.run not in list(self.runs)]
        self.loop.turn(seconds)
        if seconds >= KEEP_SECONDS:
            found = self.do(self.runs.find(RUN_ID, PRINCIPAL))
            assert found is None or found.log not in [told.log for told in over], "resumed after its time to live"

    def teardown(self) -> None:
        try:
            if self.told:  # else Hypothesis has stopped before anything began
                self.come_to_rest()
        finally:
            self.clear_away()

    def come_to_rest(self) -> None:
        """Let everybody read on and every component end, and check that all is there."""
        for taker in self.takers:
            taker.take_all()
        self.settle(puts_only=True)
        for told in self.told:
            self.check_delivered(told)
            told.finish.set()
        self.settle()
        assert len(self.runs) == 0
        assert self.runs.queues.size_bytes == 0, "what was in a queue has to be given back"
        assert not self.loop.errors
        for told in self.told:
            check_told(told)
        self.loop.turn(KEEP_SECONDS)
        assert len(self.memory) == 0
        assert self.memory.held.size_bytes == 0
        assert self.do(self.runs.find(RUN_ID, PRINCIPAL)) is None

    def check_delivered(self, told: Told) -> None:
        """Check that a run that goes on has brought all there is to its log and to its readers, unasked."""
        if told.run.ending is not None or told.finish.is_set():
            return
        accepted = 1 + sum(put.was_accepted is True for put in told.puts)
        assert told.log.last_seq == accepted
        for taker in self.takers:
            if taker.told is told and taker.task is not None and not taker.task.done():
                assert taker.seq == accepted, "nobody told the reader"

    def settle(self, *, puts_only: bool = False) -> None:
        """Turn the loop until nobody waits. Each round at least one thread goes on, or else none ever will."""
        for _ in range(ROUNDS):
            self.loop.turn()
            readers = [taker.task for taker in self.takers if taker.task is not None and not puts_only]
            is_waiting = not all(task.done() for task in [*self.tasks, *readers])
            if self.outcomes_seen < len(self.threads):
                self.outcomes.get(timeout=THREAD_SECONDS)
                self.outcomes_seen += 1
            elif not is_waiting:
                break
        else:
            pytest.fail("somebody waits for ever")
        for task in [*self.tasks, *readers]:
            if not task.cancelled():
                task.result()

    def clear_away(self) -> None:
        """Leave nothing behind, whatever has failed."""
        for told in self.told:
            told.run.stop(Cancelled())
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.turn()
        if hasattr(self, "memory"):
            self.memory.close()
        for thread in self.threads:
            thread.join(THREAD_SECONDS)
        assert not any(thread.is_alive() for thread in self.threads)
        self.loop.close()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a step on the loop, and what follows from it."""
        result = self.loop.run_until_complete(coroutine)
        self.loop.turn()
        return result

    async def follow(self, source: Run | EndedRun, taker: Taker, *, leads: bool) -> None:
        """Read as an RPC does."""
        patience = Patience(heartbeat_seconds=7, slow_reader_seconds=SLOW_SECONDS)
        writer = Writer(source, taker, patience, leads=leads, after_seq=taker.seq)
        with self.runs.reading(writer, "me", Quota()):
            ending = await writer.follow()
        assert writer.delivered_seq == taker.seq
        if not isinstance(ending, ReaderTooSlow):
            assert ending == source.ending
            assert taker.seq == len(source.log.pieces) if isinstance(source.log, AuditedLog) else False

    def note_ending(self, run: Run, error: BaseException | None) -> None:
        """Note that a run has ended, once."""
        told = next(told for told in self.told if told.run is run)
        told.endings.append(run.ending)

    def new_put(self, told: Told) -> Put:
        self.texts += 1
        before = frozenset(put.text for put in told.puts if put.was_accepted)
        told.puts.append(Put(f"<{self.texts}>", before))
        return told.puts[-1]

    def some_told(self, which: int) -> Told:
        """Return the newest run, mostly."""
        return self.told[-1] if which else self.told[0]


@pytest.mark.timeout(400)  # Hypothesis takes up to five minutes to make a failure short
def test_readers_get_all_that_was_put_or_a_gap_and_nothing_waits_for_ever() -> None:
    """Whatever the interleaving of puts, reads, cancels, leaving, resumes and expiries."""
    run_state_machine_as_test(
        Service, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
    )
