"""What callers may set beside the question: shown as JSON Schema, checked against it, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - Haystack reads the annotations of `run`
from typing import TYPE_CHECKING, Any, Literal

import grpc.aio
import jsonschema
import pytest
from google.protobuf import json_format
from haystack import Document, component
from haystack.dataclasses import ChatMessage, StreamingCallbackT  # noqa: TC002 - as above

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import served
from tests.fakes import stage
from tests.test_refusals import refused
from tests.test_yaml_pipelines import asking, described, prompted, written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmock.pytest_plugin import LLMock

    from tests.calls import Complaint
    from tests.conftest import Served
    from tests.fakes import Stage


@component
class Taker:
    """Takes all kinds of inputs, and tells the test what it was given."""

    @component.output_types(text=str)
    async def run_async(
        self,
        query: str,
        count: int,
        ratio: float = 0.5,
        flag: bool = False,
        name: str | None = None,
        names: Sequence[str] = (),
        scores: list[float] | None = None,
        extra: Mapping[str, Any] | None = None,
        kind: Literal["kind", "terse"] = "kind",
        anything: Any = None,
        limit: float = float("inf"),
        lookup: dict[str, Any] = {"by": ...},  # noqa: B006 - nobody changes it
        documents: list[Document] | None = None,
        messages: list[ChatMessage] | None = None,
        template: str = "the owner's",
        generation_kwargs: dict[str, Any] | None = None,
        streaming_callback: StreamingCallbackT | None = None,
    ) -> dict[str, str]:
        given = {name: value for name, value in locals().items() if name not in {"self", "streaming_callback"}}
        stage().received.append(given)
        return {"text": "taken"}

    @component.output_types(text=str)
    def run(
        self,
        query: str,
        count: int,
        ratio: float = 0.5,
        flag: bool = False,
        name: str | None = None,
        names: Sequence[str] = (),
        scores: list[float] | None = None,
        extra: Mapping[str, Any] | None = None,
        kind: Literal["kind", "terse"] = "kind",
        anything: Any = None,
        limit: float = float("inf"),
        lookup: dict[str, Any] = {"by": ...},  # noqa: B006 - nobody changes it
        documents: list[Document] | None = None,
        messages: list[ChatMessage] | None = None,
        template: str = "the owner's",
        generation_kwargs: dict[str, Any] | None = None,
        streaming_callback: StreamingCallbackT | None = None,
    ) -> dict[str, str]:
        raise NotImplementedError


TAKER = """
from tests.test_inputs import Taker

{said}

def build():
    return Taker()
