"""How much a body may bring to the gateway: at the limits, one past them, and as hostile as it can be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from haystream_gateway import sizes
from haystream_gateway.bodies import MAX_COMPLAINTS, MAX_LISTED
from haystream_gateway.sizes import (
    MAX_BODY_VALUES,
    MAX_DEPTH,
    MAX_NAMES,
    MAX_PARTS,
    MAX_TOOL_CALLS,
    MAX_VALUES,
    has_more_values,
)
from haystream_service import sizes as service_sizes
from haystream_service import structs as service_structs
from haystream_service.errors import MAX_VIOLATIONS
from haystream_service.status import MAX_TEXT_BYTES
from tests.conftest import browsed, served
from tests.frames import frames_of
from tests.scripted import Scripted, behind_gateway
from tests.test_conversations import FILES
from tests.test_yaml_pipelines import written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Browser
    from tests.fakes import Stage

MANY = 100_000
NOTHING: dict[str, Any] = {}
PICTURE = {"type": "image_url", "image_url": {"url": "https://x/", "detail": "low"}}
ANSWER_BYTES = 8_000  # six complaints, each with a field and words that were clipped, twice


@pytest.fixture
def service() -> Scripted:
    """A service that notes what reaches it."""
    return Scripted()


@pytest.fixture
async def page(service: Scripted) -> AsyncIterator[Browser]:
    """A gateway to it."""
    async with behind_gateway(service) as browser:
        yield browser


def nested(depth: int) -> dict[str, Any]:
    """Return so many objects and lists inside each other."""
    value: Any = 1
    for level in range(depth - 1):
        value = [value] if level % 2 else {"a": value}
    return {"a": value}


def message(**fields: Any) -> list[dict[str, Any]]:
    """Return a conversation of one message."""
    return [{"role": "assistant", "content": "q", **fields}]


def call(arguments: str) -> dict[str, Any]:
    """Return a tool call."""
    return {"id": "c", "function": {"name": "f", "arguments": arguments}}


def counted(value: Any) -> int:
    """Return how many values there are inside a value; what is empty counts as if there were one in it."""
    match value:
        case dict():
            items = list(cast("dict[str, Any]", value).values())
        case list():
            items = cast("list[Any]", value)
        case _:
            return 0
    return sum(map(counted, items)) + max(1, len(items))


async def complaints(page: Browser, body: dict[str, Any] | bytes) -> list[dict[str, str]]:
    """Ask, and return what is said to be wrong, in an answer that is short."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await page.http.post("/chat", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text[:200]
    assert len(answer.content) < ANSWER_BYTES
    errors: list[dict[str, str]] = answer.json()["errors"]
    return errors


def test_the_limits_are_the_services() -> None:
    """It is the service that refuses; the gateway passes on all that it takes."""
    assert (MAX_NAMES, MAX_TOOL_CALLS) == (service_sizes.MAX_NAMES, service_sizes.MAX_PARTS)
    assert (MAX_DEPTH, MAX_VALUES) == (service_structs.MAX_DEPTH, service_structs.MAX_VALUES)
    assert (MAX_COMPLAINTS, MAX_TEXT_BYTES) == (MAX_VIOLATIONS, 240)
    assert MAX_PARTS == service_sizes.MAX_PARTS_IN_ALL


