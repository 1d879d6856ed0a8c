"""The open input sockets of a pipeline: which of them callers may set, to what, and where the question goes."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, cast, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from haystream_service.errors import PipelineFileError

if TYPE_CHECKING:
    from haystack import Pipeline

STREAMING_CALLBACK = "streaming_callback"
GENERATION_KWARGS = "generation_kwargs"
MESSAGES = "messages"
TIMEOUT = "timeout"

# The names that Haystack's own components and templates give to the question, the surest first.
QUESTION_NAMES = (("query", "question"), (MESSAGES, "prompt", "text"))

_JSON_ATOMS = (str, int, float, bool, type(None))
_JSON_CONTAINERS = (list, dict, Sequence, Mapping)


@dataclass(frozen=True, slots=True)
class Socket:
    """An input that nothing inside the pipeline feeds. `values` is None where JSON cannot express any value."""

    component: str
    name: str
    is_mandatory: bool
    default: Any
    values: TypeAdapter[Any] | None

    @property
    def path(self) -> str:
        """The socket's place in a request."""
        return f"inputs.{self.component}.{self.name}"

    def complaint(self, value: object) -> str | None:
        """Say what is wrong with a value from a request; None where nothing is."""
        if self.values is None:
            return "this input cannot be set by a request"
        try:
            self.values.validate_python(value, strict=True)
        except ValidationError as error:
            return error.errors(include_url=False, include_input=False)[0]["msg"]
        return None

    def schema(self) -> dict[str, Any]:
        """Return the socket's JSON Schema."""
        schema = self.values.json_schema() if self.values is not None else {}
        if not self.is_mandatory and _has_json_form(self.default):
            schema["default"] = self.default
        return schema


def open_sockets(pipeline: Pipeline) -> dict[tuple[str, str], Socket]:
    """Return the pipeline's open sockets by component and name, the streaming callbacks aside: those are ours."""
    return {
        (component, name): Socket(
            component, name, details["is_mandatory"], details.get("default_value"), _values(details["type"])
        )
        for component, sockets in pipeline.inputs().items()
        for name, details in sockets.items()
        if name != STREAMING_CALLBACK
    }


def question_sockets(sockets: Mapping[tuple[str, str], Socket]) -> list[Socket]:
    """Return the sockets that take the question. Raises PipelineFileError where none does."""
    for names in QUESTION_NAMES:
        found = [socket for socket in sockets.values() if socket.name in names and socket.is_mandatory]
        if found:
            return found
    raise PipelineFileError(
        "no input takes the question: leave one open that is mandatory and named "
        + ", ".join(name for names in QUESTION_NAMES for name in names)
    )


def _has_json_form(value: object) -> bool:
    return isinstance(value, str | int | float | bool | list | dict)


def _values(annotation: Any) -> TypeAdapter[Any] | None:
    """Return what checks and describes a socket's values; None where its type has none that JSON can express."""
    json_type = _json_part(annotation)
    return None if json_type is None else TypeAdapter(json_type, config=ConfigDict(arbitrary_types_allowed=False))


def _json_part(annotation: Any) -> Any:
    """Return the part of a type that JSON can express: of a union its plain members, of a class of Haystack's none."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any or annotation in _JSON_ATOMS or annotation in _JSON_CONTAINERS or origin is Literal:
        return annotation
    if origin in (Union, types.UnionType):
        parts = [part for part in map(_json_part, arguments) if part is not None]
        wanted = [part for part in parts if part is not type(None)]
        return cast("Any", Union[*parts]) if wanted else None
    if origin in _JSON_CONTAINERS and all(part is ... or _json_part(part) == part for part in arguments):
        return annotation
    return None
