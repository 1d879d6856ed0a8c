"""One contract for every generation of Haystack: the same tests, unchanged, on the pipelines that each of them has."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, kinds_of, text_of
from tests.conftest import served
from tests.generations.installed import GENERATION, Kind
from tests.generations.parts import (
    FAIL,
    FOREIGN_WORDS,
    MEET,
    PARTIES,
    STAY_BEHIND,
    TALK,
    TALKED_CHUNKS,
    TALKED_TEXT,
    new_stage,
)
from tests.providers import Provider, provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmock.pytest_plugin import LLMock

    from tests.conftest import Served
    from tests.generations.parts import Stage

pytestmark = [pytest.mark.filterwarnings(warning) for warning in GENERATION.warnings]

ASK = chat_pb2.ChatRequest(query="Why is the sky blue?", run_id="r")
ANSWER = "Air scatters blue light the most."
SUNNY = ["Sunny in Rome"]
AT_ONCE = 8
SECONDS = 10  # in which what is bound to happen has happened, and much more

ChatCall = grpc.aio.UnaryStreamCall[chat_pb2.ChatRequest, chat_pb2.ChatResponse]


@pytest.fixture(params=GENERATION.speakers, ids=lambda kind: kind.name)
def speaker(request: pytest.FixtureRequest) -> Kind:
    """Each kind of pipeline with OpenAI's model."""
    kind: Kind = request.param
    return kind


@pytest.fixture(params=GENERATION.actors, ids=lambda kind: kind.name)
def actor(request: pytest.FixtureRequest) -> Kind:
    """Each kind of pipeline with an actor."""
    kind: Kind = request.param
    return kind


