"""One run and its readers, without a network: whom it gives up, and when it is over."""

from __future__ import annotations

import asyncio
import time

from haystream_service.run.ending import Cancelled, Completed, Drained, ReaderTooSlow
from haystream_service.run.events import Finished, Started, Text, ToolCall
from haystream_service.run.run import OnDisconnect, Sink
from haystream_service.run.writer import Patience, Writer
from tests.bare_runs import END, WORD, Collector, Ledger, never, run_of, saying, writer_of
from tests.clock import ClockedLoop, clocked


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


async def test_a_reader_who_comes_when_all_is_over_reads_the_log_and_the_run_stays_over() -> None:
    """Who has found a run before its end may begin to read after it."""
    ledger, first, late = Ledger(), Collector(), Collector()
    run = run_of(ledger)
    await asyncio.gather(run.start(saying(WORD)), writer_of(run, first).follow())
    await asyncio.sleep(0)
    assert ledger.over == [run]
    assert await writer_of(run, late, leads=False).follow() == Completed()
    assert late.entries == first.entries
    assert ledger.over == [run]


async def test_a_reader_who_comes_back_is_given_a_little_at_a_time() -> None:
    """What it has been given is held while it takes it: not all of a log, for each of many that take nothing."""
    run = run_of(Ledger())
    words = [Text("llm", 0, "x" * 100)] * 5000
    await asyncio.gather(run.start(saying(*words)), writer_of(run, Collector()).follow())
    reader = writer_of(run, Collector(), leads=False)
    given = [len(entry.event.delta) for entry in run.read(reader, 0) if isinstance(entry.event, Text)]
    assert 10_000 < sum(given) <= 64 * 1024
    assert max(given) <= 32 * 1024


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
