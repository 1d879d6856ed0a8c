"""Every limit of a service, at it and one past it: what is within is served, and what is over is refused in words."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.entrance.transport import HANDSHAKE_SECONDS, MAX_METADATA_BYTES
from haystream_service.run.ending import Disconnected
from haystream_service.sizes import MAX_NAMES, MAX_PARTS, MAX_PARTS_IN_ALL
from haystream_service.structs import MAX_DEPTH, MAX_VALUES
from tests.calls import all_events, complaint_of, kinds_of
from tests.conftest import served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from google.protobuf.struct_pb2 import Struct

    from tests.calls import Complaint
    from tests.conftest import Served
    from tests.fakes import Stage

ASK = chat_pb2.ChatRequest(query="q")
GO_ON = chat_pb2.ChatRequest(query="q", on_disconnect=chat_pb2.ON_DISCONNECT_CONTINUE)
TEXT_BYTES, MESSAGES = 1000, 20
USER, TOOL = chat_pb2.ROLE_USER, chat_pb2.ROLE_TOOL
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, SETTINGS_READ = b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1\0\0\0\0"
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0)]  # a reader that takes nothing is soon known for it
FULL = chat_pb2.ChatRequest(query="q", pipeline="threaded")


def text(part: str) -> chat_pb2.ContentPart:
    """Return a part of a message."""
    return chat_pb2.ContentPart(text=part)


def of_user(*parts: chat_pb2.ContentPart) -> chat_pb2.ChatMessage:
    """Return a message of the user's."""
    return chat_pb2.ChatMessage(role=USER, parts=parts)


def conversation(*messages: chat_pb2.ChatMessage) -> chat_pb2.ChatRequest:
    """Return a request that has one."""
    return chat_pb2.ChatRequest(conversation=chat_pb2.Conversation(messages=messages))


