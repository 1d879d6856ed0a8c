"""Conversations: every role, tool calls and their results, and images arrive as Haystack's ChatMessages."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.protobuf import json_format
from haystack import component
from haystack.dataclasses import ChatMessage, ImageContent, ToolCall

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import served
from tests.fakes import stage
from tests.image_hosts import PNG, hosting
from tests.test_refusals import refused
from tests.test_yaml_pipelines import prompted, written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmock.pytest_plugin import LLMock

    from tests.calls import Complaint
    from tests.conftest import Served
    from tests.fakes import Stage

ENCODED = base64.b64encode(PNG).decode()
WEATHER = ToolCall("weather", {"city": "Rome", "days": 2}, "call-1")

FILES = {
    "listener.py": """
from tests.test_conversations import Listener

def build():
    return Listener()
""",
    "query.yaml": prompted("{{ query }}"),
    "both.yaml": """
components:
  question:
    type: haystack.components.builders.prompt_builder.PromptBuilder
    init_parameters: {template: "{{ query }}"}
  llm: {type: haystack.components.generators.chat.mock.MockChatGenerator, init_parameters: {}}
haystream: {query: question.query, messages: llm.messages, outputs: [question.prompt, llm.replies]}
""",
}


@component
class Listener:
    """Tells the test which messages it was given."""

    @component.output_types(heard=int)
    async def run_async(self, messages: list[ChatMessage]) -> dict[str, int]:
        stage().received.append({"messages": messages})
        return {"heard": len(messages)}

    @component.output_types(heard=int)
    def run(self, messages: list[ChatMessage]) -> dict[str, int]:
        raise NotImplementedError


@pytest.fixture
async def listening(tmp_path: Path, stage: Stage) -> AsyncIterator[Served]:
    """A service whose default pipeline listens; images of 127.0.0.1 may be fetched, and have 100 bytes at most."""
    folder = written(tmp_path, FILES)
    async with served(folder, default_pipeline="listener", image_hosts="127.0.0.1", image_bytes=100) as running:
        yield running


def conversation(*messages: dict[str, Any], pipeline: str = "") -> chat_pb2.ChatRequest:
    """Return a request with a conversation, its messages given as JSON."""
    request = {"pipeline": pipeline, "conversation": {"messages": list(messages)}}
    return json_format.ParseDict(request, chat_pb2.ChatRequest())


def says(role: str, *parts: str | dict[str, Any]) -> dict[str, Any]:
    """Return a message of text and images."""
    return {"role": role, "parts": [{"text": part} if isinstance(part, str) else {"image": part} for part in parts]}


def calls(*tool_calls: dict[str, Any], text: str = "") -> dict[str, Any]:
    """Return an assistant's message that calls tools."""
    return {"role": "ROLE_ASSISTANT", "parts": [{"text": text}] if text else [], "toolCalls": list(tool_calls)}


def answers(*tool_results: dict[str, Any]) -> dict[str, Any]:
    """Return a tool's message."""
    return {"role": "ROLE_TOOL", "toolResults": list(tool_results)}


async def heard(running: Served, *messages: dict[str, Any]) -> list[ChatMessage]:
    """Send a conversation, and return what the pipeline was given."""
    stage().received.clear()
    await all_events(running.stub.Chat(conversation(*messages)))
    [received] = stage().received
    messages_given: list[ChatMessage] = received["messages"]
    return messages_given


CALL = {"id": "call-1", "name": "weather", "arguments": {"city": "Rome", "days": 2}}

