"""A request that is too long to be read: it is refused with the name of the field that makes it so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from haystream.v1 import chat_pb2
from haystream_service.entrance.decoding import MAX_STRANGERS_BYTES
from haystream_service.sizes import MAX_FIELDS_LOOKED_AT, MAX_REQUEST_BYTES
from tests.calls import complaint_of

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tests.calls import Complaint
    from tests.conftest import Served

LONG = "x" * (MAX_REQUEST_BYTES + 1)
HALF = "x" * (MAX_REQUEST_BYTES // 2)
Ask = chat_pb2.ChatRequest
CHAT = "haystream.v1.ChatService/Chat"


async def refusal_of(running: Served, method: str, request: bytes) -> Complaint:
    """Return how a request is refused."""
    call = cast("Any", running.channel).stream_stream(f"/{method}")(iter([request]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    return complaint_of(caught.value)


def with_inputs(text: str) -> bytes:
    """Return a question with an input."""
    request = Ask(query="q")
    request.inputs.update({"llm": {"x": text}})
    return request.SerializeToString()


def names_before_the_long_one(count: int) -> bytes:
    """Return so many short fields, and a long one behind them."""
    return Ask(streaming_components=["a"] * count, include_outputs_from=[LONG]).SerializeToString()


SAID = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, parts=[chat_pb2.ContentPart(text=LONG)])

LONG_ID = Ask(run_id=LONG).SerializeToString()

CHATS: dict[str, tuple[bytes, str]] = {
    "a conversation": (Ask(conversation=chat_pb2.Conversation(messages=[SAID])).SerializeToString(), "conversation"),
    "inputs": (with_inputs(LONG), "inputs"),
    "a key": (Ask(query="q", api_key=LONG).SerializeToString(), "api_key"),
    "many that are long together": (
        Ask(query=HALF, streaming_components=[HALF[: len(HALF) // 2 + 1]] * 3).SerializeToString(),
        "streaming_components",
    ),
    "the last that is looked at": (names_before_the_long_one(MAX_FIELDS_LOOKED_AT - 1), "include_outputs_from"),
    "one past it": (names_before_the_long_one(MAX_FIELDS_LOOKED_AT), "request"),
    "no field of the contract": (b"\xfa\x7f" + LONG_ID[1:], "request"),
    "a field that ends before it says": (LONG_ID[:-1], "request"),
    "no message": (b"\xff" * len(LONG), "request"),
    "no message behind a field": (Ask(query="q").SerializeToString() + b"\xff" * len(LONG), "request"),
}


@pytest.mark.parametrize(("request_bytes", "field"), CHATS.values(), ids=CHATS)
async def test_the_field_that_takes_most_of_a_long_request_is_named(
    fake: Served, request_bytes: bytes, field: str
) -> None:
    """And no other: where it cannot be told it is the request as a whole."""
    complaint = await refusal_of(fake, CHAT, request_bytes)
    assert (complaint.code, complaint.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    why = f"the request has {len(request_bytes)} bytes, most of them here; the limit is {MAX_REQUEST_BYTES}"
    assert complaint.fields == {field: why}


OTHERS: list[tuple[str, Message, str]] = [
    ("haystream.v1.ChatService/Resume", chat_pb2.ResumeRequest(run_id=LONG), "run_id"),
    ("haystream.v1.ChatService/Cancel", chat_pb2.CancelRequest(run_id=LONG), "run_id"),
    ("haystream.v1.ChatService/GetPipeline", chat_pb2.GetPipelineRequest(name=LONG), "name"),
    ("grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service=LONG[:MAX_STRANGERS_BYTES]), "service"),
]


@pytest.mark.parametrize(("method", "request_message", "field"), OTHERS)
async def test_each_method_has_fields_of_its_own(
    fake: Served, method: str, request_message: Message, field: str
) -> None:
    """A number that is one field of a chat is another one elsewhere."""
    complaint = await refusal_of(fake, method, request_message.SerializeToString())
    assert complaint.reason == "INVALID_REQUEST"
    assert list(complaint.fields) == [field]