@pytest.mark.parametrize(
    "body",
    [
        {"query": "q", "streaming_components": ["llm"] * MAX_NAMES},
        {"messages": message(content=[{"type": "text", "text": "q"}] * MAX_PARTS)},
        {"messages": message(tool_calls=[call("{}")] * MAX_TOOL_CALLS)},
        {"messages": message() * sizes.MAX_MESSAGES},
        {"messages": message(content=[PICTURE], name="f", tool_call_id="c") * sizes.MAX_MESSAGES},
        {"query": "q", "inputs": {"a": {"b": [1] * (MAX_VALUES - 2)}}},
        {"query": "q", "inputs": {"a": {"b": 1}}, "generation_kwargs": {"b": [1] * (MAX_VALUES - 3)}},
        {"messages": message(tool_calls=[call('{"a": 1}'), call(json.dumps({"a": [1] * (MAX_VALUES - 2)}))])},
        {"query": "q", "inputs": {"a": nested(MAX_DEPTH - 1)}},
        {"messages": message(tool_calls=[call(json.dumps(nested(MAX_DEPTH)))])},
        {"query": ", [{" * 1_000_000},
    ],
    ids=[
        "names",
        "parts",
        "calls",
        "messages",
        "whole messages",
        "inputs",
        "settings",
        "arguments",
        "depth",
        "depth of arguments",
        "text",
    ],
)
async def test_what_is_at_a_limit_reaches_the_service(page: Browser, service: Scripted, body: dict[str, Any]) -> None:
    """Which may know better."""
    frames = await frames_of(page, **body)
    assert [frame.event for frame in frames] == ["metadata", "end"]
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": "q", "streaming_components": ["llm"] * (MAX_NAMES + 1)}, "streaming_components"),
        ({"messages": message(content=[{"type": "text", "text": "q"}] * (MAX_PARTS + 1))}, "messages.0.content"),
        ({"messages": message(tool_calls=[call("{}")] * (MAX_TOOL_CALLS + 1))}, "messages.0.tool_calls"),
        ({"messages": message() * (sizes.MAX_MESSAGES + 1)}, "messages"),
        ({"query": "q", "inputs": {"a": {"b": [1] * (MAX_VALUES - 1)}}}, "inputs"),
        ({"query": "q", "inputs": dict.fromkeys(map(str, range(MAX_VALUES + 1)), NOTHING)}, "inputs"),
        (
            {"query": "q", "inputs": {"a": {"b": 1}}, "generation_kwargs": {"b": [1] * (MAX_VALUES - 2)}},
            "generation_kwargs",
        ),
        (
            {"messages": message(tool_calls=[call('{"a": 1}'), call(json.dumps({"a": [1] * (MAX_VALUES - 1)}))])},
            "messages.0.tool_calls.1.function.arguments",
        ),
        (
            {"messages": message(tool_calls=[call(f'{{"a": [{"[]," * MANY}1]}}')])},
            "messages.0.tool_calls.0.function.arguments",
        ),
        ({"query": "q", "inputs": {"a": nested(MAX_DEPTH)}}, "inputs"),
        (
            {"messages": message(tool_calls=[call(json.dumps(nested(MAX_DEPTH + 1)))])},
            "messages.0.tool_calls.0.function.arguments",
        ),
        (
            {"messages": message(tool_calls=[call('{"a": ' + "[" * 600 + "]" * 600 + "}")])},
            "messages.0.tool_calls.0.function.arguments",
        ),
    ],
    ids=[
        *("names", "parts", "calls", "messages", "inputs", "components", "settings", "arguments", "lists in arguments"),
        *("depth", "depth of arguments", "deep arguments"),
    ],
)
async def test_one_past_a_limit_is_refused_by_name(
    page: Browser, service: Scripted, body: dict[str, Any], field: str
) -> None:
    """Before anything is made of it for the service."""
    assert [error["field"] for error in await complaints(page, body)] == [field]
    assert service.requests == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"query":"q","streaming_components":[' + b"1," * MANY + b"1]}", "streaming_components.0"),
        (b'{"messages":[' + b"1," * (sizes.MAX_MESSAGES - 1) + b"1]}", "messages.0"),
        (b'{"messages":[{"role":"user","content":[' + b"1," * MANY + b"1]}]}", "messages.0.content.0"),
        (b'{"messages":[{"role":"user","tool_calls":[' + b"1," * MANY + b"1]}]}", "messages.0.tool_calls.0"),
        (b'{"query":"q","inputs":{' + b",".join(b'"%d":1' % name for name in range(MAX_VALUES)) + b"}}", "body"),
        (b'{"query":"q",' + b",".join(b'"%d":1' % name for name in range(MANY)) + b"}", "body"),
        (b'{"query":"q","inputs":{"a":{"b":[' + b"[]," * MAX_BODY_VALUES + b"1]}}}", "body"),
        (b'{"query":"q","inputs":{"a":' + b"[" * 100_000, "body"),
        (b'{"query":"q","inputs":{"a":{"b":1' + b"0" * 1_000_000 + b"}}}", "body"),
        (b'{"query":"q","%s":1}' % (b"x" * 1_000_000), "x" * 239 + "…"),
    ],
    ids=["names", "messages", "parts", "calls", "inputs", "fields", "values", "depth", "a number", "a key"],
)
async def test_a_hostile_body_is_one_short_complaint(page: Browser, service: Scripted, body: bytes, field: str) -> None:
    """However many things are wrong about it: listing them all would hold up everybody else for a minute."""
    assert [error["field"] for error in await complaints(page, body)] == [field]
    assert service.requests == []


