"""All runs: who may start and stop which, and how often each of them ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from haystream_service.errors import RunExists, RunNotFound, ServiceDraining, TooManyRuns
from haystream_service.run.ending import Cancelled, Completed, Disconnected, Drained
from haystream_service.run.quota import Quota
from haystream_service.run.store import EndedRun
from tests.bare_runs import WORD, Collector, never, saying, writer_of
from tests.clock import turns
from tests.house import Follower, house_of

if TYPE_CHECKING:
    from haystream_service.run.ending import Ending


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
