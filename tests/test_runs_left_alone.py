"""What becomes of a run that nobody reads any more: it stops, goes on, or waits for its reader for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from haystream_service.run.ending import Completed, DeadlineExceeded, Disconnected, ReaderTooSlow
from haystream_service.run.events import Entry, Finished, Text
from haystream_service.run.store import EndedRun
from tests.bare_runs import END, WORD, Collector, never, writer_of
from tests.clock import ClockedLoop, turns
from tests.house import GO_ON, GRACE, STARTED, Follower, House, Speaker, house_of, on_a_clock

if TYPE_CHECKING:
    from haystream_service.run.run import Sink


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
