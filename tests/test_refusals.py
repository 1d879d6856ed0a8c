"""Bad input: each has a status of its own that names the field and what would be right, and starts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.protobuf import json_format, struct_pb2
from google.protobuf.duration_pb2 import Duration

from haystream.v1 import chat_pb2
from haystream_service import structs
from haystream_service.errors import InvalidRequest
from haystream_service.requests import call_of
from haystream_service.sizes import RequestLimits
from tests.calls import all_events, complaint_of
from tests.conftest import FAKES, SHIPPED, Served, served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.calls import Complaint
    from tests.fakes import Stage

MIB = 1024 * 1024


async def refused(running: Served, request: chat_pb2.ChatRequest) -> Complaint:
    """Return how a request is refused; nothing was sent and nothing started."""
    call = running.stub.Chat(request)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    assert len(running.runs) == 0
    return complaint_of(caught.value)


WRONG_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "query", "`query` or `conversation`"),
    ({"query": ""}, "query", "empty"),
    ({"query": " \n"}, "query", "empty"),
    ({"conversation": {}}, "conversation.messages", "empty"),
    ({"conversation": {"messages": [{"parts": [{"text": "x"}]}]}}, "conversation.messages[0].role", "ROLE_USER"),
    ({"conversation": {"messages": [{"role": "ROLE_USER"}]}}, "conversation.messages[0].parts", "empty"),
    (
        {"conversation": {"messages": [{"role": "ROLE_USER", "parts": [{}]}]}},
        "conversation.messages[0].parts[0]",
        "`text` or `image`",
    ),
    (
        {"conversation": {"messages": [{"role": "ROLE_USER", "parts": [{"image": {"mimeType": "image/png"}}]}]}},
        "conversation.messages[0].parts[0].image",
        "`data` or `url`",
    ),
    (
        {"conversation": {"messages": [{"role": "ROLE_ASSISTANT", "parts": [{"text": "hi"}]}]}},
        "conversation.messages",
        "has to be the user's",
    ),
    (
        {
            "conversation": {
                "messages": [{"role": "ROLE_USER", "parts": [{"image": {"data": "aGk=", "mimeType": "image/png"}}]}]
            }
        },
        "conversation.messages",
        "plain text",
    ),
    ({"query": "q", "streamingComponents": ["nobody"]}, "streaming_components[0]", "llm"),
    ({"query": "q", "includeOutputsFrom": ["nobody"]}, "include_outputs_from[0]", "llm"),
    ({"query": "q", "inputs": {"nobody": {"x": 1}}}, "inputs.nobody", "llm"),
    ({"query": "q", "inputs": {"llm": {"nothing": 1}}}, "inputs.llm.nothing", "top_k"),
    ({"query": "q", "inputs": {"llm": 3}}, "inputs.llm", "object"),
    ({"query": "q", "inputs": {"llm": {"streaming_callback": "f"}}}, "inputs.llm.streaming_callback", "service"),
    ({"query": "q", "inputs": {"llm": {"top_k": "five"}}}, "inputs.llm.top_k", "integer"),
    ({"query": "q", "inputs": {"llm": {"top_k": 1.5}}}, "inputs.llm.top_k", "integer"),
    ({"query": "q", "runId": "no spaces"}, "run_id", "64 letters"),
    ({"query": "q", "runId": "x" * 65}, "run_id", "64 letters"),
    ({"query": "q", "apiKey": "line\nbreak"}, "api_key", "visible ASCII"),
    ({"query": "q", "apiKey": "sk-1"}, "api_key", "does not take"),
]


@pytest.mark.parametrize(("request_json", "field", "cure"), WRONG_FIELDS)
async def test_a_wrong_field_is_named_with_its_cure(
    fake: Served, stage: Stage, request_json: dict[str, Any], field: str, cure: str
) -> None:
    """The caller sees which field it is and what would be right there."""
    complaint = await refused(fake, json_format.ParseDict(request_json, chat_pb2.ChatRequest()))
    assert (complaint.code, complaint.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert list(complaint.fields) == [field]
    assert cure in complaint.fields[field]
    assert stage.received == []


async def test_all_wrong_fields_are_named_at_once(fake: Served) -> None:
    """Nobody has to mend a request one field at a time."""
    request = json_format.ParseDict(
        {"query": "q", "streamingComponents": ["a"], "inputs": {"b": {}, "llm": {"c": 1}}}, chat_pb2.ChatRequest()
    )
    complaint = await refused(fake, request)
    assert set(complaint.fields) == {"streaming_components[0]", "inputs.b", "inputs.llm.c"}


async def test_a_number_that_is_none_is_refused(fake: Served) -> None:
    """A Struct can carry NaN, which JSON and most providers cannot."""
    request = chat_pb2.ChatRequest(query="q")
    request.generation_kwargs.fields["temperature"].number_value = float("nan")
    complaint = await refused(fake, request)
    assert complaint.fields == {"generation_kwargs.temperature": "expected a finite number"}


def test_no_more_is_written_out_than_a_caller_is_told() -> None:
    """The name of a list may have megabytes, and each of its values be wrong."""
    request = chat_pb2.ChatRequest(query="q")
    wrong = struct_pb2.Value(number_value=float("nan"))
    request.inputs.fields["n" * 1_000_000].list_value.values.extend([wrong] * 1000)
    with pytest.raises(InvalidRequest) as caught:
        call_of(request, RequestLimits(text_bytes=1000, messages=10))
    assert len(caught.value.violations) == 6
    assert [violation.field for violation in caught.value.violations][5] == f"inputs.{'n' * 63}…[5]"


def test_what_is_right_is_not_written_out_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many values there are, and whatever they are called."""
    monkeypatch.setattr(structs, "_written", pytest.fail)
    request = chat_pb2.ChatRequest(query="q")
    request.inputs.update({"llm": {"numbers": [1, 2, 3], "more": {"of": ["them"]}}})
    assert call_of(request, RequestLimits(text_bytes=1000, messages=10)).inputs["llm"]["numbers"] == [1, 2, 3]


