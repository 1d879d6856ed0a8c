"""Whole conversations through the gateway: every role, tool calls and results, and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from haystack.dataclasses import ChatMessage, ImageContent, ToolCall

from tests.conftest import Browser, browsed, served
from tests.frames import frames_of
from tests.test_conversations import ENCODED, FILES
from tests.test_yaml_pipelines import written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes import Stage

WEATHER = ToolCall("weather", {"city": "Rome", "days": 2}, "call-1")
CALL = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Rome", "days": 2}'},
}
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}", "detail": "low"}}


def text(words: str) -> dict[str, str]:
    """Return a part of a message."""
    return {"type": "text", "text": words}


@pytest.fixture
async def page(tmp_path: Path, stage: Stage) -> AsyncIterator[Browser]:
    """A gateway to a pipeline that tells which messages it was given."""
    async with (
        served(written(tmp_path, FILES), default_pipeline="listener") as running,
        browsed(running.address) as browser,
    ):
        yield browser


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [
                {"role": "system", "content": "Be kind."},
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [text("Hel"), text("lo.")]},
                {"role": "assistant", "content": "Hi!"},
            ],
            [
                ChatMessage.from_system("Be kind."),
                ChatMessage.from_system("Be brief."),
                ChatMessage.from_user("Hello."),
                ChatMessage.from_assistant("Hi!"),
            ],
        ),
        (
            [
                {"role": "user", "content": "Rome?"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call-1", "content": "Sunny"},
            ],
            [
                ChatMessage.from_user("Rome?"),
                ChatMessage.from_assistant(tool_calls=[WEATHER]),
                ChatMessage.from_tool("Sunny", WEATHER),
            ],
        ),
        (
            [
                {
                    "role": "tool",
                    "tool_call_id": "call-9",
                    "name": "weather",
                    "content": [{"type": "text", "text": "Wet"}],
                }
            ],
            [ChatMessage.from_tool("Wet", ToolCall("weather", {}, "call-9"))],
        ),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Is this "}, PICTURE, {"type": "text", "text": "?"}],
                }
            ],
            [
                ChatMessage.from_user(
                    content_parts=["Is this ", ImageContent(ENCODED, "image/png", validation=False), "?"]
                )
            ],
        ),
    ],
    ids=["every role", "a tool is called", "a result without its call", "a picture between text"],
)
async def test_messages_arrive_as_haystacks(
    page: Browser, stage: Stage, messages: list[dict[str, Any]], expected: list[ChatMessage]
) -> None:
    """In the form that OpenAI's clients and front ends write."""
    frames = await frames_of(page, messages=messages)
    assert frames[-1].event == "end"
    [received] = stage.received
    assert received["messages"] == expected


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([{"role": "user", "content": [{"type": "text"}]}], "messages.0.content.0.text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages.0.content.0.image_url"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "messages.0.content.0.type"),
        ([{"role": "user", "content": 3}], "messages.0.content"),
        ([{"role": "user", "content": "a", "mood": "b"}], "messages.0.mood"),
        ([{"role": "user"}], "messages.0.content"),
        ([{"role": "tool", "tool_call_id": "c", "content": [PICTURE]}], "messages.0.content.0"),
        (
            [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[1]"}}]}],
            "messages.0.tool_calls.0.function.arguments",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[" * 9999}}]}],
            "messages.0.tool_calls.0.function.arguments",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": "\\ud800"}'}}]}],
            "messages.0.tool_calls.0.function.arguments",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}]}],
            "messages.0.content.0.image_url.url",
        ),
    ],
)
async def test_what_is_wrong_in_a_message_is_named(
    page: Browser, stage: Stage, messages: list[dict[str, Any]], field: str
) -> None:
    """To the field, and nothing runs."""
    answer = await page.http.post("/chat", json={"messages": messages})
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (422, [field])
    assert stage.received == []
