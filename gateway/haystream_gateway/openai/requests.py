"""What OpenAI's clients may ask, turned into the contract's request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from haystream_gateway.openai.turns import Turn, nullable
from haystream_gateway.requests import ChatBody, RunOptions
from haystream_gateway.sizes import MAX_MESSAGES

if TYPE_CHECKING:
    from haystream.v1 import chat_pb2


class _NullIsUnset(BaseModel):
    """As OpenAI reads JSON: a field that is null has not been set."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=nullable)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in cast("dict[str, Any]", value).items() if item is not None}


def _not_padded(wanted: bool) -> bool:
    if wanted:
        raise PydanticCustomError("not_padded", "chunks are not padded here; leave it out")
    return wanted


class StreamOptions(_NullIsUnset):
    """How to stream."""

    include_usage: Annotated[StrictBool, Field(description="Tell before the end what the run has cost.")] = False
    include_obfuscation: Annotated[
        StrictBool, AfterValidator(_not_padded), Field(json_schema_extra={"const": False})
    ] = False


class HaystreamOptions(_NullIsUnset, RunOptions):
    """What OpenAI has no words for; its client sends it by `extra_body`."""


class CompletionBody(_NullIsUnset):
    """What `POST /v1/chat/completions` takes.

    Other fields, such as `temperature`, `max_tokens` or `response_format`, go to all generators that stream.
    """

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(min_length=1, description="The name of a pipeline.", examples=["echo"])]
    messages: Annotated[
        list[Turn],
        Field(
            min_length=1,
            max_length=MAX_MESSAGES,
            fail_fast=True,
            description="The chat so far, the newest message last.",
        ),
    ]
    stream: Annotated[StrictBool, Field(description="Answer with chunks, as they come.")] = False
    stream_options: StreamOptions = StreamOptions()
    haystream: HaystreamOptions = HaystreamOptions()

    @property
    def parameters(self) -> dict[str, Any]:
        """All other parameters that are set."""
        return self.model_extra or {}

    def message(self, settings: dict[str, Any], api_key: str) -> chat_pb2.ChatRequest:
        """Return the contract's request, with the settings of its generation and the caller's key.

        A key of the request's own counts for more. Raises Rejection where something is wrong.
        """
        options = self.haystream.model_dump()
        options["api_key"] = options["api_key"] or SecretStr(api_key)
        body = ChatBody(pipeline=self.model, messages=[*self.messages], generation_kwargs=settings, **options)
        return body.message()
