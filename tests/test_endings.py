"""Every way in which a run can end, one test per row of the table of endings."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.run.ending import Cancelled, DeadlineExceeded, Disconnected, Drained, ReaderTooSlow
from tests.calls import all_events, complaint_of, kinds_of, text_of
from tests.conftest import ROOT, Served, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haystream_service.run.run import Run
    from tests.calls import Complaint
    from tests.fakes import Stage

ASK = chat_pb2.ChatRequest(query="q")
KINDS = ["fake", "threaded", "agent"]  # an async generator, a sync one, and an Agent in its second turn
READER = """
import sys, grpc
from haystream.v1 import chat_pb2, chat_pb2_grpc

channel = grpc.insecure_channel(sys.argv[1])
for response in chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="q")):
    print(response.event.WhichOneof("kind"), flush=True)
"""


class ProviderError(Exception):
    """An error shaped like those of openai and anthropic, with words that nobody may see."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"Error code: {status} - key sk-secret at /etc/passwd")
        self.response = httpx.Response(status, headers=headers)


class APITimeoutError(Exception):
    """A timeout by its name only, as the providers' packages have it."""


class APIConnectionError(Exception):
    """A lost connection by its name only."""


@pytest.fixture(params=KINDS)
async def speaker(request: pytest.FixtureRequest, stage: Stage) -> AsyncIterator[Served]:
    """A service with a generator of each kind in turn."""
    async with served(default_pipeline=request.param) as running:
        yield running
        stage.proceed.set()


def only_run(running: Served) -> Run:
    """Return the one run that goes on."""
    runs = list(running.runs)
    assert len(runs) == 1
    return runs[0]


async def gone(running: Served) -> None:
    """Wait until no run goes on."""
    async with asyncio.timeout(5):
        await running.runs.until_idle()


async def failure(running: Served, timeout_seconds: float | None = None) -> tuple[Complaint, list[chat_pb2.Event]]:
    """Chat until the error comes; return it and the events before it."""
    events: list[chat_pb2.Event] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for response in running.stub.Chat(ASK, timeout=timeout_seconds):
            events.append(response.event)  # noqa: PERF401 - those before the error are wanted
    return complaint_of(caught.value), events


async def test_a_run_that_came_to_its_end_says_finished(speaker: Served, stage: Stage) -> None:
    """The last event is `finished`, and the status OK."""
    stage.chunks = 2
    stage.proceed.set()
    call = speaker.stub.Chat(ASK)
    events = await all_events(call)
    assert text_of(events) == "word word "
    assert kinds_of(events)[0] == "started"
    assert kinds_of(events)[-1] == "finished"
    assert kinds_of(events).count("finished") == 1
    assert events[-1].finished.reason == chat_pb2.FINISH_REASON_STOP
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", "STOP"),
        ("length", "LENGTH"),
        ("tool_calls", "TOOL_CALLS"),
        ("content_filter", "CONTENT_FILTER"),
        (None, "INCOMPLETE"),
    ],
)
async def test_finished_tells_why_the_answer_ends_there(
    speaker: Served, stage: Stage, said: str | None, reason: str
) -> None:
    """An answer whose provider never said why it ended may be cut short, and does not look complete."""
    stage.chunks, stage.meta = 1, {"finish_reason": said}
    stage.proceed.set()
    events = await all_events(speaker.stub.Chat(ASK))
    assert chat_pb2.FinishReason.Name(events[-1].finished.reason) == f"FINISH_REASON_{reason}"


