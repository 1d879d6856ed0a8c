"""Calls whose request is still to come, and streams of people whom nobody knows: both are few, and hold up nobody."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.entrance.decoding import Limits
from haystream_service.entrance.health import SERVICE_NAME
from haystream_service.entrance.health_servicer import HealthServicer
from haystream_service.entrance.reading import Bounds
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import served
from tests.encrypted import Certs, channel_to
from tests.entered import IMPATIENT, SERVING, begun, connected, entered
from tests.principals import BILLING, PRINCIPALS, SUPPORT
from tests.test_who_may_call import Hearing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haystream_service.rpc import Context
    from tests.calls import Complaint
    from tests.conftest import Served
    from tests.fakes import Stage

CHAT = "/haystream.v1.ChatService/Chat"
CANCEL = "/haystream.v1.ChatService/Cancel"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
METHODS = [CHAT, CANCEL, CHECK, "/grpc.health.v1.Health/List", WATCH, REFLECTION]

AT_ONCE = Limits().chats.at_once
WATCHES, _ = Limits().watches
REFLECTIONS, _ = Limits().reflections

WAIT_SECONDS = 5  # for what comes soon
ASK = chat_pb2.ChatRequest(query="q")
OF_SERVICE = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
BALANCING: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": SERVICE_NAME},
    "methodConfig": [{"name": [{"service": SERVICE_NAME}], "waitForReady": True}],
}


class BrokenHealth(HealthServicer):
    """Has a defect."""

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> NoReturn:
        raise RuntimeError("swordfish")


async def refusal_of(call: Any) -> Complaint:
    """Return how a call is refused that is read by hand."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(WAIT_SECONDS):
            while await call.read() is not grpc.aio.EOF:
                pass
    return complaint_of(caught.value)


@pytest.fixture
async def guarded(stage: Stage, tmp_path: Path) -> AsyncIterator[Served]:
    """A service that asks for tokens, and answers at once."""
    path = tmp_path / "tokens.yaml"
    await asyncio.to_thread(path.write_text, yaml.safe_dump(PRINCIPALS))
    stage.chunks = 1
    stage.proceed.set()
    async with served(default_pipeline="fake", tokens_file=path) as running:
        yield running


@pytest.mark.parametrize("method", METHODS)
async def test_a_request_that_does_not_come_is_not_waited_for(method: str) -> None:
    """Nor the rest of one: what has come is held as long as the call lasts."""
    observer = Hearing()
    async with entered(IMPATIENT, observer) as address, connected(address) as channel:
        complaint = await refusal_of(begun(channel, method))
    assert (complaint.code, complaint.reason) == ("DEADLINE_EXCEEDED", "REQUEST_INCOMPLETE")
    assert len(observer.refusals) == 1


async def test_reflection_refuses_what_is_no_question_in_words() -> None:
    """As all others do."""
    async with entered(Limits(), Hearing()) as address, connected(address) as channel:
        call = begun(channel, REFLECTION)
        await call.write(b"\xff" * 9)
        assert (await refusal_of(call)).reason == "MALFORMED_MESSAGE"


async def test_no_request_at_all_is_none_of_the_contract() -> None:
    """Who says that it has none is told so; who has gone is told nothing, and nobody hears of a refusal."""
    observer = Hearing()
    async with entered(Limits(), observer) as address, connected(address) as channel:
        call = begun(channel, CHAT)
        await call.done_writing()
        assert (await refusal_of(call)).reason == "MALFORMED_MESSAGE"
        assert len(observer.refusals) == 1
        calls = [begun(channel, CHAT) for _ in range(10)]
        for call in calls:
            await health_pb2_grpc.HealthStub(channel).Check(OF_SERVICE)  # by then it waits for its request
            call.cancel()
        await health_pb2_grpc.HealthStub(channel).Check(OF_SERVICE)
    assert len(observer.refusals) == 1