"""

LIMITS = {
    "taker.count": {"minimum": 1, "maximum": 10},
    "taker.names": {"maxItems": 2, "items": {"maxLength": 3}},
    "taker.template": {"enum": ["long", "short"]},
    "taker.generation_kwargs": {
        "properties": {"max_tokens": {"maximum": 100}, "model": {"enum": ["small", "large"]}},
        "additionalProperties": False,
    },
}

FILES = {
    "open.py": TAKER.format(said=""),
    "limited.py": TAKER.format(said=f"HAYSTREAM = {{'inputs': {LIMITS!r}}}"),
    "listed.py": TAKER.format(said="HAYSTREAM = {'inputs': ['taker.count', 'taker.flag']}"),
}

PIPELINES = ("open", "limited", "listed")


@pytest.fixture
async def taking(tmp_path: Path, stage: Stage) -> AsyncIterator[Served]:
    """A service whose pipelines take all kinds of inputs; of two the owner says which."""
    async with served(written(tmp_path, FILES), default_pipeline="open") as running:
        yield running


def setting(pipeline: str, inputs: dict[str, Any], settings: dict[str, Any] | None = None) -> chat_pb2.ChatRequest:
    """Return a request that sets inputs of the one component."""
    request = {"query": "q", "pipeline": pipeline, "inputs": {"taker": inputs}, "generationKwargs": settings or {}}
    return json_format.ParseDict(request, chat_pb2.ChatRequest())


async def schema_of(running: Served, pipeline: str) -> dict[str, Any]:
    """Return the schema of a pipeline's inputs, as a caller reads it."""
    seen = await described(running, pipeline)
    schema: dict[str, Any] = json_format.MessageToDict(seen.inputs_schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


async def test_the_schema_shows_types_defaults_and_what_is_required(taking: Served) -> None:
    """Of all open inputs that a request can set; neither callbacks nor prompts, nor what JSON cannot express."""
    schema = await schema_of(taking, "open")
    assert (schema["additionalProperties"], list(schema["properties"])) == (False, ["taker"])
    assert schema["required"] == ["taker"]
    taker = schema["properties"]["taker"]
    assert (taker["additionalProperties"], taker["required"]) == (False, ["count"])  # the question fills `query`
    generation_kwargs = taker["properties"].pop("generation_kwargs")
    assert {"type": "null"} in generation_kwargs["anyOf"]
    assert taker["properties"] == {
        "query": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number", "default": 0.5},
        "flag": {"type": "boolean", "default": False},
        "name": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "names": {"type": "array", "items": {"type": "string"}},
        "scores": {"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "null"}]},
        "extra": {"anyOf": [{"type": "object", "additionalProperties": True}, {"type": "null"}]},
        "kind": {"type": "string", "enum": ["kind", "terse"], "default": "kind"},
        "anything": {},
        "limit": {"type": "number"},
        "lookup": {"type": "object", "additionalProperties": True},
    }


async def test_the_schema_shows_exactly_what_its_owner_lists(taking: Served) -> None:
    """With the limits; what is not listed is not there, and cannot be set."""
    taker = (await schema_of(taking, "limited"))["properties"]["taker"]
    assert sorted(taker["properties"]) == ["count", "generation_kwargs", "names", "template"]
    assert taker["properties"]["count"] == {"type": "integer", "minimum": 1.0, "maximum": 10.0}
    assert taker["properties"]["names"] == {"type": "array", "maxItems": 2.0, "items": {"maxLength": 3.0}}
    assert taker["required"] == ["count"]
    listed = (await schema_of(taking, "listed"))["properties"]["taker"]
    assert sorted(listed["properties"]) == ["count", "flag"]


# A pipeline, what a caller sets of it and in `generation_kwargs`; all of it arrives.
TAKEN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "open",
        {
            "count": 3,
            "ratio": 2,
            "flag": True,
            "name": None,
            "names": ["a", "b"],
            "scores": [1, 2.5],
            "extra": {"deep": [{"er": 1}]},
            "kind": "terse",
            "anything": [1, {"a": None}],
            "query": "another",
        },
        {"temperature": 0.5, "stop": ["x"]},
    ),
    ("limited", {"count": 10, "names": ["abc", "b"], "template": "long"}, {"max_tokens": 100, "model": "large"}),
    ("listed", {"count": -1, "flag": True}, {}),
]


async def test_what_may_be_set_arrives(taking: Served, stage: Stage) -> None:
    """As Python's values: whole numbers whole, nothing where nothing was said."""
    for pipeline, inputs, settings in TAKEN:
        stage.received.clear()
        await all_events(taking.stub.Chat(setting(pipeline, inputs, settings)))
        [given] = stage.received
        assert {name: given[name] for name in inputs} == inputs
        assert given["generation_kwargs"] == (settings or None)
        assert type(given["count"]) is int


