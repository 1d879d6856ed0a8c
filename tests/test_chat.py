"""A chat through the front door: a real server, a real stub, and for some of them a real model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from google.protobuf.struct_pb2 import Struct

from haystream.v1 import chat_pb2
from tests.calls import all_events, kinds_of, text_of
from tests.conftest import SHIPPED, Served, served

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haystream.v1.chat_pb2 import Event
    from tests.fakes import Stage


def reply_of(events: list[Event], component: str = "llm") -> str:
    """Return the reply in the outputs of a stream's last event."""
    reply = events[-1].finished.outputs.fields[component].struct_value.fields["replies"].list_value.values[0]
    return reply.struct_value.fields["content"].list_value.values[0].struct_value.fields["text"].string_value


def struct(**values: Any) -> Struct:
    """Return a Struct."""
    message = Struct()
    message.update(values)
    return message


async def test_the_local_model_streams_its_answer_as_it_is_generated() -> None:
    """A newcomer without a key reads a real model's answer word by word."""
    loop = asyncio.get_running_loop()
    async with served(SHIPPED) as running:
        events: list[Event] = []
        times: list[float] = []
        async for response in running.stub.Chat(chat_pb2.ChatRequest(query="Why is the sky blue?")):
            events.append(response.event)
            times.append(loop.time())
            if kinds_of(events).count("text") == 3:
                assert next(iter(running.runs)).ending is None  # the model is still at it
    texts = [when for when, event in zip(times, events, strict=True) if event.HasField("text")]
    assert len(texts) > 5
    assert len(set(texts)) == len(texts)
    assert texts[0] < texts[-1] < times[-1]
    assert events[0].started.pipeline == "local"
    assert kinds_of(events)[-1] == "finished"
    assert text_of(events) == reply_of(events) != ""
    assert events[-1].finished.reason in {chat_pb2.FINISH_REASON_STOP, chat_pb2.FINISH_REASON_LENGTH}
    usage = events[-1].finished.usage[0]
    assert (usage.component, usage.model) == ("llm", "SmolLM2-135M-Instruct")
    assert usage.completion_tokens > 5
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_the_rag_pipeline_answers_from_the_documents_that_it_found() -> None:
    """A retriever in front of the model gets the question as well."""
    async with served(SHIPPED) as running:
        request = chat_pb2.ChatRequest(
            pipeline="rag",
            query="Which port does the gateway use?",
            inputs=struct(retriever={"top_k": 2}),
            include_outputs_from=["retriever"],
        )
        events = await all_events(running.stub.Chat(request))
    found = events[-1].finished.outputs.fields["retriever"].struct_value.fields["documents"].list_value.values
    assert len(found) == 2
    assert "gateway" in {document.struct_value.fields["id"].string_value for document in found}
    assert text_of(events) == reply_of(events) != ""


async def test_several_answers_of_the_local_model_come_at_once() -> None:
    """Two pipelines share one model, and each caller gets an answer of its own."""
    async with served(SHIPPED) as running:
        requests = [chat_pb2.ChatRequest(query="Name a colour.", pipeline=name) for name in ("local", "rag", "local")]
        answers = await asyncio.gather(*(all_events(running.stub.Chat(request)) for request in requests))
    assert all(text_of(events) == reply_of(events) != "" for events in answers)
    assert len({events[0].started.run_id for events in answers}) == 3


@pytest.mark.parametrize(
    "question",
    ["Say this, word for word.", "  spaces \n and\tlines\r\n", "naïve 漢字 🙂 \u2028 \x00 end", "{{ query }} {% x %}"],
)
async def test_echo_says_the_question_back_word_for_word(echo: Served, question: str) -> None:
    """Nothing is lost, doubled, trimmed or interpreted on the way."""
    events = await all_events(echo.stub.Chat(chat_pb2.ChatRequest(query=question, pipeline="echo")))
    assert text_of(events) == question.lstrip()  # Haystack's mock streams from the first word on
    assert reply_of(events) == question


