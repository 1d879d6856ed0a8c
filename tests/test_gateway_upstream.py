"""The gateway's calls of the service: encrypted, with an identity, and to another address where one is refused."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import httpx_sse
import pytest
import structlog
from pydantic import ValidationError

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_gateway.credentials import CredentialsUnusable
from haystream_gateway.settings import Settings, complaint_about
from haystream_service.entrance.encryption import certificate_of
from haystream_service.status import Status
from tests.calls import all_events, kinds_of
from tests.conftest import browsed, served
from tests.encrypted import Certs
from tests.frames import frames_of
from tests.scripted import FINISHED, STARTED, Foreign, Scripted, behind_gateway, scripted, text
from tools.certs import Authority, write

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.conftest import Browser, Served
    from tests.fakes import Gate, Stage

SPIFFE_ID = "spiffe://haystream.local/gateway"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # https://www.rfc-editor.org/rfc/rfc9113.html#section-3.4
HEADERS = 1
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def certs(tmp_path: Path) -> Certs:
    """An authority, and certificates of a service and the gateway, in files."""
    certs = Certs(tmp_path)
    certs.authority.caller("gateway", spiffe_id=SPIFFE_ID).write(tmp_path, "gateway")
    return certs


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the gateway's own token."""
    path = tmp_path / "token"
    path.write_text("own-secret\n")
    return path


def trusting(certs: Certs) -> dict[str, Any]:
    """What a gateway needs to trust the service."""
    return {"gateway_tls_ca": certs.folder / "ca.pem"}


def identified(certs: Certs) -> dict[str, Any]:
    """What it needs to show a certificate of its own, too."""
    own = {"gateway_tls_cert": certs.folder / "gateway.pem", "gateway_tls_key": certs.folder / "gateway.key"}
    return {**trusting(certs), **own}


