"""What is sent, as the OpenAPI document shows it, where fastapi-openai-compat's models do not fit.

Its chunks have a role in each delta, which OpenAI's have not, and it knows no errors.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from haystream_gateway.openai.ending import FinishReason  # noqa: TC001 - pydantic reads the annotations


class _Documented(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CalledFunction(_Documented):
    """The name comes in the first piece of a call; the arguments are text to append."""

    name: str = ""
    arguments: str


class ToolCallDelta(_Documented):
    """A piece of a tool call; `id` and `type` come in its first one."""

    index: int
    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class Delta(_Documented):
    """What to append to the answer. Empty in chunks that carry something else."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    reasoning_content: str = ""
    tool_calls: list[ToolCallDelta] = []


class ChunkChoice(_Documented):
    """The only choice. The last one, and no other, has a reason."""

    index: Literal[0]
    delta: Delta
    finish_reason: FinishReason | None


class UsageSum(_Documented):
    """What all components have used together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Chunk(_Documented):
    """A piece of a completion. In `haystream` is what OpenAI has no place for: run id, results, documents and so on."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: UsageSum | None = None
    haystream: dict[str, Any] = {}


class ErrorObject(_Documented):
    """Why a request is refused, or a stream ends early."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorDocument(_Documented):
    """What is answered instead; in a stream it is the last frame, and no `[DONE]` follows."""

    error: ErrorObject
