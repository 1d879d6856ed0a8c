"""The open input sockets of a pipeline: what they take, which of them callers may set, and within which limits."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, cast, get_args, get_origin

from haystack.dataclasses import ChatMessage
from jsonschema import Draft202012Validator
from pydantic import ConfigDict, TypeAdapter, ValidationError

from haystream_service.errors import PipelineFileError, named
from haystream_service.pipelines.json_values import json_safe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haystream_service.pipelines.files.manifest import Manifest

STREAMING_CALLBACK = "streaming_callback"
GENERATION_KWARGS = "generation_kwargs"
TIMEOUT = "timeout"

# What would let a caller rewrite what its owner wrote, unless that one lists it: prompts, filters, hooks.
RESERVED_SOCKETS = frozenset(
    {"template", "template_variables", "system_prompt", "user_prompt", "filters", "hook_context"}
)

# The settings of a generation that callers may make, unless the owner says which. Any other may choose what is billed,
# or reach around the pipeline, with providers that take whatever they are given.
SETTINGS = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_sequences", "logit_bias"),
        *("max_tokens", "max_completion_tokens", "max_new_tokens", "max_output_tokens"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty"),
        *("reasoning_effort", "verbosity", "response_format"),
    }
)

_JSON_ATOMS = (str, int, float, bool, type(None))
_JSON_CONTAINERS = (list, dict, Sequence, Mapping)


@dataclass(frozen=True, slots=True)
class Socket:
    """An input that nothing inside the pipeline feeds.

    `values` is None where JSON cannot express any value. `limits` are JSON Schema keywords, and None where callers may
    not set the input at all.
    """

    component: str
    name: str
    is_mandatory: bool
    default: Any
    annotation: Any
    values: TypeAdapter[Any] | None
    limits: Mapping[str, Any] | None

    @property
    def path(self) -> str:
        """The socket's name in the pipeline."""
        return f"{self.component}.{self.name}"

    @property
    def is_settable(self) -> bool:
        """Whether callers may set it."""
        return self.limits is not None and self.values is not None

    @property
    def takes_messages(self) -> bool:
        """Whether a conversation can go there."""
        return any(
            get_origin(part) is list and get_args(part) == (ChatMessage,) for part in _members(self.annotation)
        )  # in either spelling of lists

    @property
    def takes_text(self) -> bool:
        """Whether a question can go there as text."""
        return any(part in (str, Any) for part in _members(self.annotation))

    def complaint(self, value: Any) -> str | None:
        """Say what is wrong with a value from a request; None where nothing is."""
        if self.limits is None:
            return "callers may not set this input; leave it out"
        if self.values is None:
            return "this input cannot be set by a request; leave it out"
        try:
            self.values.validate_python(value, strict=True)
        except ValidationError as error:
            return error.errors(include_url=False, include_input=False)[0]["msg"]
        return self.complaint_about_limits(value)

    def schema(self) -> dict[str, Any]:
        """Return the socket's JSON Schema."""
        schema = self.values.json_schema() if self.values is not None else {}
        if not self.is_mandatory and _has_json_form(self.default):
            schema["default"] = self.default
        if (settings := self._settings()) is not None:
            schema["propertyNames"] = {"enum": sorted(settings)}
        return {**schema, **json_safe(self.limits or {})}

    def _settings(self) -> frozenset[str] | None:
        """Return the settings of a generation that callers may make here; None where this input is no such thing."""
        if self.name != GENERATION_KWARGS:
            return None
        listed: Mapping[str, Any] = (self.limits or {}).get("properties", {})
        return SETTINGS | listed.keys()

    def complaint_about_limits(self, value: Any) -> str | None:
        """Say which limit a value is over, in our own words: those of the library repeat the value."""
        for error in Draft202012Validator(dict(self.limits or {})).iter_errors(value):  # pyright: ignore[reportUnknownMemberType]  # its second argument
            where = "".join(f".{part}" for part in error.path)
            if error.validator == "type":
                return f"expected {self.name}{where} to be of type {error.validator_value}"
            return f"the limit of {self.name}{where} here is {error.validator}: {error.validator_value}"
        settings = self._settings()
        if settings is not None and isinstance(value, dict):
            others = cast("dict[str, Any]", value).keys() - settings
            return f"callers may not set {named(list(others))}; leave it out" if others else None
        return None


def open_sockets(pipeline: Any, manifest: Manifest) -> dict[tuple[str, str], Socket]:
    """Return the pipeline's open sockets by component and name, the streaming callbacks aside: those are ours.

    Raises PipelineFileError where the manifest names one that is not there, or that no request can set.
    """
    sockets = {
        (component, name): Socket(
            component,
            name,
            details["is_mandatory"],
            details.get("default_value"),
            details["type"],
            _values(details["type"]),
            _limits(f"{component}.{name}", name, manifest),
        )
        for component, inputs in pipeline.inputs().items()
        for name, details in inputs.items()
        if name != STREAMING_CALLBACK
    }
    for path in manifest.inputs or ():
        if named_socket(sockets, path, "inputs").values is None:
            raise PipelineFileError(f"`inputs`: no request can set {path}, whose type JSON cannot express; remove it")
    return sockets


def named_socket(sockets: Mapping[tuple[str, str], Socket], path: str, key: str) -> Socket:
    """Return the socket of a path in the manifest. Raises PipelineFileError."""
    component, _, name = path.partition(".")
    if (component, name) not in sockets:
        open_paths = named([socket.path for socket in sockets.values()])
        raise PipelineFileError(f"`{key}`: there is no open input {path}; this pipeline has {open_paths}")
    return sockets[component, name]


def _limits(path: str, name: str, manifest: Manifest) -> Mapping[str, Any] | None:
    if manifest.inputs is None:
        return None if name in RESERVED_SOCKETS else {}
    return manifest.inputs.get(path)


def _members(annotation: Any) -> Iterable[Any]:
    """Return the members of a union, or else the type itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _has_json_form(value: object) -> bool:
    return isinstance(value, str | int | float | bool | list | dict) and json_safe(value) == value


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
