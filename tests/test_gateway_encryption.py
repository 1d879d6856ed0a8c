"""The gateway's channel to the service: whom it trusts, the certificate that it shows, and new ones."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import httpx_sse
import pytest
import structlog

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.entrance.encryption import certificate_of
from tests.conftest import browsed, served
from tests.encrypted import GATEWAY_ID, Certs, identified, trusting
from tests.scripted import FINISHED, STARTED, Scripted
from tools.certs import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.conftest import Browser


@pytest.fixture
def certs(tmp_path: Path) -> Certs:
    """An authority, and certificates of a service and the gateway, in files."""
    certs = Certs(tmp_path)
    certs.authority.caller("gateway", spiffe_id=GATEWAY_ID).write(tmp_path, "gateway")
    return certs


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
    assert [peer for peer, _ in service.peers] == [GATEWAY_ID]


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
    assert (streaming, renewed, again) == (GATEWAY_ID, *["spiffe://haystream.local/renewed"] * 2)
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
    assert [peer for peer, _ in service.peers] == [*[GATEWAY_ID] * 3, ""]


async def test_streams_of_a_line_that_was_replaced_end_with_the_gateway(certs: Certs) -> None:
    """Nobody waits for them."""
    service = Meeting()
    async with meeting(certs, service) as address, browsed(address, **identified(certs)) as browser:
        async with httpx_sse.aconnect_sse(browser.http, "GET", "/chat?query=q") as source:
            assert (await anext(source.aiter_sse())).event == "metadata"
            certs.authority.caller("gateway").write(certs.folder, "gateway")
            assert await status_of(browser) == 200
            browser.gateway.streams.drain()
