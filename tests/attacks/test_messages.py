"""Requests at random: what the contract allows, and bytes that are nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haystream.v1 import chat_pb2
from tests.attacks.canary import canary, check_nothing_stays
from tests.attacks.random_messages import messages
from tests.calls import complaint_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.descriptor import MethodDescriptor

    from tests.attacks.target import Target

SERVICE = chat_pb2.DESCRIPTOR.services_by_name["ChatService"]
EXAMPLES = 100  # of each RPC
DEADLINE_SECONDS = 20.0

# What is refused in words, or ended so; never a defect, and never a deadline that passes because nobody answers.
TYPED = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "ABORTED"}

# The fixture is meant for all examples of a test, and a busy machine is slow.
UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
at_random = settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=UNCHECKED)
each_rpc = pytest.mark.parametrize("rpc", list(SERVICE.methods), ids=lambda method: method.name)


@pytest.fixture
async def asked(attacked: Target) -> AsyncIterator[grpc.aio.Channel]:
    """A channel, beside a canary; nothing of what was asked may stay."""
    before = await attacked.rest()
    async with canary(attacked):
        yield attacked.channel
    check_nothing_stays(attacked, before, await attacked.rest(before))


@each_rpc
@at_random
@given(data=st.data())
async def test_any_message_is_answered_or_refused_in_words(
    asked: grpc.aio.Channel, rpc: MethodDescriptor, data: st.DataObject
) -> None:
    """With the reason, whatever the contract lets a client write."""
    request = data.draw(messages(rpc.input_type))
    assert await _complaint(asked, rpc, request.SerializeToString()) in TYPED | {None}


@each_rpc
@at_random
@given(raw=st.binary(max_size=200))
async def test_any_bytes_are_answered_or_refused_in_words(
    asked: grpc.aio.Channel, rpc: MethodDescriptor, raw: bytes
) -> None:
    """Where they are no message, as INVALID_ARGUMENT; the words are the same for all of them."""
    assert await _complaint(asked, rpc, raw) in TYPED | {None}


async def _complaint(channel: grpc.aio.Channel, rpc: MethodDescriptor, message: bytes) -> str | None:
    """Ask by bytes; return the code of a refusal, which has to have a reason and no word of an exception's."""
    path = f"/{SERVICE.full_name}/{rpc.name}"
    by_bytes = cast("Any", channel)  # its types want a serializer
    ask = by_bytes.unary_stream(path) if rpc.server_streaming else by_bytes.unary_unary(path)
    try:
        call = ask(message, timeout=DEADLINE_SECONDS)
        if rpc.server_streaming:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        complaint = complaint_of(error)
        assert complaint.reason
        assert "Error" not in complaint.message
        return complaint.code
    return None