# What callers send, and what the pipeline gets.
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[ChatMessage]]] = {
    "text of every role": (
        [says("ROLE_SYSTEM", "Be kind."), says("ROLE_USER", "Hello."), says("ROLE_ASSISTANT", "Hi!")],
        [ChatMessage.from_system("Be kind."), ChatMessage.from_user("Hello."), ChatMessage.from_assistant("Hi!")],
    ),
    "text in several parts is one": (
        [says("ROLE_SYSTEM", "Be ", "kind."), says("ROLE_USER", "Hel", "lo.")],
        [ChatMessage.from_system("Be kind."), ChatMessage.from_user("Hello.")],
    ),
    "a tool is called and answers": (
        [says("ROLE_USER", "Rome?"), calls(CALL), answers({"id": "call-1", "name": "weather", "result": "Sunny"})],
        [
            ChatMessage.from_user("Rome?"),
            ChatMessage.from_assistant(tool_calls=[WEATHER]),
            ChatMessage.from_tool("Sunny", WEATHER),
        ],
    ),
    "a tool fails, beside text": (
        [calls(CALL, text="Let me see."), answers({"id": "call-1", "result": "No network", "isError": True})],
        [
            ChatMessage.from_assistant("Let me see.", tool_calls=[WEATHER]),
            ChatMessage.from_tool("No network", WEATHER, error=True),
        ],
    ),
    "several tools are called, and answer in one message or several": (
        [
            calls(CALL, {"id": "call-2", "name": "clock"}),
            answers({"id": "call-2", "result": "Noon"}, {"id": "call-1", "result": "Sunny"}),
        ],
        [
            ChatMessage.from_assistant(tool_calls=[WEATHER, ToolCall("clock", {}, "call-2")]),
            ChatMessage.from_tool("Noon", ToolCall("clock", {}, "call-2")),
            ChatMessage.from_tool("Sunny", WEATHER),
        ],
    ),
    "a result whose call was not sent along": (
        [answers({"id": "call-9", "name": "weather", "result": "Sunny"})],
        [ChatMessage.from_tool("Sunny", ToolCall("weather", {}, "call-9"))],
    ),
    "images by bytes, between text": (
        [says("ROLE_USER", "Is this ", {"data": ENCODED}, " or ", {"data": ENCODED, "mimeType": "image/tiff"}, "?")],
        [
            ChatMessage.from_user(
                content_parts=[
                    "Is this ",
                    ImageContent(ENCODED, "image/png", validation=False),
                    " or ",
                    ImageContent(ENCODED, "image/tiff", validation=False),
                    "?",
                ]
            )
        ],
    ),
    "an image alone, by a data: URL": (
        [says("ROLE_USER", {"url": f"data:image/png;base64,{ENCODED}"})],
        [ChatMessage.from_user(content_parts=[ImageContent(ENCODED, "image/png", validation=False)])],
    ),
}


async def test_a_conversation_arrives_as_haystacks_messages(listening: Served) -> None:
    """Every role with all that it can hold, and a plain query as one message of the user's."""
    for name, (messages, expected) in CONVERSATIONS.items():
        assert (name, await heard(listening, *messages)) == (name, expected)
    stage().received.clear()
    await all_events(listening.stub.Chat(chat_pb2.ChatRequest(query="Hello.")))
    assert stage().received == [{"messages": [ChatMessage.from_user("Hello.")]}]


async def test_whole_numbers_in_a_tools_arguments_stay_whole(listening: Served) -> None:
    """Though a Struct has only doubles."""
    [message] = await heard(listening, calls(CALL))
    days = message.tool_calls[0].arguments["days"]
    assert (days, type(days)) == (2, int)


async def test_an_image_by_url_is_brought_by_the_service(listening: Served) -> None:
    """Before the run begins: the pipeline gets its bytes, and what they say that they are."""
    async with hosting() as host:
        [message] = await heard(listening, says("ROLE_USER", "This?", {"url": host.url, "mimeType": "image/gif"}))
    assert message == ChatMessage.from_user(
        content_parts=["This?", ImageContent(ENCODED, "image/png", validation=False)]
    )


async def test_a_pipeline_for_a_question_gets_the_users_newest_message(listening: Served) -> None:
    """And one that takes both a question and a conversation gets each in its place."""
    messages = [says("ROLE_USER", "One?"), says("ROLE_ASSISTANT", "Two."), says("ROLE_USER", "Thr", "ee?")]
    said = text_of(await all_events(listening.stub.Chat(conversation(*messages, pipeline="query"))))
    assert said == "Three?"
    events = await all_events(listening.stub.Chat(conversation(*messages, pipeline="both")))
    outputs = json_format.MessageToDict(events[-1].finished.outputs)
    assert outputs["question"] == {"prompt": "Three?"}
    assert text_of(events) == "Three?"