@pytest.mark.parametrize(("wrong", "named"), [(1, 1), (6, 6), (7, 6), (MAX_LISTED, 6), (MAX_LISTED + 1, 1)])
async def test_the_first_wrong_fields_are_named(page: Browser, wrong: int, named: int) -> None:
    """As many as the service names; where they are very many, their number is."""
    errors = await complaints(page, {"query": "q", **{f"x{number}": 1 for number in range(wrong)}})
    assert len(errors) == named
    if wrong > MAX_LISTED:
        assert errors == [{"field": "body", "message": f"{wrong} of its fields are wrong"}]
    else:
        assert [error["field"] for error in errors] == [f"x{number}" for number in range(named)]


async def test_openais_callers_read_no_more_of_it(page: Browser, service: Scripted) -> None:
    """In their own dialect, where every field that is not known is a setting."""
    question = [{"role": "user", "content": "q"}]
    for body in (
        {"messages": [{"role": "user", "content": [1] * MANY}]},
        {"messages": question, "x" * 1_000_000: [1] * (MAX_VALUES + 1)},
        {"messages": question, "haystream": {"streaming_components": [1] * MANY}},
        {"messages": question, "haystream": {"inputs": {"a": {"b": [[1]] * MAX_BODY_VALUES}}}},
        {"messages": [{**question[0], "x" * 1_000_000: 1, "name": 3}]},
    ):
        answer = await page.http.post("/v1/chat/completions", json={"model": "scripted", **body})
        assert answer.status_code == 400
        assert len(answer.content) < ANSWER_BYTES
    assert service.requests == []


async def test_values_of_arguments_are_counted_before_they_are_read(page: Browser) -> None:
    """Also where they are no JSON in the end."""
    (error,) = await complaints(page, {"messages": message(tool_calls=[call('{"a": ' + "[" * MANY)])})
    assert error["message"].startswith(f"expected at most {MAX_VALUES} values")


async def test_an_id_that_is_no_id_is_not_said_back_whole(page: Browser) -> None:
    """Where a reader comes back with another run's frame."""
    headers = {"Last-Event-ID": "r:1"}
    answer = await page.http.post("/chat", json={"query": "q", "run_id": "x" * 1_000_000}, headers=headers)
    assert answer.status_code == 422
    assert len(answer.content) < ANSWER_BYTES


@trying(max_examples=200)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(st.sampled_from('a"\\,[{]}\n'), max_size=6),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    )
)
def test_values_are_counted_before_they_are_made(value: Any) -> None:
    """To the value, whatever stands in the texts and keys between them."""
    text = json.dumps(value, ensure_ascii=False).encode()
    count = counted(value)
    assert not has_more_values(text, count)
    assert count == 0 or has_more_values(text, count - 1)


@pytest.mark.parametrize("text", [b"[" * 12, b'"' + b"," * 99, b"," * 11 + b'"\\', b"\\" * 9 + b"," * 11, b'""' * 99])
def test_what_is_no_json_is_counted_all_the_same(text: bytes) -> None:
    """It ends, without an error: it is for the parser to refuse."""
    assert has_more_values(text, 10) == (b'"' not in text or text.startswith(b","))


async def test_a_conversation_at_the_services_limits_is_answered(tmp_path: Path, stage: Stage) -> None:
    """By the service itself, as it is set by default: as many messages, parts, values and levels."""
    arguments = {**nested(MAX_DEPTH), "b": [1] * (MAX_VALUES - 2 - (MAX_DEPTH - 1))}
    parts = [{"type": "text", "text": "q"}] * service_sizes.MAX_PARTS
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": parts},
        {"role": "assistant", "tool_calls": [call(json.dumps(arguments))]},
        {"role": "tool", "tool_call_id": "c", "content": parts * 2},
        *[{"role": "user", "content": "q"}] * 997,
    ]
    async with (
        served(written(tmp_path, FILES), default_pipeline="listener") as running,
        browsed(running.address) as browser,
    ):
        frames = await frames_of(browser, messages=messages)
    assert frames[-1].event == "end"
    [received] = stage.received
    assert len(received["messages"]) == 1000
    assert received["messages"][1].tool_calls[0].arguments == arguments
