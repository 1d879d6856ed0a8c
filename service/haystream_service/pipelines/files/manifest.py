"""What a pipeline's owner says of it: a YAML file's `haystream:` block or hayhooks' mapping, or Python's HAYSTREAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, ValidationError

from haystream_service.errors import PipelineFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK = "haystream"
QUESTION_NAMES = (("query", "question"), ("messages",), ("prompt",), ("text",))

# What limits a value, apart from what leads to another schema, and what only describes it.
_KEYWORDS = frozenset(Draft202012Validator.VALIDATORS) - {"$ref", "$dynamicRef"} | {
    *("title", "description", "default", "examples", "deprecated", "$comment", "then", "else")
}

# What pydantic calls a complaint, in the words of those who write the file.
_WORDS = {
    "extra_forbidden": "there is no such key",
    "string_type": "expected text",
    "tuple_type": "expected a name, or a list of names",
    "too_short": "expected at least one",
    "dict_type": "expected names and values",
}


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _is_path(path: str) -> str:
    if not all(path.partition(".")):
        raise ValueError(f"expected component.socket, such as prompt_builder.query, not {path!r}")
    return path


def _limits_by_path(value: object) -> object:
    """Take a list of paths as well, which sets no limits; an empty value likewise."""
    if isinstance(value, list):
        value = dict.fromkeys(cast("list[Any]", value))
    if isinstance(value, dict):
        empty: dict[str, Any] = {}
        return {path: limits or empty for path, limits in cast("dict[Any, Any]", value).items()}
    return value


def _is_schema(limits: dict[str, Any]) -> dict[str, Any]:
    try:
        Draft202012Validator.check_schema(limits)
    except SchemaError as error:
        odd = ".".join(map(str, error.path)) or "it"
    else:
        odd = _odd_keyword(limits)
    if odd:
        raise ValueError(f"expected JSON Schema keywords, such as maximum; {odd} is none that is known here")
    return limits


def _odd_keyword(limits: dict[str, Any]) -> str:
    """Return a keyword that would limit nothing, since it is misspelt, or that leads elsewhere."""
    odd = next((str(name) for name in limits if name not in _KEYWORDS), "")
    properties: dict[str, Any] = limits.get("properties", {})
    return odd or next(
        (
            found
            for inner in properties.values()
            if isinstance(inner, dict) and (found := _odd_keyword(cast("dict[str, Any]", inner)))
        ),
        "",
    )


SocketPath = Annotated[str, AfterValidator(_is_path)]
SocketPaths = Annotated[tuple[SocketPath, ...], BeforeValidator(_listed)]
QuestionPaths = Annotated[SocketPaths, Field(min_length=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Limits = Annotated[dict[str, Any], AfterValidator(_is_schema)]


class Manifest(BaseModel):
    """What callers may know and do. What is None was not said: Haystream finds it by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    query: QuestionPaths | None = None
    messages: QuestionPaths | None = None
    streaming_components: Annotated[Literal["all", "last"] | Names, Field(union_mode="left_to_right")] | None = None
    inputs: Annotated[dict[SocketPath, Limits], BeforeValidator(_limits_by_path)] | None = None
    outputs: SocketPaths | None = None
    api_key_components: Names | None = None
    timeout_seconds: PositiveFloat | None = None

    @property
    def question(self) -> tuple[str, ...] | None:
        """Where the question goes, whether that is one or a conversation."""
        if self.query is None and self.messages is None:
            return None
        return (*(self.query or ()), *(self.messages or ()))


def manifest_of(block: object, *, hayhooks: Mapping[str, Any] | None = None) -> Manifest:
    """Return what a block says, on top of hayhooks' mapping in the same file. Raises PipelineFileError."""
    if block is not None and not isinstance(block, dict):
        raise PipelineFileError(f"`{BLOCK}`: expected names and values, such as `description: …`")
    said = cast("dict[str, Any]", block or {})
    try:
        return Manifest.model_validate({**_of_hayhooks(hayhooks or {}, said), **said})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(part for part in first["loc"] if isinstance(part, str) and part != "[key]")
        known = f"; it has {', '.join(Manifest.model_fields)}" if first["type"] == "extra_forbidden" else ""
        why = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise PipelineFileError(f"`{BLOCK}.{path}`: {why}{known}") from None


def _of_hayhooks(mapping: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Read the keys that hayhooks has at a YAML file's top: inputs and outputs by a name of their own, what streams.

    https://deepset-ai.github.io/hayhooks/concepts/yaml-pipeline-deployment/
    """
    found: dict[str, Any] = {}
    if inputs := _paths_by_name(mapping, "inputs"):
        question = () if {"query", "messages"} & said.keys() else _names_of_question(list(inputs))
        found["query"] = [path for name in question for path in inputs[name]]
        others = [path for name, paths in inputs.items() if name not in question for path in paths]
        found["inputs"] = [path for path in others if path not in {*_listed_or_none(said), *found["query"]}]
        if not question:
            del found["query"]
    if outputs := _paths_by_name(mapping, "outputs"):
        found["outputs"] = [paths[0] for paths in outputs.values()]
    if found or "streaming_components" in mapping:
        # Its own default: a model that only rewrites the question is not shown.
        found["streaming_components"] = mapping.get("streaming_components") or "last"
    return found


def _listed_or_none(said: Mapping[str, Any]) -> list[str]:
    """Return where a block sends the question; anything odd in it is found when the block itself is read."""
    places = [_listed(said.get(name)) for name in ("query", "messages")]
    return [path for place in places if isinstance(place, list) for path in cast("list[Any]", place)]


def _paths_by_name(mapping: Mapping[str, Any], key: Literal["inputs", "outputs"]) -> dict[str, list[str]]:
    declared: object = mapping.get(key)
    if declared is None:
        return {}
    if not isinstance(declared, dict):
        raise PipelineFileError(f"`{key}`: expected names and paths, such as `query: prompt_builder.query`")
    paths = {str(name): _listed(path) for name, path in cast("dict[object, object]", declared).items()}
    for name, path in paths.items():
        places = cast("list[object]", path) if isinstance(path, list) else []
        if not places or not all(isinstance(place, str) and all(place.partition(".")) for place in places):
            raise PipelineFileError(f"`{key}.{name}`: expected a path such as component.socket, or a list of them")
    return cast("dict[str, list[str]]", paths)


def _names_of_question(names: list[str]) -> list[str]:
    """Return the names in hayhooks' mapping that mean the question. Raises PipelineFileError where it is not clear."""
    found = [present for group in QUESTION_NAMES if (present := [name for name in group if name in names])]
    if len(found) == 1:
        return found[0]
    if not found and len(names) == 1:
        return names
    candidates = [name for group in found for name in group] or names
    raise PipelineFileError(
        f"it is not clear which of `inputs` is the question: {', '.join(candidates)}. "
        f"Say it: `{BLOCK}: {{query: component.socket}}`, with the path of one of them"
    )
