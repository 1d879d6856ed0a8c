"""The official clients of OpenAI at a gateway."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import openai
from openai.types.chat import ChatCompletionChunk

from haystream_gateway.openai.schemas import Chunk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conftest import Browser

QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]


def client_of(browser: Browser, **options: Any) -> openai.AsyncOpenAI:
    """Return OpenAI's client of a gateway, which does not try again unless it is told to."""
    defaults: dict[str, Any] = {"api_key": "caller", "max_retries": 0, "timeout": 30}
    return openai.AsyncOpenAI(base_url=f"{browser.url}/v1", **{**defaults, **options})


def asked(client: openai.AsyncOpenAI, **body: Any) -> asyncio.Task[Any]:
    """Have a client ask, in a task of its own."""
    create: Any = client.chat.completions.create
    return asyncio.create_task(create(**{"model": "fake", "messages": QUESTION, **body}))


async def chunks_of(browser: Browser, **body: Any) -> list[ChatCompletionChunk]:
    """Have OpenAI's client read a whole stream."""
    async with client_of(browser) as client:
        return [chunk async for chunk in await asked(client, stream=True, **body)]


async def frames_of(browser: Browser, **body: Any) -> list[str]:
    """Read a whole stream as it is, frame by frame; fails where a frame is more than one line of data."""
    answer = await browser.http.post(
        "/v1/chat/completions", json={"model": "fake", "messages": QUESTION, "stream": True, **body}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    *frames, rest = answer.text.replace(": ping\n", "").split("\n\n")
    assert rest == ""
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [frame.removeprefix("data: ") for frame in frames]


def strictly(chunk: dict[str, Any]) -> ChatCompletionChunk:
    """Read a chunk as OpenAI defines it, and as the gateway does, with no more than what clients are known to keep."""
    Chunk.model_validate(chunk, strict=True)
    read = ChatCompletionChunk.model_validate(chunk, strict=True)
    assert (read.model_extra or {}).keys() <= {"haystream"}
    for choice in read.choices:
        assert not choice.model_extra
        assert (choice.delta.model_extra or {}).keys() <= {"reasoning_content"}
        for call in choice.delta.tool_calls or ():
            assert not call.model_extra
            assert call.function is not None
            assert not call.function.model_extra
    return read


def strict_chunks(frames: Sequence[str]) -> list[ChatCompletionChunk]:
    """Read the frames of a stream that came to its own end."""
    assert [frame for frame in frames if frame == "[DONE]"] == ["[DONE]"]
    assert frames[-1] == "[DONE]"
    return [strictly(json.loads(frame)) for frame in frames[:-1]]


def content_of(chunks: Sequence[ChatCompletionChunk]) -> str:
    """Join the text of a stream."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def extras_of(chunk: Any) -> dict[str, Any]:
    """Return what OpenAI has no place for."""
    extras: dict[str, Any] = getattr(chunk, "haystream", {})
    return extras