# A pipeline, what a caller sets of it and in `generation_kwargs`, the field that is named, and what is said of it.
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("open", {}, {}, "inputs.taker.count", "needs a value"),
    ("open", {"count": "3"}, {}, "inputs.taker.count", "valid integer"),
    ("open", {"count": 1.5}, {}, "inputs.taker.count", "valid integer"),
    ("open", {"count": True}, {}, "inputs.taker.count", "valid integer"),
    ("open", {"count": None}, {}, "inputs.taker.count", "valid integer"),
    ("open", {"count": 1, "flag": 1}, {}, "inputs.taker.flag", "valid boolean"),
    ("open", {"count": 1, "ratio": "1"}, {}, "inputs.taker.ratio", "valid number"),
    ("open", {"count": 1, "names": "abc"}, {}, "inputs.taker.names", "Sequence"),
    ("open", {"count": 1, "names": ["a", 1]}, {}, "inputs.taker.names", "valid string"),
    ("open", {"count": 1, "kind": "rude"}, {}, "inputs.taker.kind", "'kind' or 'terse'"),
    ("open", {"count": 1, "extra": []}, {}, "inputs.taker.extra", "valid dictionary"),
    ("open", {"count": 1, "documents": []}, {}, "inputs.taker.documents", "cannot be set by a request"),
    ("open", {"count": 1, "messages": []}, {}, "inputs.taker.messages", "cannot be set by a request"),
    ("open", {"count": 1, "template": "mine"}, {}, "inputs.taker.template", "callers may not set this input"),
    ("open", {"count": 1, "streaming_callback": "f"}, {}, "inputs.taker.streaming_callback", "the service's own"),
    ("open", {"count": 1, "nothing": 1}, {}, "inputs.taker.nothing", "callers may set anything, count, extra, flag"),
    ("open", {"count": 1}, {"model": "large"}, "generation_kwargs", "callers may not set model; leave it out"),
    ("open", {"count": 1}, {"extra_headers": {"x": "y"}}, "generation_kwargs", "callers may not set extra_headers"),
    (
        "open",
        {"count": 1, "generation_kwargs": {"tools": [], "timeout": 1}},
        {},
        "inputs.taker.generation_kwargs",
        "callers may not set timeout, tools",
    ),
    ("limited", {"count": 11}, {}, "inputs.taker.count", "the limit of count here is maximum: 10"),
    ("limited", {"count": 0}, {}, "inputs.taker.count", "the limit of count here is minimum: 1"),
    ("limited", {"count": "x"}, {}, "inputs.taker.count", "valid integer"),
    ("limited", {"count": 1, "names": ["a", "b", "c"]}, {}, "inputs.taker.names", "maxItems: 2"),
    ("limited", {"count": 1, "names": ["a", "bbbb"]}, {}, "inputs.taker.names", "names.1 here is maxLength: 3"),
    ("limited", {"count": 1, "template": "mine"}, {}, "inputs.taker.template", "enum: ['long', 'short']"),
    ("limited", {"count": 1}, {"max_tokens": 101}, "generation_kwargs", "generation_kwargs.max_tokens here is maximum"),
    ("limited", {"count": 1}, {"model": "huge"}, "generation_kwargs", "generation_kwargs.model here is enum"),
    ("limited", {"count": 1}, {"stop": ["x"]}, "generation_kwargs", "additionalProperties"),
    ("limited", {"count": 1, "ratio": 1}, {}, "inputs.taker.ratio", "callers may not set this input"),
    ("listed", {"count": 1}, {"temperature": 1}, "generation_kwargs", "no component of this pipeline takes generation"),
    ("listed", {"count": 1, "query": "q"}, {}, "inputs.taker.query", "callers may not set this input"),
]


async def test_what_may_not_be_set_is_named_with_its_cure(taking: Served, stage: Stage) -> None:
    """Of another type, over its limit, the owner's own, or not there at all; and nothing has begun."""
    for pipeline, inputs, settings, field, words in REFUSED:
        complaint = await refused(taking, setting(pipeline, inputs, settings))
        assert (complaint.code, complaint.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        assert list(complaint.fields) == [field], (inputs, settings)
        assert words in complaint.fields[field], complaint.fields
    assert stage.received == []


async def test_the_schema_lets_pass_what_the_service_takes_and_nothing_else(taking: Served) -> None:
    """Whoever checks against it first is not refused; what is refused is refused by it."""
    schemas = {name: await schema_of(taking, name) for name in PIPELINES}
    for pipeline, inputs, settings in TAKEN:
        jsonschema.validate(as_inputs(inputs, settings), schemas[pipeline])
    for pipeline, inputs, settings, _, _ in REFUSED:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(as_inputs(inputs, settings), schemas[pipeline])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schemas["open"])