def query_of(size: int) -> chat_pb2.ChatRequest:
    """Return a query of so many bytes, in half as many letters."""
    return chat_pb2.ChatRequest(query="ä" * (size // 2) + "x" * (size % 2))


def tool_result_of(size: int) -> chat_pb2.ChatRequest:
    """Return a conversation in which a tool has answered so much."""
    result = chat_pb2.ToolCallResult(id="1", name="t", result="x" * size)
    return conversation(chat_pb2.ChatMessage(role=TOOL, tool_results=[result]), of_user(text("q")))


def tool_calls_of(count: int) -> chat_pb2.ChatRequest:
    """Return a conversation with so many calls in one message."""
    calls = [chat_pb2.ToolCall(id=str(number), name="t") for number in range(count)]
    assistant = chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, tool_calls=calls)
    return conversation(of_user(text("q")), assistant, of_user(text("q")))


def tool_results_of(count: int) -> chat_pb2.ChatRequest:
    """Return a conversation with so many results in one message."""
    results = [chat_pb2.ToolCallResult(id=str(number), name="t", result="r") for number in range(count)]
    return conversation(chat_pb2.ChatMessage(role=TOOL, tool_results=results), of_user(text("q")))


def parts_in_all(count: int) -> chat_pb2.ChatRequest:
    """Return a conversation with so many parts, as many in each message as may be but in the last."""
    full, rest = divmod(count, MAX_PARTS)
    sizes = [*[MAX_PARTS] * full, *([rest] if rest else [])]
    return conversation(*(of_user(*[text("x")] * size) for size in sizes))


def nested(levels: int) -> chat_pb2.ChatRequest:
    """Return inputs with so many objects and lists inside each other, of both kinds."""
    request = chat_pb2.ChatRequest(query="q")
    inner: Any = "x"
    for level in range(levels - 1):
        inner = [inner] if level % 2 else {"a": inner}
    request.inputs.update({"a": inner})
    return request


def values_of(fill: Callable[[chat_pb2.ChatRequest], Struct]) -> Callable[[int], chat_pb2.ChatRequest]:
    """Return what makes a request with so many values, in one of its Structs."""

    def request_of(count: int) -> chat_pb2.ChatRequest:
        request = chat_pb2.ChatRequest(query="q")
        request.generation_kwargs.update({"a": 1, "b": 2})
        fill(request).update({"c": [None] * (count - 3)})
        return request

    return request_of


LIMITS: list[tuple[Callable[[int], chat_pb2.ChatRequest], int, str]] = [
    (query_of, TEXT_BYTES, "query"),
    (lambda size: conversation(of_user(text("x" * size))), TEXT_BYTES, "conversation.messages[0].parts[0].text"),
    (tool_result_of, TEXT_BYTES, "conversation.messages[0].tool_results[0].result"),
    (lambda count: conversation(*[of_user(text("x"))] * count), MESSAGES, "conversation.messages"),
    (lambda count: conversation(of_user(*[text("x")] * count)), MAX_PARTS, "conversation.messages[0].parts"),
    (tool_calls_of, MAX_PARTS, "conversation.messages[1].tool_calls"),
    (tool_results_of, MAX_PARTS, "conversation.messages[0].tool_results"),
    (
        lambda count: chat_pb2.ChatRequest(query="q", streaming_components=["llm"] * count),
        MAX_NAMES,
        "streaming_components",
    ),
    (
        lambda count: chat_pb2.ChatRequest(query="q", include_outputs_from=["llm"] * count),
        MAX_NAMES,
        "include_outputs_from",
    ),
    (nested, MAX_DEPTH, "inputs" + ".a[0]" * (MAX_DEPTH // 2)),
    (values_of(lambda request: request.inputs), MAX_VALUES, "generation_kwargs"),
    (values_of(lambda request: request.generation_kwargs), MAX_VALUES, "generation_kwargs.c"),
]


async def refusal_of(call: grpc.aio.UnaryStreamCall[Any, Any]) -> Complaint:
    """Return how a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return complaint_of(caught.value)


@pytest.fixture
async def limited(stage: Stage) -> AsyncIterator[Served]:
    """A service that takes little, and answers at once."""
    stage.proceed.set()
    async with served(default_pipeline="fake", max_query_bytes=TEXT_BYTES, max_messages=MESSAGES) as running:
        yield running


@pytest.mark.parametrize(("request_of", "limit", "field"), LIMITS)
async def test_a_request_is_looked_at_up_to_its_limit_and_refused_one_past_it(
    limited: Served, stage: Stage, request_of: Callable[[int], chat_pb2.ChatRequest], limit: int, field: str
) -> None:
    """The refusal names the field, and the limit."""
    assert not await is_too_large(limited, request_of(limit))
    stage.received.clear()
    complaint = await refusal_of(limited.stub.Chat(request_of(limit + 1)))
    assert (complaint.code, complaint.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert list(complaint.fields) == [field]
    assert f"at most {limit}" in complaint.fields[field]
    assert stage.received == []


async def test_the_parts_of_a_whole_conversation_have_a_limit_of_their_own(stage: Stage) -> None:
    """A thousand full messages would keep the service from everything else."""
    stage.proceed.set()
    async with served(default_pipeline="fake") as running:
        assert not await is_too_large(running, parts_in_all(MAX_PARTS_IN_ALL))
        complaint = await refusal_of(running.stub.Chat(parts_in_all(MAX_PARTS_IN_ALL + 1)))
        assert f"at most {MAX_PARTS_IN_ALL}" in complaint.fields["conversation.messages"]


async def is_too_large(running: Served, request: chat_pb2.ChatRequest) -> bool:
    """Tell whether a request is refused for its size; the fakes refuse some things for what they are."""
    try:
        await all_events(running.stub.Chat(request))
    except grpc.aio.AioRpcError as error:
        return any("at most" in cure for cure in complaint_of(error).fields.values())
    return False


@pytest.mark.parametrize(
    ("method", "data"),
    [("Chat", b"\xff\xff\xff"), ("Chat", nested(40).SerializeToString()), ("Resume", b"\x0a\x05ab")],
)
async def test_what_cannot_be_read_is_refused_in_words_of_the_contract(
    limited: Served, method: str, data: bytes
) -> None:
    """Also where it is nested deeper than protobuf reads; gRPC alone would tell what its parser says."""
    send = cast("Any", limited.channel).unary_stream(f"/haystream.v1.ChatService/{method}")
    complaint = await refusal_of(send(data))
    assert (complaint.code, complaint.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
    assert "Error" not in complaint.message


async def test_a_single_answer_is_refused_in_such_words_as_well(limited: Served) -> None:
    """Methods that stream nothing have their own way."""
    send = cast("Any", limited.channel).unary_unary("/haystream.v1.ChatService/Cancel")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(b"\xff\xff\xff")
    assert complaint_of(caught.value).reason == "MALFORMED_MESSAGE"


async def test_metadata_has_one_limit_without_chance(limited: Served) -> None:
    """What fits well does always, and what does not never: gRPC's own refusal, with neither name nor value of it."""
    for _ in range(10):
        await all_events(limited.stub.Chat(ASK, metadata=(("x-bulk", "x" * (MAX_METADATA_BYTES - 1000)),)))
        for size in (MAX_METADATA_BYTES - 100, MAX_METADATA_BYTES * 10):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await all_events(limited.stub.Chat(ASK, metadata=(("x-bulk", "secret" * (size // 6)),)))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "secret" not in (caught.value.details() or "")


async def test_one_run_too_many_is_refused_and_waiting_helps(stage: Stage) -> None:
    """Health and descriptions are never refused for it."""
    async with served(default_pipeline="fake", max_runs=1) as running:
        call = running.stub.Chat(ASK)
        await stage.waiting.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(ASK))
        complaint = complaint_of(caught.value)
        assert (complaint.code, complaint.reason, complaint.retry_seconds) == ("RESOURCE_EXHAUSTED", "TOO_MANY_RUNS", 1)
        await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
        stage.proceed.set()
        assert kinds_of(await all_events(call))[-1] == "finished"
        assert kinds_of(await all_events(running.stub.Chat(ASK)))[-1] == "finished"


async def test_one_reader_too_many_is_refused_before_there_is_a_run(stage: Stage) -> None:
    """A Chat as well as a Resume, and without initial metadata; when one leaves there is room."""
    async with served(default_pipeline="fake", max_readers=2) as running:
        chat = running.stub.Chat(chat_pb2.ChatRequest(query="q", run_id="r"))
        await anext(aiter(chat))
        resume = running.stub.Resume(chat_pb2.ResumeRequest(run_id="r"))
        await anext(aiter(resume))
        attaching = running.stub.Chat(chat_pb2.ChatRequest(query="q", run_id="r"))
        for call in (running.stub.Chat(GO_ON), attaching, running.stub.Resume(chat_pb2.ResumeRequest(run_id="r"))):
            complaint = await refusal_of(call)
            assert (complaint.code, complaint.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_READERS")
            assert complaint.retry_seconds == 1
            assert not await call.initial_metadata()
        assert len(running.runs) == 1
        assert len(stage.received) == 1
        stage.proceed.set()
        for reader in (chat, resume):
            assert kinds_of(await all_events(reader))[-1] == "finished"
        assert kinds_of(await all_events(running.stub.Chat(ASK)))[-1] == "finished"


async def closed_within(seconds: float, port: int, data: bytes) -> bool:
    """Tell whether the service closes a connection that says so much and no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    finally:
        writer.close()
    return True


async def test_one_connection_too_many_is_closed_and_its_place_is_free_when_one_goes(limited: Served) -> None:
    """Whoever is connected already is served meanwhile."""
    del limited
    async with served(default_pipeline="fake", max_connections=3) as running:
        await all_events(running.stub.Chat(ASK))
        others = [await asyncio.open_connection("127.0.0.1", running.service.port) for _ in range(2)]
        for reader, _ in others:
            await reader.readexactly(9)  # its settings: this connection counts
        assert await closed_within(5, running.service.port, b"")
        await all_events(running.stub.Chat(ASK))
        others[0][1].close()
        await others[0][1].wait_closed()
        async with grpc.aio.insecure_channel(running.address) as channel:
            await all_events(chat_pb2_grpc.ChatServiceStub(channel).Chat(ASK, wait_for_ready=True, timeout=20))
        others[1][1].close()


async def test_a_connection_that_says_nothing_is_closed(limited: Served) -> None:
    """Nor may it stop in the middle of its greeting, or never say that it has read the settings."""
    said = (b"", PREFACE[:10], PREFACE, PREFACE + SETTINGS)
    closings = [closed_within(HANDSHAKE_SECONDS + 5, limited.service.port, data) for data in said]
    speaks = closed_within(HANDSHAKE_SECONDS + 2, limited.service.port, PREFACE + SETTINGS + SETTINGS_READ)
    assert await asyncio.gather(*closings, speaks) == [True, True, True, True, False]


async def test_one_stream_too_many_on_a_connection_waits_for_another_to_end(stage: Stage) -> None:
    """A Cancel on the same connection waits as well: who uses all its streams needs another one for that."""
    async with served(default_pipeline="fake", max_streams=2) as running:
        calls = [running.stub.Chat(chat_pb2.ChatRequest(query="q", run_id=str(number))) for number in range(2)]
        for call in calls:
            await anext(aiter(call))
        third = asyncio.create_task(all_events(running.stub.Chat(ASK)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Cancel(chat_pb2.CancelRequest(run_id="0"), timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert len(running.runs) == 2
        async with another_connection(running) as channel:
            await chat_pb2_grpc.ChatServiceStub(channel).Cancel(chat_pb2.CancelRequest(run_id="0"))
        assert (await refusal_of(calls[0])).reason == "RUN_CANCELLED"
        stage.proceed.set()
        assert kinds_of(await third)[-1] == "finished"
        assert kinds_of(await all_events(calls[1]))[-1] == "finished"


@asynccontextmanager
async def another_connection(running: Served, *options: tuple[str, int]) -> AsyncGenerator[grpc.aio.Channel]:
    """Connect once more: channels to the same address share a connection unless they are told not to."""
    own = [("grpc.use_local_subchannel_pool", 1), *options]
    async with grpc.aio.insecure_channel(running.address, options=own) as channel:
        yield channel


async def test_health_and_cancel_are_answered_when_everything_is_full(stage: Stage) -> None:
    """All runs, readers, threads and the memory of all queues are taken by callers who read nothing."""
    stage.chunks, stage.text = 50_000, "x" * 1000
    full: dict[str, Any] = {"max_runs": 2, "max_readers": 2, "max_sync_runs": 1, "queue_total_bytes": 100_000}
    async with served(default_pipeline="threaded", drain_seconds=0.1, **full) as running:
        async with another_connection(running, *SMALL_WINDOW) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            calls = [stub.Chat(chat_pb2.ChatRequest(query="q", run_id=str(number))) for number in range(2)]
            for call in calls:
                await anext(aiter(call))
            await stage.stands_still()
            assert running.service.threads.at_work == 1
            assert running.service.threads.waiting == 1
            assert 100_000 < running.runs.queues.size_bytes < 103_000
            async with another_connection(running) as other:
                await answers_meanwhile(other)
                complaint = await refusal_of(chat_pb2_grpc.ChatServiceStub(other).Chat(ASK))
                assert complaint.reason == "TOO_MANY_RUNS"
                resume = chat_pb2.ResumeRequest(run_id="0")
                complaint = await refusal_of(chat_pb2_grpc.ChatServiceStub(other).Resume(resume))
                assert complaint.reason == "TOO_MANY_READERS"
                for run_id in ("0", "1"):
                    cancel = chat_pb2.CancelRequest(run_id=run_id)
                    await chat_pb2_grpc.ChatServiceStub(other).Cancel(cancel, timeout=2)
            for call in calls:
                assert (await refusal_of(call)).reason == "RUN_CANCELLED"
            await running.runs.until_idle()
            assert running.runs.queues.size_bytes == 0


async def answers_meanwhile(channel: grpc.aio.Channel) -> None:
    """Assert that health is told, at once and as it changes."""
    health = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
    assert (await health.Check(asked, timeout=2)).status == health_pb2.HealthCheckResponse.SERVING
    assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=2)).status is not None
    watch = health.Watch(asked, timeout=2)
    assert (await anext(aiter(watch))).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_a_reader_that_takes_nothing_costs_the_others_no_more_than_the_memory_of_all(stage: Stage) -> None:
    """Its run stands still at the limit of all; theirs go on, an event at a time."""
    stage.chunks, stage.text = 50_000, "x" * 1000
    async with served(default_pipeline="fake", queue_total_bytes=100_000) as running:
        async with another_connection(running, *SMALL_WINDOW) as channel:
            stuck = chat_pb2_grpc.ChatServiceStub(channel).Chat(GO_ON)
            await anext(aiter(stuck))
            await stage.stands_still()
            assert 100_000 < running.runs.queues.size_bytes < 103_000
            stage.chunks = 1000
            stage.proceed.set()
            events = await all_events(running.stub.Chat(ASK))
            assert sum(len(event.text.delta) for event in events) == 1_000_000
            assert events[-1].HasField("finished")
            stuck.cancel()
            for run in running.runs:
                run.stop(Disconnected())
            await running.runs.until_idle()
        assert running.runs.queues.size_bytes == 0
