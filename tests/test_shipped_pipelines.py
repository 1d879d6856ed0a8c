"""The shipped pipelines do what they are shown for; `local`, `rag`, `echo` and `openai` have their tests elsewhere."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, kinds_of, text_of
from tests.conftest import SHIPPED, served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Served


def alone(name: str, folder: Path) -> Path:
    """Return a folder with one of them."""
    shutil.copy(SHIPPED / f"{name}.py", folder)
    return folder


async def test_the_agent_calls_its_tools_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its script takes the question to the calculator, and tells what came of it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with served(alone("agent", tmp_path)) as running:
        events = await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="What is 12 * (7 - 2)?")))
    assert [kind for kind in dict.fromkeys(kinds_of(events)) if kind != "reasoning"] == [
        "started",
        "tool_call",
        "tool_result",
        "text",
        "finished",
    ]
    [result] = [event.tool_result for event in events if event.HasField("tool_result")]
    assert (result.name, result.result, result.is_error) == ("calculator", "60", False)
    assert "60" in text_of(events)


async def test_two_models_answer_the_same_question_each_under_its_name(tmp_path: Path) -> None:
    """And a request may choose one of them."""
    settings = {"max_tokens": 4}
    async with served(alone("two_models", tmp_path)) as running:
        request = chat_pb2.ChatRequest(query="Hello")
        request.generation_kwargs.update(settings)
        events = await all_events(running.stub.Chat(request))
        request.streaming_components.append("terse")
        chosen = await all_events(running.stub.Chat(request))
    assert {event.text.component for event in events if event.HasField("text")} == {"terse", "chatty"}
    assert {usage.component for usage in events[-1].finished.usage} == {"terse", "chatty"}
    assert {event.text.component for event in chosen if event.HasField("text")} == {"terse"}


async def remembered(running: Served, conversation: str, query: str) -> list[str]:
    """Ask within a conversation, and return what users had asked in it, this question included."""
    request = chat_pb2.ChatRequest(query=query, include_outputs_from=["retriever"])
    request.inputs.update({"conversation": {"id": conversation}})
    request.generation_kwargs.update({"max_tokens": 4})
    finished = (await all_events(running.stub.Chat(request)))[-1].finished
    messages = MessageToDict(finished.outputs)["retriever"]["messages"]
    return [message["content"][0]["text"] for message in messages if message["role"] == "user"]


async def test_memory_remembers_each_conversation_by_its_id(tmp_path: Path) -> None:
    """From one call to the next, and apart from all others."""
    async with served(alone("memory", tmp_path)) as running:
        assert await remembered(running, "mine", "I am Ada.") == ["I am Ada."]
        assert await remembered(running, "mine", "Who am I?") == ["I am Ada.", "Who am I?"]
        assert await remembered(running, "other", "Who am I?") == ["Who am I?"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="Who am I?")))
    assert list(complaint_of(caught.value).fields) == ["inputs.conversation.id"]