async def test_what_grpc_refuses_itself_is_not_refused_again(guarded: Served) -> None:
    """A request over 16 MiB has its answer before anybody else could give one."""
    call = guarded.stub.Chat(chat_pb2.ChatRequest(query="x" * (17 << 20)), metadata=BILLING)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in (caught.value.details() or "")


async def test_a_caller_has_so_many_requests_to_come_and_holds_up_itself_alone(guarded: Served) -> None:
    """The next one is read as soon as one of them is there. `Cancel` and the others have places of their own."""
    calls = [begun(guarded.channel, CHAT, BILLING) for _ in range(AT_ONCE)]
    await guarded.stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=BILLING)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(guarded.stub.Chat(ASK, metadata=BILLING, timeout=0.5))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await guarded.stub.Cancel(chat_pb2.CancelRequest(run_id="r"), metadata=BILLING, timeout=10)
    assert complaint_of(caught.value).reason == "RUN_NOT_FOUND"
    assert text_of(await all_events(guarded.stub.Chat(ASK, metadata=SUPPORT))) == "word "
    waiting = asyncio.create_task(all_events(guarded.stub.Chat(ASK, metadata=BILLING)))
    await guarded.stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=BILLING)
    assert not waiting.done()
    await calls[0].write(ASK.SerializeToString())
    assert text_of(await waiting) == "word "
    for call in calls:
        call.cancel()


async def test_those_who_stand_in_line_have_their_own_time_once_it_is_their_turn() -> None:
    """Requests that share a slow way come one after the other: the later ones are not late for it."""
    chats = Bounds(seconds=1, max_bytes=4096, at_once=1, line_seconds=WAIT_SECONDS)
    async with entered(Limits(chats=chats), Hearing()) as address, connected(address) as channel:
        calls: list[Any] = []
        for _ in range(3):
            calls.append(begun(channel, CHAT))
            await health_pb2_grpc.HealthStub(channel).Check(OF_SERVICE)  # by then it stands in line
        for call in calls[:2]:
            assert (await refusal_of(call)).reason == "REQUEST_INCOMPLETE"
        await asyncio.sleep(0.1)  # far more than they came apart, and less than the time of the last
        await calls[2].write(ASK.SerializeToString())
        assert await calls[2].read()
        calls[2].cancel()


