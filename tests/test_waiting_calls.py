"""Calls that wait for something before there is a run: they take a place, and the end of the service finds them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.attachments import FETCHING_REQUESTS
from haystream_service.identity import watched_file
from haystream_service.identity.key_sources import KeyAddress
from haystream_service.run.runs import STOP_SECONDS
from haystream_service.run.waits import Waits
from tests.calls import all_events, complaint_of
from tests.conftest import FAKES, served
from tests.image_hosts import SECONDS, Host, hosting
from tests.issuers import AUDIENCE, ISSUER, issuer_in, signer
from tests.principals import BILLING, PRINCIPALS, SUPPORT, bearer

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.calls import Complaint
    from tests.fakes import Stage

ASK = chat_pb2.ChatRequest(query="q")
READY = health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
TAKES_NO_IMAGES = "INVALID_REQUEST"  # what the fakes say, once they are asked
IMAGES: dict[str, Any] = {"default_pipeline": "fake", "image_hosts": "127.0.0.1"}


def with_image(host: Host, run_id: str = "") -> chat_pb2.ChatRequest:
    """Return a request with an image of a host."""
    parts = [chat_pb2.ContentPart(text="q"), chat_pb2.ContentPart(image=chat_pb2.Image(url=host.url))]
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, parts=parts)
    return chat_pb2.ChatRequest(conversation=chat_pb2.Conversation(messages=[message]), run_id=run_id)


async def ending_of(call: grpc.aio.UnaryStreamCall[Any, Any]) -> Complaint:
    """Return how a call ends that does not end well."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(SECONDS):
            await all_events(call)
    return complaint_of(caught.value)