PATH = "conversation.messages"
IMAGE = {"data": ENCODED}

# A conversation, and the fields that are wrong in it with what is said of each.
WRONG: list[tuple[list[dict[str, Any]], dict[str, str]]] = [
    ([], {PATH: "empty"}),
    ([says("ROLE_UNSPECIFIED", "Hi")], {f"{PATH}[0].role": "ROLE_USER"}),
    ([{"role": "ROLE_USER"}], {f"{PATH}[0].parts": "empty"}),
    ([{"role": "ROLE_USER", "parts": [{}]}], {f"{PATH}[0].parts[0]": "`text` or `image`"}),
    ([says("ROLE_USER", {})], {f"{PATH}[0].parts[0].image": "`data` or `url`"}),
    ([says("ROLE_USER", {"data": "aGk="})], {f"{PATH}[0].parts[0].image.mime_type": "say what it is"}),
    (
        [says("ROLE_USER", {"data": ENCODED, "mimeType": "text/html"})],
        {f"{PATH}[0].parts[0].image.mime_type": "image/png"},
    ),
    ([says("ROLE_SYSTEM", "See", IMAGE)], {f"{PATH}[0].parts[1].image": "only messages of ROLE_USER hold images"}),
    ([says("ROLE_ASSISTANT", IMAGE)], {f"{PATH}[0].parts[0].image": "only messages of ROLE_USER hold images"}),
    (
        [{**says("ROLE_USER", "Hi"), "toolCalls": [CALL]}],
        {f"{PATH}[0].tool_calls": "a message of ROLE_USER has parts only"},
    ),
    (
        [{**says("ROLE_ASSISTANT", "Hi"), "toolResults": [{"id": "1", "name": "weather"}]}],
        {f"{PATH}[0].tool_results": "a message of ROLE_ASSISTANT has parts and tool_calls only"},
    ),
    ([says("ROLE_TOOL", "Sunny")], {f"{PATH}[0].parts": "a message of ROLE_TOOL has tool_results only"}),
    ([calls({"id": "1"})], {f"{PATH}[0].tool_calls[0].name": "the tool's name"}),
    (
        [calls(CALL), answers({"id": "call-1"}, {"id": "call-2"})],
        {f"{PATH}[1].tool_results[1].id": "the id of a tool call of this conversation"},
    ),
    (
        [says("ROLE_SYSTEM", IMAGE), says("ROLE_TOOL", "Sunny"), calls({"id": "1"})],
        {
            f"{PATH}[0].parts[0].image": "ROLE_USER",
            f"{PATH}[1].parts": "ROLE_TOOL",
            f"{PATH}[2].tool_calls[0].name": "name",
        },
    ),
    (
        [says("ROLE_USER", {"url": "ftp://example.org/a.png"}, {"url": "data:image/png;base64,?"})],
        {f"{PATH}[0].parts[0].image.url": "https://", f"{PATH}[0].parts[1].image.url": "valid base64"},
    ),
    (
        [says("ROLE_USER", {"url": f"data:image/png;base64,{ENCODED * 2}"})],
        {f"{PATH}[0].parts[0].image.url": "more than 100 bytes"},
    ),
    ([says("ROLE_USER", *[{"url": "http://127.0.0.1/"}] * 17)], {PATH: "at most 16 images"}),
]


async def test_what_a_role_cannot_hold_is_named_to_the_field(listening: Served, stage: Stage) -> None:
    """All of it at once, and nothing has begun."""
    for messages, expected in WRONG:
        assert fits(await refused(listening, conversation(*messages)), expected), messages
    assert stage.received == []


ONE_QUESTION: list[list[dict[str, Any]]] = [
    [says("ROLE_USER", "One?"), says("ROLE_ASSISTANT", "Two.")],
    [says("ROLE_USER", "One?", IMAGE)],
    [says("ROLE_USER", "One?"), calls(CALL), answers({"id": "call-1", "result": "Sunny"})],
]


