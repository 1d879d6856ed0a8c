"""What one caller may have at once and begin in a minute; neither a refusal nor a second reader costs a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystream.v1 import chat_pb2
from haystream_service.errors import RunExists, ServiceDraining, TooManyRuns, TooManyRunsAMinute, TooManyRunsOfYours
from haystream_service.run.ending import Disconnected
from haystream_service.run.quota import Quota, Rates
from haystream_service.run.run import Budget, OnDisconnect
from haystream_service.run.runs import Capacity, Runs
from haystream_service.run.store import MemoryStore, RunRecord
from tests.bare_runs import FAILURE, ROOMY, never
from tests.calls import all_events, complaint_of, kinds_of
from tests.clock import ClockedLoop, clocked, turns
from tests.conftest import served

if TYPE_CHECKING:
    from haystream_service.run.run import Run
    from tests.calls import Complaint
    from tests.conftest import Served
    from tests.fakes import Stage

BUDGET = Budget(10_000, ROOMY)


def runs_of(max_runs: int = 100) -> Runs:
    """Return the runs of a service that has begun none."""
    return Runs(Capacity(max_runs, 100, ROOMY), MemoryStore(ROOMY, 60, ROOMY), lambda _: FAILURE)


def note_nothing(run: Run, error: BaseException | None) -> None:
    """Take no note of how a run ends."""


def begin(runs: Runs, quota: Quota, run_id: str, principal: str = "me") -> None:
    """Start a run that says nothing, and lasts."""
    record = RunRecord(run_id, principal, "p", b"")
    runs.start(record, quota, BUDGET, OnDisconnect(goes_on=True), never, note_nothing)


@given(per_minute=st.integers(1, 500), after_seconds=st.floats(0, 200), pause=st.floats(0, 3))
def test_a_minutes_worth_may_come_at_once_and_then_as_many_as_fit(
    per_minute: int, after_seconds: float, pause: float
) -> None:
    """Whoever waits as long as it was told is let in, and a millisecond earlier is not."""
    rates, now = Rates(), after_seconds
    for _ in range(per_minute):
        assert rates.wait_seconds("me", per_minute, now) == 0
        rates.begin("me", per_minute, now)
    now += pause
    wait = rates.wait_seconds("me", per_minute, now)
    assert wait <= max(0.0, 60 / per_minute - pause) + 0.0011
    if wait > 0.002:
        assert rates.wait_seconds("me", per_minute, now + wait - 0.0015) > 0
    assert rates.wait_seconds("me", per_minute, now + wait) == 0


def test_nobody_begins_more_in_a_minute_than_the_burst_and_the_rate_allow() -> None:
    """However it spreads them."""
    rates, begun = Rates(), 0
    for tick in range(10_000):
        if not rates.wait_seconds("me", 30, tick * 0.012):
            rates.begin("me", 30, tick * 0.012)
            begun += 1
    assert begun == 30 + 59  # two minutes: a minute's worth at once, and one every two seconds since


def test_a_rate_holds_for_each_principal_alone_and_may_change() -> None:
    """What one has used is nobody else's, and a new limit counts at once."""
    rates = Rates()
    rates.begin("me", 1, 0)
    assert rates.wait_seconds("me", 1, 0) == 60
    assert rates.wait_seconds("you", 1, 0) == 0
    assert rates.wait_seconds("me", 2, 0) == 30


def test_the_wait_is_rounded_up_to_what_a_caller_can_be_told() -> None:
    """A seventh of a minute is no whole number of milliseconds, and who waits that long is not to come too early."""
    rates = Rates()
    for _ in range(7):
        rates.begin("me", 7, 0)
    assert rates.wait_seconds("me", 7, 0) == 8.572


def test_principals_who_have_all_of_it_again_are_forgotten() -> None:
    """There may be millions over time."""
    rates = Rates()
    for number in range(10_000):
        rates.begin(f"p{number}", 10, number * 0.1)
        assert len(rates) <= 60  # each has it again in six seconds
    rates.begin("slow", 1, 2000)
    rates.begin("fast", 60, 2000)
    rates.begin("late", 60, 2059.9)
    assert len(rates) == 3  # `fast` has it again, and is behind one that has not
    rates.begin("last", 60, 2060)
    assert len(rates) == 2


async def test_runs_at_once_are_counted_for_each_principal() -> None:
    """One more is refused, another's is not, and a place is free again as soon as a run is over."""
    runs, quota = runs_of(), Quota(max_runs=2)
    begin(runs, quota, "1")
    begin(runs, quota, "2")
    with pytest.raises(TooManyRunsOfYours, match="2 runs"):
        begin(runs, quota, "3")
    begin(runs, quota, "1", "you")
    await runs.cancel("1", "me")
    await turns()
    begin(runs, quota, "3")
    assert runs.principals == 2
    await runs.drain(0)
    assert (len(runs), runs.principals) == (0, 0)