@pytest.mark.parametrize(
    ("error", "code", "reason", "retry_seconds"),
    [
        (ProviderError(401), "FAILED_PRECONDITION", "PROVIDER_AUTH", None),
        (ProviderError(403), "FAILED_PRECONDITION", "PROVIDER_AUTH", None),
        (ProviderError(429, {"retry-after": "7"}), "RESOURCE_EXHAUSTED", "PROVIDER_BUSY", 7),
        (ProviderError(429), "RESOURCE_EXHAUSTED", "PROVIDER_BUSY", 1),
        (ProviderError(400), "INVALID_ARGUMENT", "PROVIDER_REJECTED", None),
        (ProviderError(500), "UNAVAILABLE", "PROVIDER_UNAVAILABLE", 1),
        (ProviderError(504), "DEADLINE_EXCEEDED", "PROVIDER_TIMEOUT", None),
        (APIConnectionError("https://10.0.0.1/?key=sk-secret"), "UNAVAILABLE", "PROVIDER_UNAVAILABLE", 1),
        (APITimeoutError("sk-secret"), "DEADLINE_EXCEEDED", "PROVIDER_TIMEOUT", None),
        (TimeoutError("sk-secret"), "DEADLINE_EXCEEDED", "PROVIDER_TIMEOUT", None),
        (ValueError("sk-secret in /etc/passwd"), "INTERNAL", "COMPONENT_FAILED", None),
    ],
)
async def test_a_failed_component_ends_typed_and_without_its_words(
    speaker: Served, stage: Stage, error: Exception, code: str, reason: str, retry_seconds: float | None
) -> None:
    """What was streamed before arrives, then a status that says what to do; never the exception's text."""
    stage.chunks, stage.error = 3, error
    stage.proceed.set()
    complaint, events = await failure(speaker)
    assert (complaint.code, complaint.reason, complaint.retry_seconds) == (code, reason, retry_seconds)
    assert text_of(events) == "word word word "
    assert complaint.metadata == {
        "run_id": events[0].started.run_id,
        "last_seq": str(events[-1].seq),
        "component": "agent" if "tool_result" in kinds_of(events) else "llm",
    }
    assert complaint.trailers == {"x-run-id": events[0].started.run_id, "x-last-seq": str(events[-1].seq)}
    assert "sk-" not in complaint.message
    assert "/etc" not in complaint.message


