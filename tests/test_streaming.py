"""Callbacks of every kind, and events of every kind: what a pipeline says reaches its reader whole and labelled."""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict
from haystack import Document
from haystack.dataclasses import ChatMessage, ReasoningContent, StreamingChunk
from haystack.tracing.tracer import Span, Tracer, disable_tracing, enable_tracing

from haystream.v1 import chat_pb2
from haystream_service.pipelines.callbacks import callback_for
from haystream_service.pipelines.documents import CONTENT_CHARACTERS, EVENT_BYTES, META_BYTES, document_events
from haystream_service.pipelines.outputs import finished, usages
from haystream_service.run.events import Event, FinishReason, Usage
from tests.calls import all_events, complaint_of, kinds_of, text_of
from tests.conftest import Served, served

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from tests.fakes import Stage

ASK = chat_pb2.ChatRequest(query="q")
EVERY_KIND = ["fake", "threaded", "contrary", "agent", "agent_threaded"]


@pytest.mark.parametrize("pipeline", EVERY_KIND)
async def test_components_of_every_kind_stream(fake: Served, stage: Stage, pipeline: str) -> None:
    """On the loop, in a thread, from `run_async` into a thread, and inside an Agent both ways."""
    stage.chunks = 3
    call = fake.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline=pipeline))
    reader = aiter(call)
    events = [(await anext(reader)).event]
    while "word word word" not in text_of(events):  # before the model is done
        events.append((await anext(reader)).event)
    stage.proceed.set()
    events += [response.event async for response in reader]
    assert text_of(events) == "word word word "
    assert kinds_of(events)[-1] == "finished"


@pytest.mark.parametrize("pipeline", EVERY_KIND)
async def test_a_reader_who_is_behind_holds_every_kind_of_component_back(stage: Stage, pipeline: str) -> None:
    """An async callback waits, a sync one blocks; nothing is lost when the reader goes on."""
    stage.chunks, stage.text = 20_000, "x" * 1000
    stage.proceed.set()
    async with served(default_pipeline=pipeline) as running:
        reader = aiter(running.stub.Chat(ASK))
        size = len((await anext(reader)).event.text.delta)
        assert await stage.stands_still() < 20_000  # HTTP/2's window fills, then the queue
        async for response in reader:
            size += len(response.event.text.delta)
    assert size == 20_000_000


@pytest.mark.parametrize("pipeline", ["agent", "agent_threaded"])
async def test_an_agent_shows_its_turns_and_ends_once(fake: Served, stage: Stage, pipeline: str) -> None:
    """Reasoning, tool calls and tool results come as they happen; `finished` comes after the last turn alone."""
    stage.chunks = 3
    stage.proceed.set()
    events = await all_events(fake.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline=pipeline)))
    kinds = [kind for kind in kinds_of(events) if kind != "text"]
    assert kinds == ["started", "reasoning", "tool_call", "tool_result", "finished"]
    assert {event.reasoning.component for event in events if event.HasField("reasoning")} == {"agent"}
    [call] = [event.tool_call for event in events if event.HasField("tool_call")]
    assert (call.component, call.name, call.arguments_delta) == ("agent", "weather", '{"city": "Rome"}')
    [result] = [event.tool_result for event in events if event.HasField("tool_result")]
    assert (result.name, result.result, result.is_error) == ("weather", "Sunny in Rome", False)
    assert text_of(events) == "word word word "
    assert kinds_of(events)[-2] == "text"
    last = events[-1].finished
    assert last.reason == chat_pb2.FINISH_REASON_STOP
    assert MessageToDict(last.outputs)["agent"]["exit_reason"] == "text"


async def test_an_agents_usage_is_the_sum_of_its_turns(fake: Served, stage: Stage) -> None:
    """By model, and without what earlier conversations used."""
    stage.chunks = 1
    stage.meta = {"finish_reason": "stop", "model": "m", "usage": {"prompt_tokens": 20, "completion_tokens": 4}}
    stage.proceed.set()
    events = await all_events(fake.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline="agent")))
    [usage] = events[-1].finished.usage
    assert (usage.component, usage.model) == ("agent", "m")
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (25, 6, 31)