async def test_who_stands_in_line_for_too_long_is_told_to_come_again() -> None:
    """It has done nothing wrong but to ask for much at once."""
    chats = Bounds(seconds=WAIT_SECONDS, max_bytes=4096, at_once=1, line_seconds=0.3)
    async with entered(Limits(chats=chats), Hearing()) as address, connected(address) as channel:
        first = begun(channel, CHAT)
        await health_pb2_grpc.HealthStub(channel).Check(OF_SERVICE)
        complaint = await refusal_of(begun(channel, CHAT))
        assert (complaint.code, complaint.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_REQUESTS_OF_YOURS")
        assert complaint.retry_seconds == 1
        await first.write(ASK.SerializeToString())
        assert await first.read()
        first.cancel()


async def test_where_nobody_is_asked_who_they_are_each_connection_is_somebody(fake: Served, stage: Stage) -> None:
    """One who keeps requests back keeps nobody else from asking."""
    stage.chunks = 1
    stage.proceed.set()
    async with connected(fake.address) as channel:
        calls = [begun(channel, CHAT) for _ in range(AT_ONCE)]
        await chat_pb2_grpc.ChatServiceStub(channel).ListPipelines(chat_pb2.ListPipelinesRequest())
        assert text_of(await all_events(fake.stub.Chat(ASK))) == "word "
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(chat_pb2_grpc.ChatServiceStub(channel).Chat(ASK, timeout=0.5))
        for call in calls:
            call.cancel()


async def test_whose_certificate_says_nothing_is_refused_before_its_request_is_read(tmp_path: Path) -> None:
    """As with a token: here the request never comes."""
    certs = Certs(tmp_path)
    async with served(warm=False, **certs.mutual) as running:
        nobody = certs.authority.caller("nobody")
        async with channel_to(running.service.port, certs.authority.certificate, nobody) as channel:
            assert (await refusal_of(begun(channel, CHAT))).reason == "CERTIFICATE_INVALID"


@pytest.mark.parametrize("port", ["own", "probes"])
async def test_a_connection_has_so_many_watches_and_its_next_is_refused(port: str) -> None:
    """Others have theirs; when one ends there is room again."""
    async with served(health_listen="127.0.0.1:0", warm=False) as running:
        address = running.address if port == "own" else f"127.0.0.1:{running.service.health_port}"
        async with connected(address) as channel, connected(address) as other:
            watches = [await watching(channel) for _ in range(WATCHES)]
            complaint = await refusal_of(health_pb2_grpc.HealthStub(channel).Watch(OF_SERVICE))
            assert (complaint.code, complaint.reason) == ("UNIMPLEMENTED", "TOO_MANY_STREAMS_OF_YOURS")
            assert (await health_pb2_grpc.HealthStub(channel).Check(OF_SERVICE, timeout=10)).status
            watches.append(await watching(other))
            watches.pop(0).cancel()
            await health_pb2_grpc.HealthStub(channel).Check(OF_SERVICE, timeout=10)  # by then it is gone
            watches.append(await watching(channel))
            for watch in watches:
                watch.cancel()


async def watching(channel: grpc.aio.Channel) -> Any:
    """Return a watch that has its place."""
    call: Any = health_pb2_grpc.HealthStub(channel).Watch(OF_SERVICE)
    assert await call.read()
    return call


async def test_callers_who_balance_by_health_get_through_where_strangers_have_all_watches() -> None:
    """To gRPC's clients a watch that is not had is health, where that is said in the right way."""
    async with entered(Limits(watches=(2, 4)), Hearing()) as address, AsyncExitStack() as stack:
        for _ in range(2):
            stranger = await stack.enter_async_context(connected(address))
            for _ in range(2):
                stack.callback((await watching(stranger)).cancel)
        other = await stack.enter_async_context(connected(address))
        complaint = await refusal_of(health_pb2_grpc.HealthStub(other).Watch(OF_SERVICE))
        assert (complaint.code, complaint.reason) == ("UNIMPLEMENTED", "TOO_MANY_STREAMS")
        own = await stack.enter_async_context(connected(address, ("grpc.service_config", json.dumps(BALANCING))))
        await all_events(chat_pb2_grpc.ChatServiceStub(own).Chat(ASK, timeout=10))


async def test_a_connection_has_so_many_streams_of_reflection(fake: Served) -> None:
    """Each can hold a request that does not come."""
    asked = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    calls = [begun(fake.channel, REFLECTION) for _ in range(REFLECTIONS)]
    for call in calls:
        await call.write(asked)
        await call.read()
    assert (await refusal_of(begun(fake.channel, REFLECTION))).reason == "TOO_MANY_STREAMS_OF_YOURS"
    for call in calls:
        call.cancel()


@pytest.mark.parametrize("port", ["own", "probes"])
async def test_all_that_is_known_of_health_is_listed(port: str) -> None:
    """By name."""
    async with served(health_listen="127.0.0.1:0", default_pipeline="fake") as running:
        address = running.address if port == "own" else f"127.0.0.1:{running.service.health_port}"
        async with connected(address) as channel:
            listed = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())
    assert {name: one.status for name, one in listed.statuses.items()} == {"": SERVING, SERVICE_NAME: SERVING}


async def test_a_defect_that_strangers_meet_tells_them_nothing() -> None:
    """Neither what the exception says nor what it is; and it is heard of once for each."""
    observer = Hearing()
    async with entered(Limits(), observer, BrokenHealth) as address, connected(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Check(OF_SERVICE)
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason) == ("INTERNAL", "INTERNAL")
    assert "swordfish" not in complaint.message
    assert "RuntimeError" not in complaint.message
    assert [str(error) for error in observer.defects] == ["swordfish"]