class Meeting(Scripted):
    """A scripted service that notes who calls, and over which connection."""

    def __init__(self, **script: Any) -> None:
        super().__init__(**script)
        self.peers: list[tuple[str, str]] = []
        self.proceed = asyncio.Event()

    async def Chat(  # type: ignore[override]  # as the service's own
        self, request: chat_pb2.ChatRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        self._meet(context)
        await context.write(chat_pb2.ChatResponse(event=STARTED))
        self.asked.set()
        await self.proceed.wait()
        await context.write(chat_pb2.ChatResponse(event=FINISHED))

    async def ListPipelines(
        self, request: chat_pb2.ListPipelinesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.ListPipelinesResponse:
        self._meet(context)
        return await super().ListPipelines(request, context)

    def _meet(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        certificate = certificate_of(context)
        self.peers.append((certificate.spiffe_id if certificate else "", context.peer()))


@asynccontextmanager
async def meeting(certs: Certs, service: Scripted) -> AsyncGenerator[str]:
    """Serve what is scripted, encrypted, for callers with certificates."""
    server = grpc.aio.server()  # pyright: ignore[reportUnknownMemberType]  # its handlers are half typed
    chat_pb2_grpc.add_ChatServiceServicer_to_server(service, server)
    pair = ((certs.folder / "service.key").read_bytes(), (certs.folder / "service.pem").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], certs.authority.certificate, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def status_of(browser: Browser) -> int:
    """Return with what the gateway answers for the service."""
    return (await browser.http.get("/pipelines")).status_code


async def asked(browser: Browser) -> list[str]:
    """Ask the gateway, and return the names of the frames that it answers."""
    return [frame.event for frame in await frames_of(browser, query="q")]


# Encryption


async def test_an_encrypted_service_is_called_by_a_gateway_that_trusts_its_authority(certs: Certs) -> None:
    """For pipelines, chats and readiness."""
    async with served(**certs.settings, default_pipeline="finder") as running:
        async with browsed(running.address, **trusting(certs)) as browser:
            assert await status_of(browser) == 200
            assert (await browser.http.get("/readyz")).status_code == 200


async def test_a_gateway_that_trusts_another_authority_calls_nobody(certs: Certs) -> None:
    """It says that the service cannot be reached, and no more."""
    (certs.folder / "other.pem").write_bytes(Authority().certificate)
    async with served(**certs.settings) as running:
        async with browsed(running.address, gateway_tls_ca=certs.folder / "other.pem") as browser:
            answer = await browser.http.get("/pipelines")
    assert (answer.status_code, answer.json()["reason"]) == (503, "SERVICE_UNREACHABLE")
    assert "ertificate" not in answer.text


async def test_a_gateway_without_encryption_is_not_heard_by_an_encrypted_service(certs: Certs) -> None:
    """Nor the other way round."""
    async with served(**certs.settings) as encrypted, served() as plain:
        async with browsed(encrypted.address) as one, browsed(plain.address, **trusting(certs)) as other:
            assert (await status_of(one), await status_of(other)) == (503, 503)


async def test_a_gateway_shows_its_certificate_where_one_is_asked_for(certs: Certs) -> None:
    """And is refused without."""
    async with served(**certs.mutual) as running:
        async with browsed(running.address, **trusting(certs)) as without:
            assert await status_of(without) == 503
        async with browsed(running.address, **identified(certs)) as browser:
            assert await status_of(browser) == 200


async def test_the_service_learns_from_the_certificate_that_it_is_the_gateway(certs: Certs) -> None:
    """By its SPIFFE id."""
    service = Meeting()
    async with meeting(certs, service) as address, browsed(address, **identified(certs)) as browser:
        assert await status_of(browser) == 200
    assert [peer for peer, _ in service.peers] == [SPIFFE_ID]


async def test_a_service_by_another_name_is_trusted_where_a_setting_says_so(certs: Certs) -> None:
    """As behind a balancer, whose address no certificate has."""
    certs.authority.service(["service.internal"]).write(certs.folder, "service")
    name = "service.internal"
    async with served(**certs.settings) as running:
        async with browsed(running.address, **trusting(certs)) as strict:
            assert await status_of(strict) == 503
        async with browsed(running.address, **trusting(certs), gateway_tls_server_name=name) as browser:
            assert await status_of(browser) == 200


async def test_the_systems_authorities_are_trusted_where_nothing_else_is_said(
    certs: Certs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`HAYSTREAM_GATEWAY_TLS` alone."""
    async with served(**certs.settings) as running:
        async with browsed(running.address, gateway_tls=True) as stranger:
            assert await status_of(stranger) == 503
        monkeypatch.setenv("SSL_CERT_FILE", str(certs.folder / "ca.pem"))
        async with browsed(running.address, gateway_tls=True) as browser:
            assert await status_of(browser) == 200


async def test_a_new_certificate_is_shown_in_new_calls_while_streams_go_on(certs: Certs) -> None:
    """Over a connection of its own: the one before stays for as long as something is read from it."""
    service = Meeting()
    async with meeting(certs, service) as address, browsed(address, **identified(certs)) as browser:
        async with httpx_sse.aconnect_sse(browser.http, "GET", "/chat?query=q") as source:
            frames = source.aiter_sse()
            assert (await anext(frames)).event == "metadata"
            fresh = certs.authority.caller("gateway", spiffe_id="spiffe://haystream.local/renewed")
            fresh.write(certs.folder, "gateway")
            assert [await status_of(browser) for _ in range(2)] == [200, 200]
            service.proceed.set()
            assert [frame.event async for frame in frames] == ["end"]
    (streaming, first), (renewed, second), (again, third) = service.peers
    assert (streaming, renewed, again) == (SPIFFE_ID, *["spiffe://haystream.local/renewed"] * 2)
    assert first != second == third


async def test_new_certificates_that_are_wrong_leave_what_was(certs: Certs) -> None:
    """The log says so once, and shows no key. Right ones are taken then."""
    service = Meeting()
    async with meeting(certs, service) as address, browsed(address, **identified(certs)) as browser:
        wrong = certs.authority.caller("other")
        (certs.folder / "gateway.key").write_bytes(wrong.key)
        with structlog.testing.capture_logs() as lines:
            assert [await status_of(browser) for _ in range(3)] == [200] * 3
        (problem,) = (line["problem"] for line in lines)
        assert problem.startswith(f"HAYSTREAM_GATEWAY_TLS_KEY: {certs.folder / 'gateway.key'} ")
        assert not any(line in str(lines) for line in wrong.key.decode().splitlines())
        wrong.write(certs.folder, "gateway")
        assert await status_of(browser) == 200
    assert [peer for peer, _ in service.peers] == [*[SPIFFE_ID] * 3, ""]


async def test_streams_of_a_line_that_was_replaced_end_with_the_gateway(certs: Certs) -> None:
    """Nobody waits for them."""
    service = Meeting()
    async with meeting(certs, service) as address, browsed(address, **identified(certs)) as browser:
        async with httpx_sse.aconnect_sse(browser.http, "GET", "/chat?query=q") as source:
            assert (await anext(source.aiter_sse())).event == "metadata"
            certs.authority.caller("gateway").write(certs.folder, "gateway")
            assert await status_of(browser) == 200
            browser.gateway.streams.drain()


# Identity


async def test_a_caller_who_brings_no_token_is_vouched_for_by_the_gateways(token_file: Path) -> None:
    """For each kind of call."""
    service = Scripted()
    async with behind_gateway(service, gateway_token_file=token_file) as browser:
        await asked(browser)
        await browser.http.post("/v1/chat/completions", json=COMPLETION)
        await browser.http.get("/runs/r-1/events")
        await browser.http.post("/runs/r-1/cancel")
        await browser.http.get("/pipelines")
        await browser.http.get("/pipelines/echo")
    assert [metadata["authorization"] for metadata in service.metadata] == ["Bearer own-secret"] * 6


async def test_a_callers_own_token_goes_on_as_it_is(token_file: Path) -> None:
    """The gateway lends its own to nobody who says who they are."""
    service = Scripted()
    async with behind_gateway(service, gateway_token_file=token_file) as browser:
        for credentials in ("Bearer theirs", "Basic theirs"):
            await browser.http.get("/pipelines", headers={"Authorization": credentials})
    assert [metadata["authorization"] for metadata in service.metadata] == ["Bearer theirs", "Basic theirs"]


async def test_a_bearer_that_is_a_key_of_the_provider_says_not_who_calls(token_file: Path) -> None:
    """So the gateway does, and the key goes where keys go."""
    service = Scripted()
    async with behind_gateway(service, gateway_token_file=token_file, gateway_bearer_is_api_key=True) as browser:
        headers = {"Authorization": "Bearer sk-theirs"}
        await browser.http.post("/v1/chat/completions", json=COMPLETION, headers=headers)
    assert [metadata["authorization"] for metadata in service.metadata] == ["Bearer own-secret"]
    assert [request.api_key for request in service.requests] == ["sk-theirs"]


async def test_without_a_token_nobody_is_vouched_for() -> None:
    """The service decides about callers who say nothing."""
    service = Scripted()
    async with behind_gateway(service) as browser:
        await browser.http.get("/pipelines")
    assert ["authorization" in metadata for metadata in service.metadata] == [False]


async def test_a_new_token_is_used_from_the_next_call_on(token_file: Path) -> None:
    """One that is none leaves the one before, which the log says once. No line shows either."""
    service = Scripted()
    async with behind_gateway(service, gateway_token_file=token_file) as browser:
        with structlog.testing.capture_logs() as lines:
            for content in ("own-secret", "new-secret-2", "two secrets", "", "newer-secret-3"):
                write(token_file, content.encode(), 0o600)
                for _ in range(2):
                    await browser.http.get("/pipelines")
    told = [metadata["authorization"].removeprefix("Bearer ") for metadata in service.metadata]
    assert told == [*["own-secret"] * 2, *["new-secret-2"] * 6, *["newer-secret-3"] * 2]
    problems = [line["problem"] for line in lines if "problem" in line]
    assert [problem.split(" ")[0] for problem in problems] == ["HAYSTREAM_GATEWAY_TOKEN_FILE:"] * 2
    assert "secret" not in str(lines)


@pytest.mark.parametrize("content", [None, "", "two words", "ümlaut", "x" * 8001])
async def test_a_file_that_holds_no_token_is_refused_at_the_start(tmp_path: Path, content: str | None) -> None:
    """In one line, which does not show what it holds."""
    path = tmp_path / "none"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CredentialsUnusable) as caught:
        async with browsed("127.0.0.1:1", gateway_token_file=path):
            pass
    assert str(caught.value).startswith(f"HAYSTREAM_GATEWAY_TOKEN_FILE: {path} ")
    assert not content or content not in str(caught.value)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "gateway.internal:0", "192.0.2.7:8000"])
@pytest.mark.parametrize("identity", ["token", "certificate"])
def test_a_gateway_that_others_reach_does_not_start_as_an_open_relay(listen: str, identity: str, certs: Certs) -> None:
    """One line names the address, and how to say that it is meant."""
    own = {"gateway_token_file": "token"} if identity == "token" else identified(certs)
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"gateway_listen": listen, **own})
    complaint = complaint_about(caught.value)
    assert complaint.startswith(f"HAYSTREAM_GATEWAY_LISTEN: whoever reaches {listen} ")
    assert "HAYSTREAM_GATEWAY_ALLOW_UNAUTHENTICATED=true" in complaint
    assert "\n" not in complaint
    Settings.model_validate({"gateway_listen": listen, **own, "gateway_allow_unauthenticated": True})
    Settings.model_validate({"gateway_listen": listen, **trusting(certs)})


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_on_the_loopback_a_gateway_may_lend_its_identity(listen: str) -> None:
    """As anybody on the machine could read its token."""
    assert not Settings.model_validate({"gateway_listen": listen, "gateway_token_file": "token"}).is_open_relay


async def test_a_relay_that_is_meant_is_warned_of(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, with the address; of the loopback there is nothing to say."""
    with structlog.testing.capture_logs() as lines:
        async with browsed("127.0.0.1:1", gateway_token_file=token_file):
            pass
        assert lines == []
        monkeypatch.setattr(Settings, "is_open_relay", property(lambda _: True))  # nothing here binds to the world
        async with browsed("127.0.0.1:1", gateway_token_file=token_file, gateway_allow_unauthenticated=True):
            pass
    (line,) = lines
    assert (line["log_level"], line["address"]) == ("warning", "127.0.0.1:0")


COMPLETION = {"model": "echo", "messages": [{"role": "user", "content": "q"}]}


# Room for what is answered at once


async def test_readiness_lists_and_cancel_do_not_wait_for_streams(stage: Stage) -> None:
    """Where streams are all calls that the service takes on one connection, and one more waits."""
    async with (
        served(default_pipeline="fake", max_streams=2) as running,
        browsed(running.address) as browser,
        AsyncExitStack() as streams,
    ):
        for run_id in ("one", "two"):
            body = {"query": "q", "run_id": run_id}
            source = await streams.enter_async_context(httpx_sse.aconnect_sse(browser.http, "POST", "/chat", json=body))
            frames = source.aiter_sse()
            streams.push_async_callback(frames.aclose)
            assert (await anext(frames)).event == "metadata"
        for address in ("/readyz", "/pipelines", "/pipelines/fake"):
            assert (await browser.http.get(address)).status_code == 200, address
        assert (await browser.http.post("/runs/one/cancel")).status_code == 200
        await stage.cancelled.wait()
    assert stage.received


# Another address


async def test_a_chat_that_a_draining_service_refuses_goes_to_another_by_itself(echo: Served, stage: Stage) -> None:
    """Its caller sees nothing of it, and it runs once."""
    stack = AsyncExitStack()
    draining = await stack.enter_async_context(served(default_pipeline="fake", drain_seconds=60))
    async with grpc.aio.insecure_channel(draining.address) as channel:
        call = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="long"))
        await stage.waiting.wait()
        watch = asyncio.create_task(all_events(call))
        closing = asyncio.create_task(stack.aclose())
        async with browsed(f"ipv4:{draining.address},{echo.address}") as browser:
            await refuses(draining.address)
            for _ in range(6):
                assert (await asked(browser))[-1] == "end"
        stage.proceed.set()
        assert kinds_of(await watch)[-1] == "finished"
        await closing
    assert [received["query"] for received in stage.received] == ["long"]


async def refuses(address: str) -> None:
    """Wait until a service takes no new runs."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        while True:
            call = stub.Chat(chat_pb2.ChatRequest(query="q", pipeline="nobody"))
            try:
                await all_events(call)
            except grpc.aio.AioRpcError as error:
                if error.code() is UNAVAILABLE:
                    return


@asynccontextmanager
async def hanging_up() -> AsyncGenerator[tuple[str, list[bytes]]]:
    """Run something that speaks HTTP/2 until a call has come, and hangs up then; yield its address, and the calls."""
    calls: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not calls:  # once is enough
            await reader.readexactly(len(PREFACE))
            writer.write(SETTINGS)
            head = bytes(9)  # length, kind, flags, stream
            while head[3] != HEADERS:
                head = await reader.readexactly(len(head))
                await reader.readexactly(int.from_bytes(head[:3]))
            calls.append(head)
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", calls


async def test_a_chat_whose_connection_is_lost_before_the_first_word_goes_to_another_by_itself() -> None:
    """As when a service is killed, or its machine."""
    service = Scripted()
    async with hanging_up() as (lost, calls), scripted(service) as address:
        async with browsed(f"ipv4:{lost},{address}") as browser:
            while not calls:
                assert await asked(browser) == ["metadata", "end"]
    assert len(calls) == 1


@asynccontextmanager
async def losing_the_first_answer(address: str, begun: Gate) -> AsyncGenerator[str]:
    """Stand between the gateway and a service, and hang up on the gateway once, when its first run has begun.

    The service learns nothing of it.
    """
    host, _, port = address.partition(":")
    connections: list[asyncio.Task[None] | None] = []
    over = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        answers, service = await asyncio.open_connection(host, int(port))
        ways = [asyncio.create_task(passed_on(reader, service))]
        if len(connections) > 1:
            ways.append(asyncio.create_task(passed_on(answers, writer)))
        else:
            head = await answers.readexactly(9)
            while head[3] != HEADERS:
                writer.write(head + await answers.readexactly(int.from_bytes(head[:3])))
                head = await answers.readexactly(9)
            await begun.wait()
            writer.transport.abort()
        await over.wait()
        service.transport.abort()
        writer.transport.abort()
        await asyncio.gather(*ways)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            over.set()
            await asyncio.gather(*filter(None, connections))
    assert len(connections) > 1


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write all that can be read."""
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)


@pytest.mark.parametrize("method", ["GET", "POST", "completion"])
async def test_a_chat_whose_answer_is_lost_on_the_way_runs_once(stage: Stage, method: str) -> None:
    """Asked again it finds its run by the id that the gateway gave it; its caller has given none."""
    async with served(default_pipeline="fake") as running:
        async with losing_the_first_answer(running.address, stage.waiting) as address, browsed(address) as browser:
            if method == "GET":
                asking = asyncio.create_task(browser.http.get("/chat?query=q"))
            elif method == "POST":
                asking = asyncio.create_task(browser.http.post("/chat", json={"query": "q"}))
            else:
                completion = {**COMPLETION, "model": "fake"}
                asking = asyncio.create_task(browser.http.post("/v1/chat/completions", json=completion))
            await stage.waiting.wait()
            stage.proceed.set()
            assert (await asking).status_code == 200
    assert len(stage.received) == 1


async def test_a_chat_that_is_refused_everywhere_is_refused_after_four_times() -> None:
    """No request is too long for it."""
    service = Scripted(events=(), status=Foreign(UNAVAILABLE))
    async with behind_gateway(service) as browser:
        answer = await browser.http.post("/chat", json={"query": "x" * (3 << 20)})
    assert (answer.status_code, answer.json()["reason"]) == (503, "SERVICE_UNREACHABLE")
    assert len(service.requests) == 4
    (run_id,) = {request.run_id for request in service.requests}
    assert re.fullmatch(r"[0-9a-f]{24}", run_id)


async def test_a_chat_that_has_begun_is_not_sent_again() -> None:
    """It would run twice."""
    service = Scripted(events=(STARTED, text("word")), status=Status(UNAVAILABLE, "DRAINING", "words"))
    async with behind_gateway(service) as browser:
        assert await asked(browser) == ["metadata", "data", "error"]
    assert len(service.requests) == 1


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code not in {UNAVAILABLE, grpc.StatusCode.OK}])
async def test_a_chat_that_is_refused_for_another_reason_is_not_sent_again(code: grpc.StatusCode) -> None:
    """It would be refused again, or is the caller's to repeat."""
    service = Scripted(events=(), status=Status(code, "WORDS", "words"))
    async with behind_gateway(service) as browser:
        await browser.http.get("/chat?query=q")
    assert len(service.requests) == 1


async def test_readiness_is_asked_once() -> None:
    """Who asks every few seconds wants an answer about now."""
    async with scripted(Scripted()) as address, browsed(address) as browser:
        answer = await browser.http.get("/readyz")
    assert answer.status_code == 501
