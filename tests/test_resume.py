"""Runs that outlive their connection: read again, read by several, attached to, cancelled, and forgotten."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from haystream.v1 import chat_pb2
from haystream_service.run.ending import Completed, Disconnected
from tests.calls import all_events, complaint_of, kinds_of, text_of, trailers_of
from tests.conftest import Served, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.calls import Complaint
    from tests.fakes import Stage

CONTINUE = chat_pb2.ON_DISCONNECT_CONTINUE
ASK = chat_pb2.ChatRequest(query="q", run_id="r", on_disconnect=CONTINUE)


@pytest.fixture(params=["fake", "threaded", "agent"])
async def speaker(request: pytest.FixtureRequest, stage: Stage) -> AsyncIterator[Served]:
    """A service with a generator of each kind in turn."""
    async with served(default_pipeline=request.param) as running:
        yield running
        stage.proceed.set()


def resume(
    running: Served, after_seq: int = 0
) -> grpc.aio.UnaryStreamCall[chat_pb2.ResumeRequest, chat_pb2.ResumeResponse]:
    """Read the run again."""
    return running.stub.Resume(chat_pb2.ResumeRequest(run_id="r", after_seq=after_seq))


async def first_of(running: Served, request: chat_pb2.ChatRequest, count: int) -> list[chat_pb2.Event]:
    """Start a run, read until there were that many pieces of text, and leave."""
    call = running.stub.Chat(request)
    reader = aiter(call)
    events = [(await anext(reader)).event]
    while text_of(events).count("word") < count:
        events.append((await anext(reader)).event)
    call.cancel()
    return events


async def refusal_of(call: grpc.aio.UnaryStreamCall[chat_pb2.ResumeRequest, chat_pb2.ResumeResponse]) -> Complaint:
    """Return how a Resume ends that does not end well."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    return complaint_of(caught.value)


