"""One contract for every generation of Haystack: the same tests, unchanged, on the pipelines that each of them has."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import MessageToDict

from haystream.v1 import chat_pb2
from tests.calls import all_events, kinds_of, text_of
from tests.generations.conversation import ANSWER, ASK, leave, read_until, say, say_next
from tests.generations.installed import GENERATION, Kind

if TYPE_CHECKING:
    from llmock.pytest_plugin import LLMock

    from tests.conftest import Served
    from tests.providers import Provider

pytestmark = [pytest.mark.filterwarnings(warning) for warning in GENERATION.warnings]
SUNNY = ["Sunny in Rome"]


async def test_words_stream_while_the_provider_still_talks(chatting: Served, talking: Provider, speaker: Kind) -> None:
    """The first word is there before the provider says its second, and the second before its third."""
    call = chatting.stub.Chat(ASK)
    events = await read_until(call, "word ")
    assert events[0].started.pipeline == speaker.name
    say_next(talking, 1)
    events += await read_until(call, "word ")
    assert {event.text.component for event in events if event.HasField("text")} == {speaker.speaker}
    await leave(chatting, talking, call)


async def test_finished_comes_last_with_reason_usage_and_outputs(answering: Served, speaker: Kind) -> None:
    """And once, after all of the text."""
    events = await all_events(answering.stub.Chat(ASK))
    assert text_of(events) == ANSWER
    kinds = kinds_of(events)
    assert (kinds[0], kinds[-1], kinds.count("finished")) == ("started", "finished", 1)
    finished = events[-1].finished
    assert finished.reason == chat_pb2.FINISH_REASON_STOP
    [usage] = finished.usage
    assert usage.component == speaker.speaker
    assert usage.model
    assert usage.completion_tokens > 0
    assert usage.prompt_tokens + usage.completion_tokens == usage.total_tokens
    outputs = MessageToDict(finished.outputs)
    assert list(outputs) == [speaker.speaker]
    assert ANSWER in json.dumps(outputs)


async def test_outputs_in_the_middle_come_whole_where_they_are_asked_for(acting: Served) -> None:
    """With the sockets that another component took as well as the others; unasked come those that none took."""
    events = await all_events(acting.stub.Chat(say("hello")))
    unasked = MessageToDict(events[-1].finished.outputs)
    assert unasked == {"actor": {"meta": [{"finish_reason": "length"}]}, "audience": {"heard": ["hello"]}}
    assert events[-1].finished.reason == chat_pb2.FINISH_REASON_LENGTH
    request = chat_pb2.ChatRequest(query="hello", include_outputs_from=["door", "actor"])
    events = await all_events(acting.stub.Chat(request))
    assert MessageToDict(events[-1].finished.outputs) == {
        "door": {"query": "hello"},
        "actor": {"replies": ["hello"], "meta": [{"finish_reason": "length"}]},
        "audience": {"heard": ["hello"]},
    }


async def test_a_pipeline_calls_its_tools(answering: Served, llmock: LLMock, speaker: Kind) -> None:
    """If it has any: the call and its result are there before the answer, and the usage is that of both turns."""
    if speaker.tools:
        llmock.reset().tool_mode("off").call_tool("weather", {"city": "Rome"}).reply(ANSWER)
    events = await all_events(answering.stub.Chat(ASK))
    turns = 1 + speaker.tools
    calls = [event.tool_call for event in events if event.HasField("tool_call")]
    assert "".join(call.arguments_delta for call in calls).replace(" ", "") == '{"city":"Rome"}' * speaker.tools
    assert [event.tool_result.result for event in events if event.HasField("tool_result")] == SUNNY * speaker.tools
    assert text_of(events) == ANSWER
    assert len(llmock.requests) == turns


async def test_documents_come_as_soon_as_haystack_tells_them(answering: Served, speaker: Kind) -> None:
    """Before the first word, where it yields outputs component by component; else with the end. Once, best first."""
    events = await all_events(answering.stub.Chat(ASK))
    found = [event.documents for event in events if event.HasField("documents")]
    assert [batch.component for batch in found] == ["retriever"] * speaker.documents
    if speaker.documents:
        assert [document.id for document in found[0].documents] == ["sky", "sea"]
        kinds = kinds_of(events)
        assert (kinds.index("documents") < kinds.index("text")) is speaker.steps


async def test_of_a_conversation_a_pipeline_gets_what_it_takes(
    answering: Served, llmock: LLMock, speaker: Kind
) -> None:
    """All of it, or the newest question."""
    turns = [
        (chat_pb2.ROLE_USER, "Who are you?"),
        (chat_pb2.ROLE_ASSISTANT, "A model."),
        (chat_pb2.ROLE_USER, "Why is the sky blue?"),
    ]
    messages = [chat_pb2.ChatMessage(role=role, parts=[chat_pb2.ContentPart(text=text)]) for role, text in turns]
    request = chat_pb2.ChatRequest(conversation=chat_pb2.Conversation(messages=messages))
    assert text_of(await all_events(answering.stub.Chat(request))) == ANSWER
    asked = json.dumps(llmock.last_request.body["messages"])
    assert "Why is the sky blue?" in asked
    assert ("Who are you?" in asked) is speaker.conversation
    assert len(llmock.last_request.body["messages"]) == (len(turns) if speaker.conversation else 1)


async def test_what_a_caller_sets_reaches_the_provider(answering: Served, llmock: LLMock, speaker: Kind) -> None:
    """Settings of the generation, and inputs of components."""
    request = chat_pb2.ChatRequest(query="Why is the sky blue?")
    request.generation_kwargs.update({"temperature": 0.25})
    if speaker.documents:
        request.inputs.update({"retriever": {"top_k": 1}})
    events = await all_events(answering.stub.Chat(request))
    assert llmock.last_request.body["temperature"] == 0.25
    found = [document.id for event in events for document in event.documents.documents]
    assert found == ["sky"] * speaker.documents


async def test_a_pipeline_is_described(chatting: Served, speaker: Kind) -> None:
    """What it takes, what it brings, how it is stopped, and the version of Haystack that runs it."""
    description = await chatting.stub.GetPipeline(chat_pb2.GetPipelineRequest())
    assert (description.pipeline.name, description.pipeline.ready) == (speaker.name, True)
    assert list(description.streaming_components) == [speaker.speaker]
    stops = chat_pb2.CANCELLATION_IMMEDIATE if speaker.on_loop else chat_pb2.CANCELLATION_NEXT_CHUNK
    assert description.cancellation == stops
    assert description.haystack_version == version("haystack-ai")
    assert speaker.speaker in {output.component for output in description.outputs}
    schema: dict[str, Any] = MessageToDict(description.inputs_schema)
    settable = schema["properties"][speaker.speaker]["properties"]
    assert "generation_kwargs" in settable
    assert "streaming_callback" not in settable
    if speaker.documents:
        top_k = schema["properties"]["retriever"]["properties"]["top_k"]
        assert {"type": "integer"} in top_k["anyOf"]
    assert description.graph.startswith("flowchart TD\n")