async def test_the_usage_that_is_known_comes_with_a_failure(fake: Served, stage: Stage) -> None:
    """Two generators side by side: one has been paid for when the other fails."""
    stage.meta = {"finish_reason": "stop", "model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    stage.error = ValueError()
    request = chat_pb2.ChatRequest(query="q", pipeline="failing_second")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(fake.stub.Chat(request))
    complaint = complaint_of(caught.value)
    assert complaint.metadata["component"] == "second"
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [complaint.metadata[name] for name in names] == ["5", "2", "7"]


async def test_documents_come_as_soon_as_they_are_found(fake: Served, stage: Stage) -> None:
    """Before the first token, while the model still thinks; once, though Haystack repeats them at the end."""
    request = chat_pb2.ChatRequest(query="q", pipeline="finder")
    request.inputs.update({"finder": {"query": "sky"}})
    reader = aiter(fake.stub.Chat(request))
    events = [(await anext(reader)).event for _ in range(2)]
    await stage.waiting.wait()
    stage.proceed.set()
    assert kinds_of(events) == ["started", "documents"]
    found = events[1].documents
    assert found.component == "finder"
    assert [(document.id, document.content, document.score) for document in found.documents] == [
        ("d1", "sky", 0.5),
        ("d2", "sky", 0.5),
    ]
    assert found.documents[1].meta["page"] == 2
    events += [response.event async for response in reader]
    assert kinds_of(events).count("documents") == 1


async def test_only_the_chosen_components_stream_each_under_its_name(fake: Served, stage: Stage) -> None:
    """All of them where none is chosen."""
    stage.chunks = 2
    stage.proceed.set()

    async def speakers(*chosen: str) -> dict[str, str]:
        request = chat_pb2.ChatRequest(query="q", pipeline="pair", streaming_components=chosen)
        texts: dict[str, str] = {}
        for event in await all_events(fake.stub.Chat(request)):
            if event.HasField("text"):
                texts[event.text.component] = texts.get(event.text.component, "") + event.text.delta
        return texts

    assert await speakers() == {"first": "word word ", "second": "word word "}
    assert await speakers("second") == {"second": "word word "}


async def test_context_variables_and_spans_survive_the_way_into_threads(stage: Stage, tmp_path: Path) -> None:
    """What a component opens in a thread belongs to the pipeline's trace."""
    (tmp_path / "watched.py").write_text(WATCHED)
    recorder = Recorder()
    enable_tracing(recorder)
    try:
        async with served(tmp_path) as running:
            await all_events(running.stub.Chat(ASK))
    finally:
        disable_tracing()
    parents = {span.name: span.parent for span in recorder.spans}
    assert parents["in the thread"] == "haystack.component.run"
    assert stage.received == [{"thread": "haystream-sync_0"}]


def test_documents_are_cut_to_what_fits_into_a_message() -> None:
    """Into several events, and a giant is truncated and says so."""
    many = [Document(id=str(number), content="x" * 100_000) for number in range(40)]
    batches = list(document_events("r", many))
    assert len(batches) > 1
    assert [document.id for batch in batches for document in batch.documents] == [str(number) for number in range(40)]
    assert all(sum(len(document.content) for document in batch.documents) <= EVENT_BYTES for batch in batches)
    giants = [
        Document(id="c", content="x" * (CONTENT_CHARACTERS + 1)),
        Document(id="m", content="x", meta={"blob": "x" * META_BYTES}),
        Document(id="ok", content="x" * CONTENT_CHARACTERS, meta={"page": 1}),
    ]
    [batch] = document_events("r", giants)
    assert [document.is_truncated for document in batch.documents] == [True, True, False]
    assert [len(document.content) for document in batch.documents] == [CONTENT_CHARACTERS, 1, CONTENT_CHARACTERS]
    assert [dict(document.meta) for document in batch.documents] == [{}, {}, {"page": 1}]
    assert [batch.documents for batch in document_events("r", [])] == [()]


@pytest.mark.parametrize(("score", "sent"), [(0.5, 0.5), (None, None), (float("nan"), None), (float("inf"), None)])
def test_a_score_that_is_no_number_is_none(score: float | None, sent: float | None) -> None:
    """JSON has no words for it, and whoever reads it would stumble."""
    [batch] = document_events("r", [Document(id="d", content="x", score=score)])
    assert [document.score for document in batch.documents] == [sent]


@pytest.mark.parametrize(
    ("exit_reason", "said", "reason"),
    [
        ("text", "stop", FinishReason.STOP),
        ("text", None, FinishReason.INCOMPLETE),
        ("length", "length", FinishReason.LENGTH),
        ("content_filter", "content_filter", FinishReason.CONTENT_FILTER),
        ("max_agent_steps", "tool_calls", FinishReason.INCOMPLETE),
        ("weather", "tool_calls", FinishReason.STOP),
    ],
)
def test_an_agents_end_has_the_reason_of_the_agent(exit_reason: str, said: str | None, reason: FinishReason) -> None:
    """Not that of a turn on the way."""
    last = ChatMessage.from_assistant("x", meta={"finish_reason": said})
    outputs = {"agent": {"messages": [last], "last_message": last, "exit_reason": exit_reason, "step_count": 1}}
    assert finished(outputs, {}).reason is reason


def test_usage_is_read_under_both_of_its_names() -> None:
    """Providers call the same two numbers differently."""
    metas: list[dict[str, Any]] = [
        {"model": "a", "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 6}},
        {"model": "b", "usage": {"input_tokens": 3, "output_tokens": 2}},
        {"model": "c", "usage": {}},
        {"model": "d"},
    ]
    values = {"replies": [ChatMessage.from_assistant("x", meta=meta) for meta in metas]}
    assert list(usages("llm", values)) == [Usage("llm", "a", 3, 2, 6), Usage("llm", "b", 3, 2, 5)]


class Basket:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def put(self, event: Event) -> None:
        self.events.append(event)

    def put_from_thread(self, event: Event) -> None:
        self.events.append(event)

    def account(self, usage: Sequence[Usage]) -> None:
        raise AssertionError


async def test_a_callback_gives_something_to_await_on_the_loop_and_nothing_in_a_thread() -> None:
    """Haystack's generators await what they get on the loop; in a thread nobody could."""
    basket = Basket()
    callback = callback_for("llm", basket)
    chunks = [
        StreamingChunk(content="a", index=0),
        StreamingChunk(content="", index=0, reasoning=ReasoningContent(reasoning_text="b")),
        StreamingChunk(content="", meta={"model": "m"}),
    ]
    for chunk in chunks:
        awaitable = callback(chunk)
        assert awaitable is not None
        await awaitable
        assert await asyncio.to_thread(callback, chunk) is None
    assert len(basket.events) == 4


class RecordedSpan(Span):
    """A span by its name, and its parent's."""

    def __init__(self, name: str, parent: str) -> None:
        self.name = name
        self.parent = parent

    def set_tag(self, key: str, value: Any) -> None:
        pass


_current: contextvars.ContextVar[RecordedSpan | None] = contextvars.ContextVar("span", default=None)


class Recorder(Tracer):
    """Keeps all spans; which one is open is a context variable, as with OpenTelemetry."""

    def __init__(self) -> None:
        self.spans: list[RecordedSpan] = []

    @contextmanager
    def trace(
        self, operation_name: str, tags: dict[str, Any] | None = None, parent_span: Span | None = None
    ) -> Generator[Span]:
        parent = _current.get()
        span = RecordedSpan(operation_name, parent.name if parent is not None else "")
        self.spans.append(span)
        token = _current.set(span)
        try:
            yield span
        finally:
            _current.reset(token)

    def current_span(self) -> Span | None:
        return _current.get()


WATCHED = """
import threading
from haystack import Pipeline, component, tracing
from tests.fakes import stage


@component
class Watched:
    @component.output_types(answer=str)
    def run(self, query: str):
        with tracing.tracer.trace("in the thread"):
            stage().received.append({"thread": threading.current_thread().name})
        return {"answer": query}


def build():
    pipeline = Pipeline()
    pipeline.add_component("watched", Watched())
    return pipeline
"""