async def test_the_service_as_a_whole_comes_first() -> None:
    """Then what is the principal's own: at once, and a minute."""
    quota = Quota(max_runs=1, runs_per_minute=1)
    full = runs_of(max_runs=1)
    begin(full, quota, "1")
    with pytest.raises(TooManyRuns):
        full.admit("me", quota)
    runs = runs_of()
    begin(runs, quota, "1")
    with pytest.raises(TooManyRunsOfYours):
        runs.admit("me", quota)
    with pytest.raises(TooManyRunsAMinute):
        runs.admit("me", Quota(runs_per_minute=1))
    runs.admit("me", Quota())
    for each in (full, runs):
        await each.drain(0)
        with pytest.raises(ServiceDraining):
            each.admit("me", quota)


def test_only_a_run_that_begins_costs_one_of_the_minute() -> None:
    """No refusal does, whatever its reason."""

    async def story(loop: ClockedLoop) -> None:
        runs, quota = runs_of(), Quota(max_runs=2, runs_per_minute=2)
        begin(runs, quota, "same")
        for _ in range(5):
            runs.admit("me", quota)
            with pytest.raises(RunExists):
                begin(runs, quota, "same")
        begin(runs, quota, "other")
        for _ in range(5):
            with pytest.raises(TooManyRunsOfYours):
                begin(runs, quota, "third")
        await runs.cancel("other", "me")
        await loop.later(1)
        with pytest.raises(TooManyRunsAMinute) as caught:
            begin(runs, quota, "third")
        assert caught.value.retry_seconds == 29
        await loop.later(29)
        begin(runs, quota, "third")
        await runs.cancel("same", "me")
        await runs.cancel("third", "me")
        await loop.later()
        assert len(runs) == 0

    with clocked() as loop:
        loop.run_until_complete(story(loop))


async def refused(running: Served, run_id: str = "") -> Complaint:
    """Return how a run is refused, before anything was sent."""
    call = running.stub.Chat(chat_pb2.ChatRequest(query="q", run_id=run_id))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    return complaint_of(caught.value)


async def test_a_caller_with_all_its_runs_is_told_to_try_again(stage: Stage) -> None:
    """At the limit it is let in, and one past it not; attaching to a run is no other run."""
    async with served(default_pipeline="fake", principal_max_runs=2) as running:
        readers = [
            aiter(running.stub.Chat(chat_pb2.ChatRequest(query="q", run_id=run_id))) for run_id in ("a", "b", "a")
        ]
        for reader in readers:
            await anext(reader)
        assert len(running.runs) == 2
        for run_id in ("", "c"):
            complaint = await refused(running, run_id)
            assert (complaint.code, complaint.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_RUNS_OF_YOURS")
            assert complaint.retry_seconds == 1
        stage.proceed.set()
        for reader in readers:
            assert [response.event.WhichOneof("kind") async for response in reader][-1] == "finished"
        await running.runs.until_idle()
        assert kinds_of(await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q"))))[-1] == "finished"


async def test_a_caller_that_begins_too_often_is_told_when_the_next_one_fits(stage: Stage) -> None:
    """Runs that are attached to, or were refused, count for nothing."""
    stage.proceed.set()
    async with served(default_pipeline="fake", principal_runs_per_minute=2) as running:
        for run_id in ("a", "a", "b"):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", run_id=run_id)))
            with pytest.raises(grpc.aio.AioRpcError):
                await all_events(running.stub.Chat(chat_pb2.ChatRequest(run_id="wrong")))
        for run_id in ("", "c"):
            complaint = await refused(running, run_id)
            assert (complaint.code, complaint.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_RUNS_A_MINUTE")
            assert complaint.retry_seconds is not None
            assert 20 < complaint.retry_seconds <= 30
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", run_id="b")))


async def test_what_has_no_place_is_refused_before_it_is_looked_through(stage: Stage) -> None:
    """Also with an id of the caller's own: who comes too often costs little."""
    stage.proceed.set()
    async with served(default_pipeline="fake", principal_runs_per_minute=1) as running:
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        request = chat_pb2.ChatRequest(query="q", run_id="mine")
        request.inputs.fields["llm"].number_value = float("nan")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(request))
        assert complaint_of(caught.value).reason == "TOO_MANY_RUNS_A_MINUTE"


async def test_a_run_that_its_reader_left_still_counts_until_it_is_over(stage: Stage) -> None:
    """A caller cannot get more work done by hanging up."""
    async with served(default_pipeline="fake", principal_max_runs=1) as running:
        request = chat_pb2.ChatRequest(query="q", on_disconnect=chat_pb2.ON_DISCONNECT_CONTINUE)
        call = running.stub.Chat(request)
        await anext(aiter(call))
        call.cancel()
        assert (await refused(running)).reason == "TOO_MANY_RUNS_OF_YOURS"
        for run in running.runs:
            run.stop(Disconnected())
        await running.runs.until_idle()
        stage.proceed.set()
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))


@pytest.mark.parametrize(
    ("quota", "limit"),
    [(Quota(max_runs=2), 8), (Quota(), 50), (Quota(is_shared=False), 100), (Quota(max_runs=90), 360)],
)
def test_readers_fit_the_runs_that_a_caller_may_have(quota: Quota, limit: int) -> None:
    """Who may have any number leaves half of all readers to the others, where there are others."""
    assert quota.max_readers(100) == limit


def test_the_only_reader_of_a_service_is_anybodys() -> None:
    """Half of one is none."""
    assert Quota().max_readers(1) == 1