async def test_a_defect_ends_with_fixed_words_and_a_request_id(fake: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks in the service itself, its text stays inside."""

    def explode(*_: object) -> None:
        raise RuntimeError("sk-secret")

    monkeypatch.setattr(fake.service.runs, "start", explode)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(fake.stub.Chat(ASK, metadata=(("x-request-id", "req-1"),)))
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason) == ("INTERNAL", "INTERNAL")
    assert complaint.metadata == {"request_id": "req-1"}
    assert "sk-" not in complaint.message


async def test_a_defect_in_the_middle_says_how_far_the_run_came(fake: Served, stage: Stage) -> None:
    """The run's id and the request's, for whoever looks into the log."""

    class Exploding:
        def to_dict(self) -> dict[str, Any]:
            raise RuntimeError("sk-secret")

    stage.chunks, stage.meta = 2, {"extra": Exploding()}
    stage.proceed.set()
    complaint, events = await failure(fake)
    assert (complaint.code, complaint.reason) == ("INTERNAL", "INTERNAL")
    assert complaint.metadata["run_id"] == events[0].started.run_id
    assert complaint.metadata["last_seq"] == str(events[-1].seq)
    assert complaint.metadata["request_id"]
    assert text_of(events) == "word word "
    assert "sk-" not in complaint.message


async def stopped(running: Served, stage: Stage) -> None:
    """Wait until the model has stopped: an async one by itself, one in a thread at the next of the chunks it has."""
    await gone(running)
    in_thread = running.service.threads.orphans
    assert stage.cancelled.is_set() == (not in_thread)
    stage.more = 1000
    stage.proceed.set()
    async with asyncio.timeout(5):
        await stage.cancelled.wait()
    assert stage.said <= stage.chunks + in_thread


async def test_a_caller_who_cancels_stops_the_model(speaker: Served, stage: Stage) -> None:
    """An async one is cancelled while it waits, one in a thread at its next chunk; nobody can read the run."""
    call = speaker.stub.Chat(ASK)
    await stage.waiting.wait()
    run = only_run(speaker)
    call.cancel()
    await stopped(speaker, stage)
    assert run.ending == Disconnected()
    assert len(speaker.service.store) == 0


async def test_a_caller_who_is_killed_stops_the_model(speaker: Served, stage: Stage) -> None:
    """A process that dies says no goodbye; its connection's end is enough."""
    stage.chunks = 1
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, speaker.address, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    await stage.waiting.wait()
    process.send_signal(signal.SIGKILL)
    await stopped(speaker, stage)
    await process.wait()


async def test_a_run_that_is_cancelled_by_name_tells_its_reader(speaker: Served, stage: Stage) -> None:
    """Cancel comes from anywhere; cancelling again changes nothing, and what was said can still be read."""
    stage.chunks = 2
    reading = asyncio.create_task(failure(speaker))
    await stage.waiting.wait()
    run = only_run(speaker)
    for _ in range(2):
        await speaker.stub.Cancel(chat_pb2.CancelRequest(run_id=run.id))
    complaint, events = await reading
    assert run.ending == Cancelled()
    assert (complaint.code, complaint.reason, complaint.retry_seconds) == ("ABORTED", "RUN_CANCELLED", None)
    assert text_of(events) == "word word "
    await stopped(speaker, stage)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(speaker.stub.Resume(chat_pb2.ResumeRequest(run_id=run.id)))
    assert complaint_of(caught.value).reason == "RUN_CANCELLED"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_who_leaves_in_the_middle_of_a_write_stops_the_model(stage: Stage, kind: str) -> None:
    """A write that waits for a reader who will never come back ends with it, and so does a callback that waits."""
    stage.chunks, stage.text = 100_000, "x" * 1000
    async with served(default_pipeline=kind) as running:
        responses = running.stub.Chat(ASK)
        reader = aiter(responses)
        while not (await anext(reader)).event.HasField("text"):
            pass
        run = only_run(running)
        responses.cancel()
        await gone(running)
        async with asyncio.timeout(5):
            await stage.cancelled.wait()
    assert run.ending == Disconnected()
    assert stage.said < stage.chunks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whose", ["caller", "service"])
async def test_a_deadline_stops_the_model_and_says_so(stage: Stage, kind: str, whose: str) -> None:
    """The caller's deadline counts, and so does the longest time that the service gives."""
    settings: dict[str, Any] = {"max_run_seconds": 0.3} if whose == "service" else {}
    async with served(default_pipeline=kind, **settings) as running:
        call = running.stub.Chat(ASK, timeout=1.234 if whose == "caller" else None)  # the header rounds it up
        await stage.waiting.wait()
        run = only_run(running)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(call)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await stopped(running, stage)
        if whose == "service":
            assert complaint_of(caught.value).reason == "DEADLINE_EXCEEDED"
    assert run.ending == DeadlineExceeded()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_who_takes_nothing_is_let_go(stage: Stage, kind: str) -> None:
    """It finds out, when it reads again, what happened and how far it came, and can come back for what there was."""
    stage.chunks, stage.text = 20_000, "x" * 1000
    async with served(default_pipeline=kind, slow_reader_seconds=0.3) as running:
        responses = running.stub.Chat(ASK)
        reader = aiter(responses)
        first = await anext(reader)
        run = only_run(running)
        await gone(running)
        assert run.ending == ReaderTooSlow()
        assert first.event.started.run_id == run.id
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(10):
                async for _ in reader:
                    pass
        complaint = complaint_of(caught.value)
        last_seq = int(complaint.metadata["last_seq"])
        assert await running.service.store.find(run.record.key) is not None
    assert (complaint.code, complaint.reason, complaint.retry_seconds) == ("ABORTED", "SLOW_READER", 1)
    assert last_seq > 1
    assert stage.cancelled.is_set()


async def test_a_service_that_shuts_down_lets_runs_finish_and_takes_no_new_ones(stage: Stage) -> None:
    """It lives and is not ready; a watcher of its health who stays does not hold it up."""
    stage.chunks = 2
    stack = AsyncExitStack()
    running = await stack.enter_async_context(served(default_pipeline="fake", drain_seconds=20))
    async with grpc.aio.insecure_channel(running.address) as channel:
        health, stub = health_pb2_grpc.HealthStub(channel), chat_pb2_grpc.ChatServiceStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="haystream.v1.ChatService"))
        watcher = aiter(watch)
        assert (await anext(watcher)).status == health_pb2.HealthCheckResponse.SERVING
        call = stub.Chat(ASK)
        await stage.waiting.wait()
        closing = asyncio.create_task(stack.aclose())
        assert (await anext(watcher)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        alive = await health.Check(health_pb2.HealthCheckRequest())
        assert alive.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(stub.Chat(ASK))
        refusal = complaint_of(caught.value)
        assert (refusal.code, refusal.reason, refusal.retry_seconds) == ("UNAVAILABLE", "DRAINING", 1)
        stage.proceed.set()
        assert kinds_of(await all_events(call))[-1] == "finished"
        async with asyncio.timeout(5):
            await closing


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_that_shuts_down_ends_what_does_not_finish(stage: Stage, kind: str) -> None:
    """After the drain the rest ends typed, with the place where it stopped."""
    stage.chunks = 2
    failed: asyncio.Task[tuple[Complaint, list[chat_pb2.Event]]]
    async with served(default_pipeline=kind, drain_seconds=0.1) as running:
        failed = asyncio.create_task(failure(running))
        await stage.waiting.wait()
        run = only_run(running)
        await running.runs.drain(grace_seconds=0.1)
        complaint, events = await failed
        await stopped(running, stage)
    assert run.ending == Drained()
    assert (complaint.code, complaint.reason, complaint.retry_seconds) == ("UNAVAILABLE", "DRAINING", 1)
    assert complaint.metadata["last_seq"] == str(events[-1].seq)