async def test_a_call_whose_images_are_fetched_has_a_place_among_its_callers_runs(tmp_path: Path, stage: Stage) -> None:
    """One run at once is one fetch at once, and nobody is shut out by who asks for more."""
    stage.proceed.set()
    tokens_file = tmp_path / "tokens.yaml"
    await asyncio.to_thread(tokens_file.write_text, yaml.safe_dump(PRINCIPALS))
    async with hosting(holds=True) as host, served(**IMAGES, tokens_file=tokens_file) as running:
        first = running.stub.Chat(with_image(host), metadata=SUPPORT)
        await host.arrived.acquire()
        for request in (*[with_image(host)] * FETCHING_REQUESTS, ASK):
            complaint = await ending_of(running.stub.Chat(request, metadata=SUPPORT))
            assert (complaint.code, complaint.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_RUNS_OF_YOURS")
        other = running.stub.Chat(with_image(host), metadata=BILLING)
        await host.arrived.acquire()
        host.proceed.set()
        for call in (first, other):
            assert (await ending_of(call)).reason == TAKES_NO_IMAGES
        assert (await all_events(running.stub.Chat(ASK, metadata=SUPPORT)))[-1].HasField("finished")


async def test_fetches_and_runs_are_no_more_than_the_service_may_have(stage: Stage) -> None:
    """A fetch becomes a run: there has to be a place for it."""
    stage.chunks = 1
    async with hosting(holds=True) as host, served(**IMAGES, max_runs=2) as running:
        going_on = running.stub.Chat(ASK)
        await anext(aiter(going_on))
        fetching = running.stub.Chat(with_image(host))
        await host.arrived.acquire()
        for request in (with_image(host), ASK):
            assert (await ending_of(running.stub.Chat(request))).reason == "TOO_MANY_RUNS"
        host.proceed.set()
        stage.proceed.set()
        assert (await ending_of(fetching)).reason == TAKES_NO_IMAGES
        assert (await all_events(going_on))[-1].HasField("finished")


@pytest.mark.parametrize("way_out", ["it leaves", "its deadline", "no such image", "no such pipeline"])
async def test_a_place_that_came_to_no_run_is_free_again(stage: Stage, way_out: str) -> None:
    """Whatever the way out."""
    stage.proceed.set()
    async with hosting(b"no answer", holds=True) as host, served(**IMAGES, principal_max_runs=1) as running:
        request = with_image(host)
        if way_out == "no such pipeline":
            request.pipeline = "nobody"
        call = running.stub.Chat(request, timeout=0.5 if way_out == "its deadline" else None)
        if way_out != "no such pipeline":
            await call.initial_metadata() if way_out == "its deadline" else await host.arrived.acquire()
        if way_out == "it leaves":
            call.cancel()
        host.proceed.set()
        await call.code()
        async with asyncio.timeout(SECONDS):
            while host.present:  # the service has let go of it
                await asyncio.wait(host.visits)
        await all_events(running.stub.Chat(ASK))


async def is_told_of_the_drain(call: grpc.aio.UnaryStreamCall[Any, Any], service: AsyncExitStack) -> None:
    """Close a service; assert that it does not wait for a call, which may come again elsewhere."""
    closing = asyncio.create_task(service.aclose())
    complaint = await ending_of(call)
    async with asyncio.timeout(SECONDS / 2):
        await closing
    assert (complaint.code, complaint.reason) == ("UNAVAILABLE", "DRAINING")
    assert complaint.retry_seconds == 1


async def test_who_waits_for_an_image_at_the_end_of_the_drain_is_told_so(stage: Stage) -> None:
    """At once where no run goes on, since no image could still become one."""
    del stage
    stack = AsyncExitStack()
    async with hosting(holds=True) as host:
        running = await stack.enter_async_context(served(**IMAGES, drain_seconds=SECONDS))
        async with grpc.aio.insecure_channel(running.address) as channel:
            call = chat_pb2_grpc.ChatServiceStub(channel).Chat(with_image(host))
            await host.arrived.acquire()
            await is_told_of_the_drain(call, stack)


async def test_who_waits_at_the_door_at_the_end_of_the_drain_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an issuer's keys that do not come."""
    asked = asyncio.Event()

    async def never(_: KeyAddress) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(KeyAddress, "bring", never)
    identity: dict[str, Any] = {
        "jwt_jwks": "https://issuer.example/jwks",
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
    }
    stack = AsyncExitStack()
    running = await stack.enter_async_context(served(FAKES, drain_seconds=SECONDS, **identity))
    async with grpc.aio.insecure_channel(running.address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        call = stub.Chat(ASK, metadata=bearer(signer().token()))
        await asked.wait()
        await arrived(channel)
        await is_told_of_the_drain(call, stack)


async def test_who_is_known_at_once_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To wait costs more than all else at the door: no call does but the first of a token, or of a second."""
    monkeypatch.setattr(watched_file, "GLANCE_SECONDS", SECONDS * 10)
    waits, wait = 0, Waits.waiting

    def count(self: Waits) -> AbstractAsyncContextManager[None]:
        nonlocal waits
        waits += 1
        return wait(self)

    monkeypatch.setattr(Waits, "waiting", count)
    token = bearer(signer().token())
    async with served(FAKES, **issuer_in(tmp_path)) as running:
        for _ in range(10):
            await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=token)
        assert waits == 1


async def test_nobody_gets_past_the_door_after_the_drain(tmp_path: Path) -> None:
    """Not who is known at once either."""
    tokens_file = tmp_path / "tokens.yaml"
    await asyncio.to_thread(tokens_file.write_text, yaml.safe_dump(PRINCIPALS))
    async with served(FAKES, tokens_file=tokens_file) as running:
        await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=SUPPORT)
        await running.runs.drain(grace_seconds=0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=SUPPORT)
    assert complaint_of(caught.value).reason == "DRAINING"


async def arrived(channel: grpc.aio.Channel) -> None:
    """Wait until the service has what was sent before: calls of one connection come in their order."""
    send = cast("Any", channel).unary_unary("/haystream.v1.ChatService/ListPipelines")
    with pytest.raises(grpc.aio.AioRpcError):
        await send(b"")


async def test_a_run_that_goes_on_in_the_drain_can_still_be_read(stage: Stage) -> None:
    """Nowhere else: by its id, and by asking the same again. New ones are refused."""
    stage.chunks = 1
    request = chat_pb2.ChatRequest(query="q", run_id="r", on_disconnect=chat_pb2.ON_DISCONNECT_CONTINUE)
    stack = AsyncExitStack()
    running = await stack.enter_async_context(served(default_pipeline="fake", drain_seconds=SECONDS))
    async with grpc.aio.insecure_channel(running.address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        first = stub.Chat(request)
        await anext(aiter(first))
        first.cancel()
        watch = aiter(health_pb2_grpc.HealthStub(channel).Watch(READY))
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
        closing = asyncio.create_task(stack.aclose())
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        readers: list[Any] = [stub.Resume(chat_pb2.ResumeRequest(run_id="r")), stub.Chat(request)]
        for reader in readers:
            assert (await anext(aiter(reader))).event.started.run_id == "r"
        assert (await ending_of(stub.Chat(chat_pb2.ChatRequest(query="q", run_id="new")))).reason == "DRAINING"
        stage.proceed.set()
        for reader in readers:
            assert (await all_events(reader))[-1].HasField("finished")
        async with asyncio.timeout(SECONDS / 2):
            await closing


async def test_whoever_comes_again_and_again_does_not_hold_up_the_drain(stage: Stage) -> None:
    """Nobody is let in after its grace, not to a log that is kept either."""
    stage.chunks = 1
    async with served(default_pipeline="fake") as running:
        going_on = running.stub.Chat(ASK)
        await anext(aiter(going_on))
        over = running.stub.Chat(chat_pb2.ChatRequest(query="q", run_id="over"))
        await anext(aiter(over))
        await running.stub.Cancel(chat_pb2.CancelRequest(run_id="over"))
        assert (await ending_of(over)).reason == "RUN_CANCELLED"
        tasks = [asyncio.create_task(again_and_again(running.stub)) for _ in range(4)]
        async with asyncio.timeout(0.5 + 2 * STOP_SECONDS + 1):
            await running.runs.drain(grace_seconds=0.5)
        assert (len(running.runs), running.runs.reader_count) == (0, 0)
        done, late = await asyncio.wait(tasks, timeout=SECONDS / 2)
        for task in late:
            task.cancel()
        assert [task.result() for task in done] == ["DRAINING"] * 4
        assert (await ending_of(going_on)).reason == "DRAINING"


async def again_and_again(stub: chat_pb2_grpc.ChatServiceStub) -> str:
    """Read a run that was cancelled until it cannot be read; return the reason."""
    while (reason := (await ending_of(stub.Resume(chat_pb2.ResumeRequest(run_id="over")))).reason) == "RUN_CANCELLED":
        pass
    return reason