def as_inputs(inputs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a request sets as its `inputs` alone could."""
    return {"taker": {**inputs, "generation_kwargs": settings} if settings else inputs}


async def test_all_that_is_wrong_with_a_request_is_named_at_once(taking: Served) -> None:
    """Inputs, settings and conversation together."""
    request = setting("limited", {"count": 11, "ratio": 1}, {"stop": ["x"]})
    request.conversation.messages.add(role=chat_pb2.ROLE_TOOL).parts.add(text="Sunny")
    complaint = await refused(taking, request)
    assert set(complaint.fields) == {
        "inputs.taker.count",
        "inputs.taker.ratio",
        "generation_kwargs",
        "conversation.messages[0].parts",
    }


async def test_prompts_are_their_owners_unless_listed(tmp_path: Path) -> None:
    """A caller who could set a template could say anything in the owner's name."""
    said = prompted("{{ query }}", rest="haystream: {inputs: [prompt_builder.template]}")
    inputs = {"prompt_builder": {"template": "Mine: {{ query }}"}}
    async with served(written(tmp_path, {"unsaid.yaml": prompted("{{ query }}"), "said.yaml": said})) as running:
        complaint = await refused(running, asking("q", pipeline="unsaid", inputs=inputs))
        allowed = await all_events(running.stub.Chat(asking("q", pipeline="said", inputs=inputs)))
        schema = json_format.MessageToDict((await described(running, "unsaid")).inputs_schema)["properties"]
    assert complaint.fields == {"inputs.prompt_builder.template": "callers may not set this input; leave it out"}
    assert text_of(allowed) == "Mine: q"
    assert list(schema["prompt_builder"]["properties"]) == ["query"]


async def test_a_timeout_of_the_pipelines_own_ends_its_runs(tmp_path: Path, stage: Stage) -> None:
    """However long the service and the caller would wait; a run that has no reader ends as well."""
    source = """
from tests.fakes import AsyncFake, pipeline_of
HAYSTREAM = {"timeout_seconds": 0.2}

def build():
    return pipeline_of(AsyncFake())
"""
    complaints: list[Complaint] = []
    async with served(written(tmp_path, {"slow.py": source})) as running:
        for going_on in (chat_pb2.ON_DISCONNECT_UNSPECIFIED, chat_pb2.ON_DISCONNECT_CONTINUE):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", on_disconnect=going_on), timeout=30))
            complaints.append(complaint_of(caught.value))
    assert [(complaint.code, complaint.reason) for complaint in complaints] == [("DEADLINE_EXCEEDED",) * 2] * 2
    assert stage.cancelled.is_set()


async def test_a_key_among_the_settings_is_no_way_around(tmp_path: Path, llmock: LLMock) -> None:
    """What reaches a provider is the owner's model, whatever a caller asks for in whichever place."""
    llmock.tool_mode("off").reply("Yes.")
    source = prompted("{{ query }}").replace(
        "haystack.components.generators.chat.mock.MockChatGenerator\n    init_parameters: {}",
        "haystack.components.generators.chat.openai.OpenAIChatGenerator\n    init_parameters: {model: small}",
    )
    async with served(written(tmp_path, {"openai.yaml": source})) as running:
        for inputs in ({"generation_kwargs": {"model": "large"}}, {"tools": [{"name": "x"}]}):
            await refused(running, asking("q", inputs={"llm": inputs}))
        request = asking("q", generation_kwargs={"temperature": 0.5})
        assert text_of(await all_events(running.stub.Chat(request))) == "Yes."
    assert len(llmock.requests) == 1
    assert (llmock.last_request.body["model"], llmock.last_request.body["temperature"]) == ("small", 0.5)
