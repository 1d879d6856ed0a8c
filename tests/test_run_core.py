"""How one run ends, without a network, and what its reader has got by then."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from haystream_service.run.ending import (
    Cancelled,
    Completed,
    DeadlineExceeded,
    Disconnected,
    Failed,
    Failure,
    FailureKind,
)
from haystream_service.run.events import Finished, FinishReason, Started, Text, Usage
from haystream_service.run.queue import RunStopped
from tests.bare_runs import END, FAILURE, WORD, Collector, Ledger, run_of, saying, writer_of

if TYPE_CHECKING:
    from haystream_service.run.run import Sink


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