async def until(condition: Callable[[], bool]) -> None:
    """Let the service work until something that nobody is told of has happened."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)


async def test_a_run_that_continues_is_read_on_from_where_its_reader_left(speaker: Served, stage: Stage) -> None:
    """Nothing twice, nothing missing, and the same end."""
    stage.chunks, stage.more = 5, 3
    before = await first_of(speaker, ASK, 2)
    call = resume(speaker, before[-1].seq)
    stage.proceed.set()
    after = await all_events(call)
    assert text_of(before) + text_of(after) == "word " * 8
    seqs = [event.seq for event in (*before, *after)]
    assert seqs == sorted(set(seqs))
    assert kinds_of(after)[-1] == "finished"
    assert await call.code() is grpc.StatusCode.OK
    assert trailers_of(await call.trailing_metadata()) == {"x-run-id": "r", "x-last-seq": str(after[-1].seq)}


async def test_a_run_that_continues_comes_to_its_end_without_a_reader(speaker: Served, stage: Stage) -> None:
    """However much it says, nothing holds it back; its log keeps the newest."""
    await first_of(speaker, ASK, 0)
    stage.more = 100
    stage.proceed.set()
    async with asyncio.timeout(5):
        await speaker.runs.until_idle()
    events = await all_events(resume(speaker))
    assert kinds_of(events)[0] == "started"
    assert text_of(events) == "word " * 100
    assert kinds_of(events)[-1] == "finished"


async def test_several_readers_get_the_same(fake: Served, stage: Stage) -> None:
    """They do not take words from each other, and those who come late get all there was."""
    stage.chunks, stage.more = 3, 3
    call = fake.stub.Chat(ASK)
    await stage.waiting.wait()
    readers = [asyncio.create_task(all_events(resume(fake))) for _ in range(3)]
    stage.proceed.set()
    answers = [await all_events(call), *await asyncio.gather(*readers), await all_events(resume(fake))]
    assert {text_of(events) for events in answers} == {"word " * 6}
    assert {kinds_of(events)[-1] for events in answers} == {"finished"}
    assert len(stage.received) == 1


async def test_what_replay_no_longer_holds_is_named(stage: Stage) -> None:
    """A gap, and then the newest: nothing is lost silently."""
    stage.chunks, stage.text = 200, "x" * 100
    stage.proceed.set()
    async with served(default_pipeline="fake", replay_bytes=8000, queue_bytes=1000) as running:
        first = await all_events(running.stub.Chat(ASK))
        events = await all_events(resume(running))
        whole = await all_events(resume(running, events[0].gap.to_seq))
    assert kinds_of(events)[0] == "gap"
    gap = events[0].gap
    assert gap.from_seq == 1
    assert events[0].seq == gap.to_seq
    assert 0 < len(text_of(events)) < len(text_of(first))
    assert text_of(first).endswith(text_of(events))
    assert len(text_of(events)) == 100 * (events[-2].seq - gap.to_seq)
    assert "gap" not in kinds_of(whole)


async def test_a_run_without_a_reader_is_stopped_when_its_grace_is_over(speaker: Served, stage: Stage) -> None:
    """Then nobody can read it any more."""
    request = chat_pb2.ChatRequest(query="q", run_id="r", on_disconnect=CONTINUE, disconnect_grace=Duration(nanos=1))
    stage.chunks = 1
    await first_of(speaker, request, 1)
    [run] = speaker.runs
    async with asyncio.timeout(5):
        await speaker.runs.until_idle()
    assert run.ending == Disconnected()
    complaint = await refusal_of(resume(speaker))
    assert (complaint.code, complaint.reason) == ("NOT_FOUND", "RUN_NOT_FOUND")


async def test_a_reader_who_comes_back_within_the_grace_keeps_the_run_alive(fake: Served, stage: Stage) -> None:
    """The grace begins anew when that one leaves."""
    request = chat_pb2.ChatRequest(query="q", run_id="r", on_disconnect=CONTINUE, disconnect_grace=Duration(seconds=60))
    stage.chunks = 1
    await first_of(fake, request, 1)
    [run] = fake.runs
    await until(lambda: run.is_in_grace)
    call = resume(fake)
    await anext(aiter(call))
    assert run.has_readers
    stage.proceed.set()
    await all_events(call)
    assert run.ending == Completed()


async def test_the_same_id_attaches_instead_of_running_twice(speaker: Served, stage: Stage) -> None:
    """A request that is sent again is not billed again, while the run goes on and after it."""
    stage.chunks, stage.more = 2, 2
    request = chat_pb2.ChatRequest(query="q", run_id="r")
    first = speaker.stub.Chat(request)
    await stage.waiting.wait()
    second = speaker.stub.Chat(request)
    assert (await anext(aiter(second))).event.started.run_id == "r"
    stage.proceed.set()
    answers = [await all_events(first), await all_events(speaker.stub.Chat(request))]
    assert {text_of(events) for events in answers} == {"word " * 4}
    await all_events(second)
    assert stage.said == 4


async def test_the_same_id_with_another_question_is_refused(fake: Served, stage: Stage) -> None:
    """While the run goes on and after it; the provider's key and the ways to read are not part of the question."""
    stage.chunks = 1
    call = fake.stub.Chat(chat_pb2.ChatRequest(query="q", run_id="r"))
    await stage.waiting.wait()
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(fake.stub.Chat(chat_pb2.ChatRequest(query="other", run_id="r")))
        complaint = complaint_of(caught.value)
        assert (complaint.code, complaint.reason) == ("ALREADY_EXISTS", "RUN_EXISTS")
        stage.proceed.set()
        await all_events(call)
    assert text_of(await all_events(fake.stub.Chat(ASK))) == "word "
    assert len(stage.received) == 1


async def test_a_second_caller_keeps_the_run_alive_when_the_first_leaves(fake: Served, stage: Stage) -> None:
    """A client whose connection broke and who asks again finds its run, whatever the service has noticed by then."""
    stage.chunks, stage.more = 1, 1
    request = chat_pb2.ChatRequest(query="q", run_id="r")
    first = fake.stub.Chat(request)
    await stage.waiting.wait()
    second = fake.stub.Chat(request)
    reader = aiter(second)
    events = [(await anext(reader)).event]
    first.cancel()
    stage.proceed.set()
    events += [response.event async for response in reader]
    assert text_of(events) == "word word "
    assert kinds_of(events)[-1] == "finished"


async def test_an_id_is_free_again_when_its_run_was_left(fake: Served, stage: Stage) -> None:
    """Nobody can read that run, so the same question runs anew."""
    request = chat_pb2.ChatRequest(query="q", run_id="r")
    call = fake.stub.Chat(request)
    await stage.waiting.wait()
    call.cancel()
    async with asyncio.timeout(5):
        await stage.cancelled.wait()
    stage.proceed.set()
    assert kinds_of(await all_events(fake.stub.Chat(request)))[-1] == "finished"
    assert len(stage.received) == 2


