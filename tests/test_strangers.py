"""What those ask whom nobody asks who they are, about health and the contract: short, soon, and not too many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream_service.entrance import decoding, health_servicer
from haystream_service.entrance.decoding import MAX_STRANGERS_BYTES
from tests.attacks.wire import Type, frame, in_frames, path_head, prefixed, wired
from tests.calls import complaint_of

if TYPE_CHECKING:
    from tests.attacks.wire import Answers
    from tests.calls import Complaint
    from tests.conftest import Served

HEALTH = "/grpc.health.v1.Health/"
READY = health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
SECONDS = 10  # what anything on this machine takes, and much more
DEADLINE_EXCEEDED = "4"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have requests waited for no longer than it takes to see it."""
    monkeypatch.setattr(decoding, "STRANGERS_SECONDS", 0.3)


async def ending_of(call: Any) -> Complaint:
    """Return how a call ends that is not answered."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(SECONDS):
            await call.read()
    return complaint_of(caught.value)


def sized(size: int) -> health_pb2.HealthCheckRequest:
    """Return a question that is as long as that, to the byte."""
    asked = health_pb2.HealthCheckRequest(service="x" * (size - 3))
    assert asked.ByteSize() == size
    return asked


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_request_that_does_not_come_in_time_is_refused(fake: Served, method: str) -> None:
    """Whoever opens a call and says nothing has no handler that waits for it."""
    call = cast("Any", fake.channel).stream_stream(HEALTH + method)()
    complaint = await ending_of(call)
    assert (complaint.code, complaint.reason) == ("DEADLINE_EXCEEDED", "REQUEST_INCOMPLETE")
    assert complaint.retry_seconds is None


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("method", [b"Check", b"Watch"])
async def test_a_request_that_comes_in_part_is_refused_as_well(fake: Served, method: bytes) -> None:
    """Its part is held for as long as it is waited for the rest."""
    half = prefixed(READY.SerializeToString())[:-1]

    def asked() -> Answers:
        with wired(fake.address) as wire:
            wire.send(in_frames(1, path_head(HEALTH.encode() + method)), frame(Type.DATA, half, stream=1))
            return wire.read(ended=1)

    answers = await asyncio.to_thread(asked)
    assert answers.statuses == {1: DEADLINE_EXCEEDED}


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_request_that_comes_late_and_in_time_is_answered(fake: Served, method: str) -> None:
    """Not all that is sent later is an attack."""
    call = cast("Any", fake.channel).stream_stream(HEALTH + method)()
    await asyncio.wait([asyncio.ensure_future(call.wait_for_connection())])
    await call.write(READY.SerializeToString())
    answer = health_pb2.HealthCheckResponse.FromString(await call.read())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    call.cancel()


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_question_after_health_has_a_limit_of_its_own(fake: Served, method: str) -> None:
    """At the limit it is answered, one past it is refused in words: a service's name is a few letters."""
    ask = cast("Any", fake.channel).stream_stream(HEALTH + method)
    complaint = await ending_of(ask(iter([sized(MAX_STRANGERS_BYTES + 1).SerializeToString()])))
    assert (complaint.code, complaint.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert f"the limit is {MAX_STRANGERS_BYTES}" in complaint.message
    stub = health_pb2_grpc.HealthStub(fake.channel)
    if method == "Watch":
        watch = stub.Watch(sized(MAX_STRANGERS_BYTES))
        assert (await anext(aiter(watch))).status == health_servicer.SERVICE_UNKNOWN
        watch.cancel()
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(sized(MAX_STRANGERS_BYTES))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