@pytest.fixture
async def talking(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    """A provider that says a word at a time, and sees its callers go."""
    async with provider() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-service")
        yield running


@pytest.fixture
async def chatting(talking: Provider, speaker: Kind, tmp_path: Path) -> AsyncIterator[Served]:
    """A service in front of the provider that says a word at a time."""
    async with served(_folder_of(speaker, tmp_path)) as running:
        yield running


@pytest.fixture
async def answering(
    llmock: LLMock, speaker: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    """A service in front of a provider that answers as it is told to, and is asked once."""
    monkeypatch.setenv("OPENAI_MAX_RETRIES", "0")
    llmock.tool_mode("off").reply(ANSWER)
    async with served(_folder_of(speaker, tmp_path)) as running:
        yield running


@pytest.fixture
def stage() -> Stage:
    """What the actors of this test share with it."""
    return new_stage()


@pytest.fixture
async def acting(stage: Stage, actor: Kind, tmp_path: Path) -> AsyncIterator[Served]:
    """A service with an actor, and a thread for each of its runs."""
    async with served(_folder_of(actor, tmp_path), max_sync_runs=PARTIES) as running:
        yield running


async def test_words_stream_while_the_provider_still_talks(chatting: Served, talking: Provider, speaker: Kind) -> None:
    """The first word is there before the provider says its second, and the second before its third."""
    call = chatting.stub.Chat(ASK)
    events = await _read_until(call, "word ")
    assert events[0].started.pipeline == speaker.name
    _say_next(talking, 1)
    events += await _read_until(call, "word ")
    assert {event.text.component for event in events if event.HasField("text")} == {speaker.speaker}
    await _leave(chatting, talking, call)


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
    events = await all_events(acting.stub.Chat(_say("hello")))
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


async def test_runs_go_at_once(chatting: Served, talking: Provider) -> None:
    """Each of several on one pipeline has its first word before any of them is allowed to go on."""
    calls = [chatting.stub.Chat(chat_pb2.ChatRequest(query="Why?")) for _ in range(AT_ONCE)]
    await asyncio.gather(*(_read_until(call, "word ") for call in calls))
    assert len(talking.requests) == AT_ONCE
    _say_next(talking, AT_ONCE)
    await asyncio.gather(*(_read_until(call, "word ") for call in calls))
    await _leave(chatting, talking, *calls)


async def test_runs_that_overlap_do_not_count_each_others_visits(acting: Served, stage: Stage) -> None:
    """More than a component may be visited in one run are at it together, and the one that comes last gets through."""
    others = [asyncio.create_task(all_events(acting.stub.Chat(_say(MEET)))) for _ in range(PARTIES - 1)]
    last = asyncio.create_task(all_events(acting.stub.Chat(_say(STAY_BEHIND))))
    answers = await asyncio.gather(*others)
    stage.others_left.set()
    answers.append(await last)
    assert [text_of(events) for events in answers] == [MEET] * (PARTIES - 1) + [STAY_BEHIND]
    assert {kinds_of(events)[-1] for events in answers} == {"finished"}


async def test_runs_one_after_another_do_not_count_each_others_visits(acting: Served) -> None:
    """However many there have been."""
    for number in range(PARTIES):
        assert text_of(await all_events(acting.stub.Chat(_say(f"run {number}")))) == f"run {number}"


async def test_leaving_stops_the_model(chatting: Served, talking: Provider, speaker: Kind) -> None:
    """The provider sees its caller go: on the loop at once, in the middle of its silence; in a thread at its word."""
    call = chatting.stub.Chat(ASK)
    await _read_until(call, "word ")
    call.cancel()
    await _is_left(chatting, talking, speaker)


async def test_cancel_stops_the_model(chatting: Served, talking: Provider, speaker: Kind) -> None:
    """And the reader is told."""
    call = chatting.stub.Chat(ASK)
    await _read_until(call, "word ")
    await chatting.stub.Cancel(chat_pb2.CancelRequest(run_id="r"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason) == ("ABORTED", "RUN_CANCELLED")
    await _is_left(chatting, talking, speaker)


async def test_a_deadline_stops_the_model(chatting: Served, talking: Provider, speaker: Kind) -> None:
    """The caller's own."""
    call = chatting.stub.Chat(ASK, timeout=2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await _is_left(chatting, talking, speaker)


async def test_a_run_that_continues_is_read_on_from_where_its_reader_left(chatting: Served, talking: Provider) -> None:
    """Nothing twice, nothing missing."""
    request = chat_pb2.ChatRequest(query="Why?", run_id="r", on_disconnect=chat_pb2.ON_DISCONNECT_CONTINUE)
    call = chatting.stub.Chat(request)
    before = await _read_until(call, "word ")
    call.cancel()
    _say_next(talking, 1)
    resumed = chatting.stub.Resume(chat_pb2.ResumeRequest(run_id="r", after_seq=before[-1].seq))
    response = await anext(aiter(resumed))
    assert response.event.text.delta == "word "
    assert response.event.seq == before[-1].seq + 1
    await chatting.stub.Cancel(chat_pb2.CancelRequest(run_id="r"))
    _say_next(talking, 1)
    await _gone(talking)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (429, ("RESOURCE_EXHAUSTED", "PROVIDER_BUSY", 3)),
        (500, ("UNAVAILABLE", "PROVIDER_UNAVAILABLE", 3)),
        (401, ("FAILED_PRECONDITION", "PROVIDER_AUTH", None)),
    ],
)
async def test_a_providers_refusal_is_typed(
    answering: Served, llmock: LLMock, speaker: Kind, status: int, expected: tuple[str, str, float | None]
) -> None:
    """With what the provider asked to wait, and the component where Haystack tells it."""
    llmock.fail(status, retry_after=expected[2])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(answering.stub.Chat(ASK))
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason, complaint.retry_seconds) == expected
    assert complaint.metadata.get("component") == (speaker.speaker if GENERATION.names_failed_component else None)


async def test_a_provider_that_ends_early_does_not_look_complete(answering: Served, llmock: LLMock) -> None:
    """Haystack takes it for a whole answer; the reason says otherwise."""
    llmock.truncate(after_chunks=2)
    events = await all_events(answering.stub.Chat(ASK))
    assert events[-1].finished.reason == chat_pb2.FINISH_REASON_INCOMPLETE
    assert ANSWER.startswith(text_of(events))
    assert text_of(events) != ANSWER


async def test_a_component_that_fails_is_named_without_its_words(acting: Served, actor: Kind) -> None:
    """Named where Haystack tells it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(acting.stub.Chat(_say(FAIL)))
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason) == ("INTERNAL", "COMPONENT_FAILED")
    assert complaint.metadata.get("component") == (actor.speaker if GENERATION.names_failed_component else None)
    assert FOREIGN_WORDS not in repr((caught.value, caught.value.trailing_metadata()))


async def test_a_callers_key_reaches_the_provider_and_builds_once(chatting: Served, talking: Provider) -> None:
    """A second call with the key runs on what the first one's was built with; one without on the service's key."""
    mine = chat_pb2.ChatRequest(query="Why?", api_key="sk-caller")
    calls = [chatting.stub.Chat(mine)]
    await _read_until(calls[0], "word ")
    built = _models()
    calls.append(chatting.stub.Chat(mine))
    await _read_until(calls[1], "word ")
    assert [model for model in _models() if not any(model is known for known in built)] == []
    calls.append(chatting.stub.Chat(chat_pb2.ChatRequest(query="Why?")))
    await _read_until(calls[2], "word ")
    assert [_key_of(request) for request in talking.requests] == ["sk-caller", "sk-caller", "sk-service"]
    await _leave(chatting, talking, *calls)


async def test_without_a_key_each_caller_brings_one(
    talking: Provider, speaker: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A component that wants its key when it is made is no reason not to serve; who brings none is told so."""
    monkeypatch.delenv("OPENAI_API_KEY")
    async with served(_folder_of(speaker, tmp_path)) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(ASK))
        complaint = complaint_of(caught.value)
        assert (complaint.code, complaint.reason) == ("FAILED_PRECONDITION", "API_KEY_REQUIRED")
        call = running.stub.Chat(chat_pb2.ChatRequest(query="Why?", api_key="sk-caller"))
        await _read_until(call, "word ")
        assert [_key_of(request) for request in talking.requests] == ["sk-caller"]
        await _leave(running, talking, call)


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


