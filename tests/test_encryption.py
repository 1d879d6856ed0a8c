"""The service's port under TLS: who gets through, and what is read from callers' certificates."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from cryptography import x509

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.entrance.encryption import certificate_of
from haystream_service.identity.certificate import PeerCertificate
from tests.conftest import served
from tests.encrypted import Certs, channel_to, names_of, refused
from tests.encrypted import certs as certs  # noqa: PLC0414 - a fixture
from tests.scripted import Scripted
from tools.certs import Authority, Pair, make

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_caller_who_trusts_the_authority_is_answered(certs: Certs) -> None:
    """By each name that the certificate has."""
    async with served(**certs.settings) as running:
        for host in ("localhost", "127.0.0.1", "::1"):
            async with channel_to(running.service.port, certs.authority.certificate, host=host) as channel:
                assert "fake" in await names_of(channel)


async def test_a_caller_who_trusts_another_authority_sends_nothing(certs: Certs) -> None:
    """It may be somebody else who answers."""
    async with served(**certs.settings) as running:
        assert await refused(channel_to(running.service.port, Authority().certificate))


async def test_a_caller_by_another_name_sends_nothing(certs: Certs) -> None:
    """The certificate is for somebody else."""
    async with served(**certs.settings) as running:
        assert await refused(channel_to(running.service.port, certs.authority.certificate, host="elsewhere.invalid"))


async def test_a_caller_without_encryption_is_not_heard(certs: Certs) -> None:
    """Nobody reads on the way what was meant to be encrypted."""
    async with served(**certs.settings) as running:
        assert await refused(grpc.aio.insecure_channel(running.address))


async def test_a_caller_without_a_certificate_is_refused_where_one_is_asked_for(certs: Certs) -> None:
    """Before any call."""
    async with served(**certs.mutual) as running:
        assert await refused(channel_to(running.service.port, certs.authority.certificate))


async def test_a_caller_with_a_certificate_of_another_authority_is_refused(certs: Certs) -> None:
    """Also where that has the same name."""
    stranger = Authority().caller("gateway", spiffe_id="spiffe://haystream.local/gateway")
    async with served(**certs.mutual) as running:
        assert await refused(channel_to(running.service.port, certs.authority.certificate, stranger))


async def test_a_certificate_of_a_service_does_not_do_for_a_caller(certs: Certs) -> None:
    """Whoever gets hold of one cannot call in the service's name."""
    async with served(**certs.mutual) as running:
        assert await refused(channel_to(running.service.port, certs.authority.certificate, certs.authority.service()))


async def test_a_caller_with_a_certificate_is_answered(certs: Certs) -> None:
    """And so are streams."""
    caller = certs.authority.caller("billing", dns=["billing.local"])
    async with served(**certs.mutual, default_pipeline="fake") as running:
        async with channel_to(running.service.port, certs.authority.certificate, caller) as channel:
            assert "fake" in await names_of(channel)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_nothing_older_than_tls_1_2_is_spoken(certs: Certs, version: ssl.TLSVersion) -> None:
    """What is older has been withdrawn (RFC 8996)."""
    context = ssl.create_default_context(cadata=certs.authority.certificate.decode())
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else it would not even offer what is old
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    async with served(**certs.settings) as running:
        address = ("127.0.0.1", running.service.port)
        if version is ssl.TLSVersion.TLSv1_1:
            with pytest.raises((ConnectionResetError, ssl.SSLError)):  # gRPC hangs up without an alert
                await asyncio.open_connection(*address, ssl=context, server_hostname="localhost")
        else:
            _, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="localhost")
            writer.transport.abort()


async def test_who_calls_is_read_from_the_certificate(certs: Certs) -> None:
    """The SPIFFE id and the DNS names; a certificate with neither, and no encryption, say nothing."""
    seen: list[PeerCertificate | None] = []

    class Asks(Scripted):
        async def ListPipelines(
            self, request: chat_pb2.ListPipelinesRequest, context: grpc.aio.ServicerContext[Any, Any]
        ) -> chat_pb2.ListPipelinesResponse:
            seen.append(certificate_of(context))
            return chat_pb2.ListPipelinesResponse()

    server = grpc.aio.server()  # pyright: ignore[reportUnknownMemberType]  # half typed in its stubs
    chat_pb2_grpc.add_ChatServiceServicer_to_server(Asks(), server)
    own, roots = certs.authority.service(), certs.authority.certificate
    credentials = grpc.ssl_server_credentials([(own.key, own.certificate)], roots, require_client_auth=True)
    encrypted, plain = server.add_secure_port("127.0.0.1:0", credentials), server.add_insecure_port("127.0.0.1:0")
    await server.start()
    spiffe_id = "spiffe://haystream.local/gateway"
    for caller in (
        certs.authority.caller("a", spiffe_id=spiffe_id),
        certs.authority.caller("b", dns=["billing.local", "billing"]),
        certs.authority.caller("c", spiffe_id=spiffe_id, dns=["gateway.local"]),
        certs.authority.caller("d", spiffe_id="https://haystream.local/gateway"),
        certs.authority.caller(spiffe_id),
    ):
        async with channel_to(encrypted, roots, caller) as channel:
            await names_of(channel)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{plain}") as channel:
        await names_of(channel)
    await server.stop(None)
    assert seen == [
        PeerCertificate(spiffe_id, (), (spiffe_id,)),
        PeerCertificate("", ("billing.local", "billing")),
        PeerCertificate(spiffe_id, ("gateway.local",), (spiffe_id,)),
        PeerCertificate(uris=("https://haystream.local/gateway",)),
        PeerCertificate(),
        None,
    ]


async def test_the_certificates_for_development_work_together(tmp_path: Path) -> None:
    """`make certs`: an authority, a service, and two callers by their SPIFFE ids. Keys are for their owner alone."""
    folder = tmp_path / "certs"
    make(folder)
    make(folder)  # a second time takes the place of the first
    keys = list(folder.glob("*.key"))
    assert {key.name for key in keys} == {"service.key", "gateway.key", "billing.key"}
    assert {oct(key.stat().st_mode & 0o777) for key in keys} == {"0o600"}
    roots = (folder / "ca.pem").read_bytes()
    pair: dict[str, Any] = {"tls_cert": folder / "service.pem", "tls_key": folder / "service.key"}
    async with served(**pair, tls_client_ca=folder / "ca.pem") as running:
        for name in ("gateway", "billing"):
            caller = Pair((folder / f"{name}.pem").read_bytes(), (folder / f"{name}.key").read_bytes())
            assert not await refused(channel_to(running.service.port, roots, caller))
            names = x509.load_pem_x509_certificate(caller.certificate).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
            assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [
                f"spiffe://haystream.local/{name}"
            ]