async def test_a_pipeline_for_a_question_refuses_a_conversation_that_ends_in_none(listening: Served) -> None:
    """Rather than to answer something else."""
    for messages in ONE_QUESTION:
        complaint = await refused(listening, conversation(*messages, pipeline="query"))
        assert fits(complaint, {PATH: "the newest message has to be the user's, and plain text"})


def fits(complaint: Complaint, expected: dict[str, str]) -> bool:
    """Tell whether exactly these fields are complained of, and in these words."""
    is_typed = (complaint.code, complaint.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    return (
        is_typed
        and complaint.fields.keys() == expected.keys()
        and all(words in complaint.fields[field] for field, words in expected.items())
    )


async def test_an_image_inside_the_network_is_refused_unless_its_host_is_allowed(tmp_path: Path, stage: Stage) -> None:
    """The service is not to be sent where its callers cannot go; nobody connects there."""
    async with hosting() as host, served(written(tmp_path, {"listener.py": FILES["listener.py"]})) as running:
        complaint = await refused(running, conversation(says("ROLE_USER", {"url": host.url})))
    assert fits(complaint, {f"{PATH}[0].parts[0].image.url": "not on the public internet"})
    assert "127.0.0.1" not in complaint.message
    assert host.visits == []
    assert stage.received == []


OPENAI = (
    "components: {llm: {type: haystack.components.generators.chat.openai.OpenAIChatGenerator, init_parameters: {}}}"
)


async def test_a_provider_gets_the_conversation_in_its_own_form(tmp_path: Path, llmock: LLMock) -> None:
    """OpenAI's: each result beside its call's id, and images as data."""
    llmock.tool_mode("off").reply("Yes.")
    messages = [
        says("ROLE_SYSTEM", "Be kind."),
        says("ROLE_USER", "Rome?"),
        calls(CALL),
        answers({"id": "call-1", "result": "Sunny"}),
        says("ROLE_USER", "Like this?", IMAGE),
    ]
    async with served(written(tmp_path, {"openai.yaml": OPENAI})) as running:
        assert text_of(await all_events(running.stub.Chat(conversation(*messages)))) == "Yes."
    system, question, called, result, image = llmock.last_request.body["messages"]
    assert (system, question) == ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Rome?"})
    [tool_call] = called["tool_calls"]
    assert (tool_call["id"], tool_call["function"]["name"]) == ("call-1", "weather")
    assert json.loads(tool_call["function"]["arguments"]) == {"city": "Rome", "days": 2}
    assert result == {"role": "tool", "tool_call_id": "call-1", "content": "Sunny"}
    assert image["content"] == [
        {"type": "text", "text": "Like this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}"}},
    ]


async def test_a_request_attaches_to_its_run_though_its_image_has_gone(listening: Served, stage: Stage) -> None:
    """The image is in the run already, and is not asked for again."""
    stage.chunks = 1
    async with hosting() as host:
        image = chat_pb2.Image(url=host.url)
        message = chat_pb2.ChatMessage(
            role=chat_pb2.ROLE_USER, parts=[chat_pb2.ContentPart(text="What is it?"), chat_pb2.ContentPart(image=image)]
        )
        request = chat_pb2.ChatRequest(conversation=chat_pb2.Conversation(messages=[message]), run_id="seen")
        first = aiter(listening.stub.Chat(request))
        assert (await anext(first)).event.started.run_id == "seen"
    again = aiter(listening.stub.Chat(request))
    assert (await anext(again)).event.started.run_id == "seen"


async def test_an_unknown_pipeline_has_no_image_fetched(listening: Served) -> None:
    """Whoever asks for nothing that is served sends this service nowhere."""
    async with hosting() as host:
        parts = [chat_pb2.ContentPart(image=chat_pb2.Image(url=host.url))]
        message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, parts=parts)
        request = chat_pb2.ChatRequest(conversation=chat_pb2.Conversation(messages=[message]), pipeline="nobody")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(listening.stub.Chat(request)))
        assert complaint_of(caught.value).code == "NOT_FOUND"
        assert host.heads == []