async def test_a_reader_who_is_behind_holds_the_model_back(acting: Served, stage: Stage) -> None:
    """Beyond the windows of the connection and the run's queue it waits; nothing is lost when the reader goes on."""
    reader = aiter(acting.stub.Chat(_say(TALK)))
    size = 0
    while not size:
        size = len((await anext(reader)).event.text.delta)
    assert not await asyncio.to_thread(stage.talked_all.wait, 0.5)
    async for response in reader:
        size += len(response.event.text.delta)
    assert size == TALKED_CHUNKS * len(TALKED_TEXT)


def _folder_of(kind: Kind, folder: Path) -> Path:
    """Return a folder with that pipeline alone."""
    shutil.copy(kind.path, folder)
    return folder


def _say(query: str) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(query=query)


async def _read_until(call: ChatCall, text: str) -> list[chat_pb2.Event]:
    """Read on until that has been said."""
    events: list[chat_pb2.Event] = []
    async with asyncio.timeout(SECONDS):
        async for response in call:
            events.append(response.event)
            if text_of(events) == text:
                break
    assert text_of(events) == text
    return events


def _say_next(talking: Provider, count: int) -> None:
    for _ in range(count):
        talking.next_word.release()


async def _leave(running: Served, talking: Provider, *calls: ChatCall) -> None:
    """Leave, and let those that are in threads learn of it."""
    for call in calls:
        call.cancel()
    await running.runs.until_idle()
    _say_next(talking, len(calls))
    await _gone(talking)


async def _is_left(running: Served, talking: Provider, kind: Kind) -> None:
    """See to it that the provider's caller goes: at once, or with the next word and not before."""
    await running.runs.until_idle()
    if not kind.on_loop:
        assert running.service.threads.orphans == 1
        assert not talking.left.is_set()
        _say_next(talking, 1)
    await _gone(talking)


async def _gone(talking: Provider) -> None:
    async with asyncio.timeout(SECONDS):
        await talking.left.wait()


def _models() -> list[object]:
    """Return all of OpenAI's generators that there are."""
    return [thing for thing in gc.get_objects() if type(thing).__name__ in {"OpenAIGenerator", "OpenAIChatGenerator"}]


def _key_of(request: str) -> str:
    [line] = [line for line in request.split("\r\n") if line.lower().startswith("authorization: ")]
    return line.rpartition(" ")[2]