async def test_events_are_numbered_from_one_and_rise(echo: Served) -> None:
    """A reader can tell where it is, and a joined event carries its last part's number."""
    call = echo.stub.Chat(chat_pb2.ChatRequest(query="word " * 5000))
    events = await all_events(call)
    trailers = dict(cast("Iterable[tuple[str, Any]]", await call.trailing_metadata()))
    numbers = [event.seq for event in events]
    assert numbers[0] == 1
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 5002
    assert len(numbers) < 5002
    assert trailers == {"x-run-id": events[0].started.run_id, "x-last-seq": "5002"}


async def test_the_callers_own_run_id_names_the_run(fake: Served, stage: Stage) -> None:
    """A caller can know its run before the first event."""
    stage.proceed.set()
    events = await all_events(fake.stub.Chat(chat_pb2.ChatRequest(query="hi", run_id="my-run.1")))
    assert events[0].started.run_id == "my-run.1"


async def test_inputs_and_generation_settings_reach_the_component(fake: Served, stage: Stage) -> None:
    """Whole numbers of a Struct arrive as ints, on top of the question."""
    stage.proceed.set()
    request = chat_pb2.ChatRequest(
        query="hi", inputs=struct(llm={"top_k": 5}), generation_kwargs=struct(temperature=0.5, max_tokens=7, stop=["x"])
    )
    await all_events(fake.stub.Chat(request))
    assert stage.received == [
        {"query": "hi", "generation_kwargs": {"temperature": 0.5, "max_tokens": 7, "stop": ["x"]}, "top_k": 5}
    ]
    assert isinstance(stage.received[0]["generation_kwargs"]["max_tokens"], int)


async def test_a_conversation_becomes_the_question_of_a_pipeline_that_takes_only_one(
    fake: Served, stage: Stage
) -> None:
    """The newest text counts."""
    stage.proceed.set()
    messages = [
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, parts=[chat_pb2.ContentPart(text="first")]),
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, parts=[chat_pb2.ContentPart(text="answer")]),
        chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, parts=[chat_pb2.ContentPart(text="second")]),
    ]
    await all_events(fake.stub.Chat(chat_pb2.ChatRequest(conversation=chat_pb2.Conversation(messages=messages))))
    assert stage.received[0]["query"] == "second"


async def test_only_the_chosen_components_stream(stage: Stage) -> None:
    """What was not chosen still runs, and its reply is in the outputs."""
    stage.chunks = 3
    stage.proceed.set()
    async with served(default_pipeline="pair") as running:
        both = await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        one = await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", streaming_components=["second"])))
    assert {event.text.component for event in both if event.HasField("text")} == {"first", "second"}
    assert {event.text.component for event in one if event.HasField("text")} == {"second"}
    assert reply_of(one, "first") == "word word word "


async def test_silence_is_filled_with_heartbeats_that_are_not_counted(stage: Stage) -> None:
    """A stream that waits for its model is not taken for a dead one."""
    stage.chunks = 1
    async with served(default_pipeline="fake", heartbeat_seconds=0.05) as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q"))
        events: list[Event] = []
        async for response in call:
            events.append(response.event)
            if kinds_of(events).count("heartbeat") == 3:
                stage.proceed.set()
    silent = [event for event in events if event.HasField("heartbeat")]
    assert len(silent) >= 3
    assert {event.seq for event in silent} == {2}
    assert kinds_of(events)[-1] == "finished"
    assert events[-1].seq == 3


async def test_a_slow_reader_makes_the_model_wait(stage: Stage) -> None:
    """What nobody has read yet stays within the queue's budget and HTTP/2's window."""
    stage.chunks, stage.text = 20_000, "x" * 1000
    stage.proceed.set()
    async with served(default_pipeline="fake", queue_bytes=100_000) as running:
        responses = aiter(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        await anext(responses)
        with pytest.raises(TimeoutError):  # 20 MB do not fit anywhere on the way
            async with asyncio.timeout(1):
                await stage.waiting.wait()
        events = [response.event async for response in responses]
    assert len(text_of(events)) == 20_000_000
    assert list(events[-1].finished.outputs.fields) == []
    assert list(events[-1].finished.omitted_outputs) == ["llm"]  # no client takes a message of 20 MB