@pytest.mark.parametrize("letter", ["x", "🙂"])
async def test_a_long_list_of_complaints_stays_within_what_metadata_can_carry(fake: Served, letter: str) -> None:
    """Details of more than a few kilobytes would be lost as a whole."""
    request = json_format.ParseDict(
        {"query": "q", "inputs": {f"{number}{letter * 2000}": {} for number in range(50)}}, chat_pb2.ChatRequest()
    )
    complaint = await refused(fake, request)
    assert complaint.code == "INVALID_ARGUMENT"
    assert len(complaint.fields) == 6


@pytest.mark.parametrize("size_bytes", [4 * MIB + 1, 10 * MIB])
async def test_a_request_over_the_limit_names_its_largest_field(fake: Served, size_bytes: int) -> None:
    """Rather than gRPC's own words, which name nothing."""
    complaint = await refused(fake, chat_pb2.ChatRequest(query="x" * size_bytes, run_id="r"))
    assert (complaint.code, list(complaint.fields)) == ("INVALID_ARGUMENT", ["query"])
    assert "4194304" in complaint.fields["query"]


async def test_a_request_at_the_limit_is_taken(stage: Stage) -> None:
    """The limit is what the message says it is."""
    stage.proceed.set()
    request = chat_pb2.ChatRequest(query="x" * (4 * MIB - 5))
    assert request.ByteSize() == 4 * MIB
    async with served(default_pipeline="fake", max_query_bytes=4 * MIB) as running:
        await all_events(running.stub.Chat(request))
    assert len(stage.received[0]["query"]) == 4 * MIB - 5


async def test_an_unknown_pipeline_is_not_found_among_those_there_are(fake: Served) -> None:
    """The caller learns the names that exist."""
    complaint = await refused(fake, chat_pb2.ChatRequest(query="q", pipeline="nobody"))
    assert (complaint.code, complaint.reason) == ("NOT_FOUND", "PIPELINE_NOT_FOUND")
    assert "fake" in complaint.fields["pipeline"]


async def test_no_default_means_that_a_pipeline_must_be_named() -> None:
    """With several pipelines and none called `local`, nobody guesses."""
    async with served(FAKES) as running:
        complaint = await refused(running, chat_pb2.ChatRequest(query="q"))
    assert (complaint.code, list(complaint.fields)) == ("INVALID_ARGUMENT", ["pipeline"])
    assert "threaded" in complaint.fields["pipeline"]


@pytest.mark.parametrize(
    ("on_disconnect", "grace", "cure"),
    [
        (chat_pb2.ON_DISCONNECT_UNSPECIFIED, Duration(seconds=5), "ON_DISCONNECT_CONTINUE"),
        (chat_pb2.ON_DISCONNECT_CANCEL, Duration(seconds=5), "ON_DISCONNECT_CONTINUE"),
        (chat_pb2.ON_DISCONNECT_CONTINUE, Duration(seconds=-5), "not negative"),
        (chat_pb2.ON_DISCONNECT_CONTINUE, Duration(nanos=-5), "not negative"),
    ],
)
async def test_a_grace_that_makes_no_sense_is_refused(
    fake: Served, on_disconnect: chat_pb2.OnDisconnect.ValueType, grace: Duration, cure: str
) -> None:
    """A caller who relies on it must not find out later."""
    complaint = await refused(
        fake, chat_pb2.ChatRequest(query="q", on_disconnect=on_disconnect, disconnect_grace=grace)
    )
    assert (complaint.code, list(complaint.fields)) == ("INVALID_ARGUMENT", ["disconnect_grace"])
    assert cure in complaint.fields["disconnect_grace"]


async def test_a_pipeline_without_a_key_of_its_own_wants_the_callers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is served, since callers may bring theirs, and says what is missing where they do not."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "openai.py").write_text((SHIPPED / "openai.py").read_text())
    async with served(tmp_path) as running:
        complaint = await refused(running, chat_pb2.ChatRequest(query="q"))
        listed = await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
    assert (complaint.code, complaint.reason) == ("FAILED_PRECONDITION", "API_KEY_REQUIRED")
    assert "`api_key`" in complaint.message
    assert listed.pipelines[0].ready
