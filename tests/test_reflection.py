"""Reflection, which anybody may ask about the contract: each question is short, and not waited for without end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from haystream_service.entrance import decoding
from haystream_service.entrance.decoding import MAX_STRANGERS_BYTES
from tests.attacks.wire import Type, frame, in_frames, path_head, prefixed, wired

if TYPE_CHECKING:
    from tests.attacks.wire import Answers
    from tests.conftest import Served

METHOD = b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
ASKED = reflection_pb2.ServerReflectionRequest(list_services="*")
INVALID_ARGUMENT, NOT_FOUND = (grpc.StatusCode[name].value[0] for name in ("INVALID_ARGUMENT", "NOT_FOUND"))
OK = "0"
SECONDS = 10  # what anything on this machine takes, and much more


def asking(running: Served) -> Any:
    """Begin to ask."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", running.channel))
    return stub.ServerReflectionInfo()


async def answer_to(call: Any, request: reflection_pb2.ServerReflectionRequest) -> Any:
    """Ask one thing more."""
    await call.write(request)
    async with asyncio.timeout(SECONDS):
        return await call.read()


def sized(size: int) -> reflection_pb2.ServerReflectionRequest:
    """Return a question about what there is not, as long as that to the byte."""
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="x" * (size - 3))
    assert asked.ByteSize() == size
    return asked


async def test_a_question_has_a_limit_and_one_past_it_asks_nothing(fake: Served) -> None:
    """It is answered as one that is empty; those behind it are answered as ever."""
    call = asking(fake)
    assert (await answer_to(call, sized(MAX_STRANGERS_BYTES))).error_response.error_code == NOT_FOUND
    refused = await answer_to(call, sized(MAX_STRANGERS_BYTES + 1))
    assert refused.error_response.error_code == INVALID_ARGUMENT
    assert not refused.original_request.ByteSize()
    told = await answer_to(call, ASKED)
    assert "haystream.v1.ChatService" in [service.name for service in told.list_services_response.service]
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("half", [b"", prefixed(ASKED.SerializeToString())[:-1]], ids=["nothing", "a part"])
async def test_a_question_that_does_not_come_is_not_waited_for(
    fake: Served, monkeypatch: pytest.MonkeyPatch, half: bytes
) -> None:
    """What has come of it is held meanwhile. What was asked before was answered, so the stream ends well."""
    monkeypatch.setattr(decoding, "STRANGERS_SECONDS", 0.3)
    asked = prefixed(ASKED.SerializeToString())

    def ask() -> Answers:
        with wired(fake.address) as wire:
            wire.send(in_frames(1, path_head(METHOD)), frame(Type.DATA, asked + half, stream=1))
            return wire.read(ended=1)

    answers = await asyncio.to_thread(ask)
    assert answers.statuses == {1: OK}
