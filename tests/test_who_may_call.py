"""The door: who has a token gets in, and nobody else, whichever RPC is called."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.entrance.door import Door
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import served
from tests.principals import BILLING, bearer, hashed, refused
from tests.principals import guarded as guarded  # noqa: PLC0414 - a fixture
from tests.principals import tokens_file as tokens_file  # noqa: PLC0414 - a fixture
from tests.scrape import scraped
from tests.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from structlog.typing import EventDict

    from haystream_service.errors import Refusal
    from haystream_service.identity.certificate import PeerCertificate
    from haystream_service.identity.principal import Principal
    from tests.conftest import Served
    from tests.fakes import Stage


async def test_who_has_a_token_gets_an_answer(guarded: Served, stage: Stage) -> None:
    """As anybody does where nobody is asked."""
    stage.proceed.set()
    stage.chunks = 2
    events = await all_events(guarded.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=BILLING))
    assert text_of(events) == "word word "


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "CREDENTIALS_MISSING"),
        (bearer("hs_nobody"), "TOKEN_INVALID"),
        (bearer(""), "TOKEN_INVALID"),
        ((("authorization", "Basic YTpi"),), "TOKEN_INVALID"),
        ((*BILLING, *BILLING), "TOKEN_INVALID"),
        (bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."), "TOKEN_INVALID"),
    ],
)
async def test_nobody_else_reaches_any_rpc(guarded: Served, metadata: tuple[tuple[str, str], ...], reason: str) -> None:
    """Each says why, in words that do not repeat what was sent."""
    stub = guarded.stub
    calls: list[grpc.aio.UnaryStreamCall[Any, Any] | grpc.aio.UnaryUnaryCall[Any, Any]] = [
        stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=metadata),
        stub.Resume(chat_pb2.ResumeRequest(run_id="r"), metadata=metadata),
        stub.Cancel(chat_pb2.CancelRequest(run_id="r"), metadata=metadata),
        stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=metadata),
        stub.GetPipeline(chat_pb2.GetPipelineRequest(), metadata=metadata),
    ]
    for call in calls:
        complaint = await refused(call)
        assert (complaint.code, complaint.reason) == ("UNAUTHENTICATED", reason)
        assert "hs_nobody" not in complaint.message
    assert len(guarded.runs) == 0


async def test_a_stranger_is_refused_before_its_request_is_read(guarded: Served) -> None:
    """Nobody has to hold 16 MiB for somebody who may not call: here the request never comes."""
    channel: Any = guarded.channel  # half typed
    call = channel.stream_stream("/haystream.v1.ChatService/Chat")()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert complaint_of(caught.value).reason == "CREDENTIALS_MISSING"


async def test_health_and_reflection_answer_everybody(guarded: Served) -> None:
    """Whoever watches over the service has no token."""
    health = health_pb2_grpc.HealthStub(guarded.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service="haystream.v1.ChatService"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)  # type: ignore[arg-type]  # or aio's
    call = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    (names,) = [response.list_services_response.service async for response in call]
    assert "haystream.v1.ChatService" in {service.name for service in names}


async def test_a_token_that_is_taken_out_stops_working_and_a_new_one_works(
    guarded: Served, stage: Stage, tokens_file: Path
) -> None:
    """Without a restart, and without a word to the streams that go on."""
    stage.chunks = 1
    going_on = guarded.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=BILLING)
    await anext(aiter(going_on))
    newer = {"principals": {"billing": {"tokens": [hashed("hs_new-token")]}}}
    await asyncio.to_thread(tokens_file.write_text, yaml.safe_dump(newer))
    async with asyncio.timeout(10):
        while await is_let_in(guarded, BILLING):
            pass
    assert await is_let_in(guarded, bearer("hs_new-token"))
    stage.proceed.set()
    assert (await all_events(going_on))[-1].HasField("finished")


async def is_let_in(running: Served, metadata: tuple[tuple[str, str], ...]) -> bool:
    """Tell whether a caller is let in."""
    call = running.stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=metadata)
    code = await call.code()
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED}
    return code is grpc.StatusCode.OK


async def test_who_is_not_let_in_is_counted_and_told_of(tokens_file: Path, lines: list[EventDict]) -> None:
    """As the call that it was, with a reason and an id, and without what was sent."""
    async with served(warm=False, metrics_listen="127.0.0.1:0", tokens_file=tokens_file) as running:
        metadata = (*bearer("hs_nobody"), ("x-request-id", "mine"))
        await refused(running.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=metadata))
        scrape = await scraped(running.service)
    method = {"grpc_service": "haystream.v1.ChatService", "grpc_method": "Chat", "grpc_type": "server_stream"}
    assert scrape.value("grpc_server_handled_total", grpc_code="Unauthenticated", **method) == 1
    assert scrape.value("haystream_refusals_total", reason="TOKEN_INVALID") == 1
    (line,) = (line for line in lines if line["event"] == "refused")
    known = {"request_id": "mine", "peer": "127.0.0.1", "method": line["method"]}
    assert line == {"event": "refused", "log_level": "info", "reason": "TOKEN_INVALID", **known}
    assert "hs_nobody" not in f"{lines}{scrape.text}"


class Hearing:
    """Hears of refusals and defects."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.defects: list[BaseException] = []

    def refused(self, refusal: Refusal, _request_id: str, /) -> None:
        self.refusals.append(refusal)

    def defect(self, error: BaseException, _request_id: str, /) -> None:
        self.defects.append(error)


class Broken:
    """Does not tell who calls, but fails."""

    async def principal_of(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Principal:
        raise RuntimeError("swordfish")


async def test_a_door_that_is_broken_lets_nobody_in() -> None:
    """And does not tell its story."""
    observer = Hearing()
    server = grpc.aio.server(interceptors=[Door("haystream.v1.ChatService", Broken(), observer)])  # pyright: ignore[reportUnknownMemberType]  # half typed in its stubs
    chat_pb2_grpc.add_ChatServiceServicer_to_server(Scripted(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        complaint = await refused(chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="q")))
    await server.stop(None)
    assert (complaint.code, complaint.reason) == ("INTERNAL", "INTERNAL")
    assert "swordfish" not in complaint.message
    assert [str(error) for error in observer.defects] == ["swordfish"]
