"""The messages that OpenAI's clients send: what they echo of earlier answers is left out where it says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from haystream_gateway.messages import Function, ImageUrl, Message, Part, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable

# What a message may hold of an earlier answer that no pipeline can be given, and that is not to be lost silently.
_NOT_TAKEN = ("audio", "function_call")


def nullable(schema: dict[str, Any]) -> None:
    """Let the fields of a JSON Schema be null where they need not be set."""
    for name, field in schema["properties"].items():
        if name not in schema.get("required", ()):
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}]}


def _known(form: type[BaseModel], value: Any, **inner: Callable[[Any], Any]) -> Any:
    """Leave out of an object what its form does not know, and nulls; tidy what is inside."""
    if not isinstance(value, dict):
        return value
    given = cast("dict[str, Any]", value)
    known = {name: given[name] for name in form.model_fields if given.get(name) is not None}
    return {name: inner[name](item) if name in inner else item for name, item in known.items()}


def _each(tidy: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda items: [tidy(item) for item in cast("list[Any]", items)] if isinstance(items, list) else items


def _part(part: Any) -> Any:
    match part:
        case {"type": "refusal", "refusal": str(words)}:  # an answer, too, when it is read again
            return {"type": "text", "text": words}
        case _:
            return _known(Part, part, image_url=lambda url: _known(ImageUrl, url))


def _call(call: Any) -> Any:
    return _known(ToolCall, call, function=lambda function: _known(Function, function))


class Turn(Message):
    """One turn of a chat, in the form of OpenAI's; further fields are passed over."""

    model_config = ConfigDict(extra="ignore", json_schema_extra=nullable)

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, message: Any) -> Any:
        if not isinstance(message, dict):
            return message
        given = cast("dict[str, Any]", message)
        for name in _NOT_TAKEN:
            if given.get(name) is not None:
                raise PydanticCustomError("not_taken", "{name} is not taken here; leave it out", {"name": name})
        if given.get("content") is None and isinstance(given.get("refusal"), str):
            given = {**given, "content": given["refusal"]}
        return _known(Message, given, content=_each(_part), tool_calls=_each(_call))