async def test_an_ended_run_is_forgotten_after_its_time(stage: Stage) -> None:
    """Neither Resume nor Cancel know it then."""
    stage.proceed.set()
    async with served(default_pipeline="fake", replay_seconds=0.05) as running:
        await all_events(running.stub.Chat(ASK))
        await until(lambda: not len(running.service.store))
        complaint = await refusal_of(resume(running))
        assert (complaint.code, complaint.reason) == ("NOT_FOUND", "RUN_NOT_FOUND")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Cancel(chat_pb2.CancelRequest(run_id="r"))
    assert complaint_of(caught.value).reason == "RUN_NOT_FOUND"


async def test_a_failed_run_can_be_read_again_to_the_same_end(fake: Served, stage: Stage) -> None:
    """Typed as the first time."""
    stage.chunks, stage.error = 2, TimeoutError("sk-secret-secret")
    stage.proceed.set()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(fake.stub.Chat(ASK))
    first = complaint_of(caught.value)
    assert first == await refusal_of(resume(fake))
    assert (first.code, first.reason) == ("DEADLINE_EXCEEDED", "PROVIDER_TIMEOUT")


@pytest.mark.parametrize(
    ("run_id", "after_seq", "code", "words"),
    [
        ("", 0, "INVALID_ARGUMENT", "1 to 64 letters"),
        ("no spaces", 0, "INVALID_ARGUMENT", "1 to 64 letters"),
        ("nobody", 0, "NOT_FOUND", "no run 'nobody'"),
        ("r", 99, "INVALID_ARGUMENT", "has come to 2"),
    ],
)
async def test_a_resume_that_makes_no_sense_is_refused(
    fake: Served, stage: Stage, run_id: str, after_seq: int, code: str, words: str
) -> None:
    """With the field and the cure."""
    stage.proceed.set()
    await all_events(fake.stub.Chat(ASK))
    complaint = await refusal_of(fake.stub.Resume(chat_pb2.ResumeRequest(run_id=run_id, after_seq=after_seq)))
    assert complaint.code == code
    assert words in complaint.message


async def test_resume_and_cancel_are_never_refused_for_want_of_room(stage: Stage) -> None:
    """They are what ends or uses the runs that take it; so is a request that attaches."""
    stage.chunks = 1
    async with served(default_pipeline="fake", max_runs=1) as running:
        call = running.stub.Chat(ASK)
        await stage.waiting.wait()
        resumed, attached = resume(running), running.stub.Chat(ASK)
        assert (await anext(aiter(resumed))).event.started.run_id == "r"
        assert (await anext(aiter(attached))).event.started.run_id == "r"
        await running.stub.Cancel(chat_pb2.CancelRequest(run_id="r"))
        for reading in (call, attached):
            with pytest.raises(grpc.aio.AioRpcError):
                await all_events(reading)
        assert (await refusal_of(resumed)).reason == "RUN_CANCELLED"


async def test_a_run_goes_at_the_speed_of_its_caller_however_fast_another_reads(stage: Stage) -> None:
    """Back-pressure comes from the Chat while there is one, and from the reader ahead when there is none."""
    stage.chunks, stage.text = 20_000, "x" * 1000
    async with served(default_pipeline="fake", replay_bytes=40_000_000) as running:
        call = running.stub.Chat(ASK)
        await anext(aiter(call))
        other = asyncio.create_task(all_events(resume(running)))
        assert 0 < await stage.stands_still() < 20_000  # HTTP/2's window fills, then the queue
        assert not other.done()
        call.cancel()
        await stage.waiting.wait()
        stage.proceed.set()
        events = await other
    assert stage.said == 20_000
    assert kinds_of(events)[-1] == "finished"
    assert len(text_of(events)) == 20_000_000


async def test_a_deadline_ends_the_readers_stream_and_not_the_run_that_continues(fake: Served, stage: Stage) -> None:
    """The caller asked for a run that outlives them."""
    stage.chunks = 1
    call = fake.stub.Chat(ASK, timeout=0.5)
    await stage.waiting.wait()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    stage.proceed.set()
    assert kinds_of(await all_events(resume(fake)))[-1] == "finished"
