"""The service's port under TLS: who gets through, certificates that change while it serves, and a port for probes."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import warnings
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.entrance.certificates import CertificateUnusable
from haystream_service.entrance.encryption import certificate_of
from haystream_service.identity.certificate import PeerCertificate
from tests.calls import all_events, kinds_of
from tests.conftest import served
from tests.encrypted import Certs, channel_to, names_of, refused
from tests.scripted import Scripted
from tools.certs import Authority, Pair, make

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from pathlib import Path

    from tests.conftest import Served
    from tests.fakes import Stage

READY = health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def certs(tmp_path: Path) -> Certs:
    """An authority, and a service's certificate of it, in files."""
    return Certs(tmp_path)


def shown_by(running: Served, roots: bytes) -> x509.Certificate:
    """Return the certificate that a new connection is shown."""
    context = ssl.create_default_context(cadata=roots.decode())
    with socket.create_connection(("127.0.0.1", running.service.port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            return x509.load_der_x509_certificate(encrypted.getpeercert(binary_form=True) or b"")


async def shown(running: Served, roots: bytes) -> bytes:
    """Return that certificate in PEM."""
    certificate = await asyncio.to_thread(shown_by, running, roots)
    return certificate.public_bytes(Encoding.PEM)


def problems_in(lines: list[MutableMapping[str, Any]]) -> list[str]:
    """Return what the log says of certificates."""
    return [line["problem"] for line in lines if "problem" in line]


# Who gets through


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


# Certificates that change


def exchanged_by_writing(certs: Certs, pair: Pair) -> None:
    """Exchange the files one after the other, in place."""
    (certs.folder / "service.pem").write_bytes(pair.certificate)
    (certs.folder / "service.key").write_bytes(pair.key)


def exchanged_by_renaming(certs: Certs, pair: Pair) -> None:
    """Exchange the files one after the other, each as a whole."""
    pair.write(certs.folder, "service")


@pytest.mark.parametrize("exchange", [exchanged_by_writing, exchanged_by_renaming])
async def test_a_new_certificate_is_shown_to_new_connections_while_streams_go_on(
    certs: Certs, stage: Stage, exchange: Callable[[Certs, Pair], None]
) -> None:
    """Nothing is restarted, and no run is lost."""
    stage.chunks, stage.more = 1, 1
    roots = certs.authority.certificate
    async with served(**certs.settings, default_pipeline="fake") as running:
        async with channel_to(running.service.port, roots) as channel:
            call = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="q"))
            await stage.waiting.wait()
            before = await shown(running, roots)
            fresh = certs.authority.service(lifetime=timedelta(days=20))
            exchange(certs, fresh)
            looked_at = running.service.encryption
            assert looked_at is not None  # whoever looks at the expiry first keeps no connection from the new ones
            assert looked_at.expires_at - datetime.now(UTC) < timedelta(days=21)
            after = await shown(running, roots)
            stage.proceed.set()
            assert kinds_of(await all_events(call))[-1] == "finished"
        assert (before == fresh.certificate, after == fresh.certificate) == (False, True)
        encryption = running.service.encryption
        assert encryption is not None
        assert encryption.expires_at - datetime.now(UTC) < timedelta(days=21)


def padded(pair: Pair) -> Pair:
    """Return a pair whose files are of the same size as all others."""
    return Pair(pair.certificate.ljust(2000, b"\n"), pair.key.ljust(2000, b"\n"))


async def test_a_new_certificate_behind_exchanged_links_is_seen(certs: Certs) -> None:
    """As Kubernetes exchanges a Secret: a link to a folder, under links to files."""
    volume = certs.folder / "volume"
    pairs = {name: padded(certs.authority.service()) for name in ("first", "second")}
    for name, pair in pairs.items():
        (volume / name).mkdir(parents=True)
        for file in pair.write(volume / name, "tls"):
            os.utime(file, (0, 0))  # of the same time and size: another place on the disk is all that tells
    (volume / "data").symlink_to("first")
    for name in ("tls.pem", "tls.key"):
        (volume / name).symlink_to(f"data/{name}")
    async with served(tls_cert=volume / "tls.pem", tls_key=volume / "tls.key") as running:
        assert await shown(running, certs.authority.certificate) == pairs["first"].certificate.rstrip() + b"\n"
        (volume / "new").symlink_to("second")
        (volume / "new").rename(volume / "data")
        assert await shown(running, certs.authority.certificate) == pairs["second"].certificate.rstrip() + b"\n"


async def test_callers_of_an_authority_that_is_taken_out_are_refused_from_then_on(certs: Certs) -> None:
    """Those of the one that has come are let in."""
    fresh = Authority()
    roots = certs.authority.certificate
    async with served(**certs.mutual) as running:
        port = running.service.port
        assert not await refused(channel_to(port, roots, certs.authority.caller("billing", dns=["billing.local"])))
        assert await refused(channel_to(port, roots, fresh.caller("billing", dns=["billing.local"])))
        (certs.folder / "ca.pem").write_bytes(fresh.certificate)
        assert await refused(channel_to(port, roots, certs.authority.caller("billing", dns=["billing.local"])))
        assert not await refused(channel_to(port, roots, fresh.caller("billing", dns=["billing.local"])))


def other_key(certs: Certs) -> None:
    (certs.folder / "service.key").write_bytes(certs.authority.service().key)


def half_a_key(certs: Certs) -> None:
    (certs.folder / "service.key").write_bytes(certs.authority.service().key[:100])


def half_a_certificate(certs: Certs) -> None:
    (certs.folder / "service.pem").write_bytes(certs.authority.service().certificate[:200])


def empty_certificate(certs: Certs) -> None:
    (certs.folder / "service.pem").write_bytes(b"")


def no_certificate(certs: Certs) -> None:
    (certs.folder / "service.pem").unlink()


def folder_for_a_key(certs: Certs) -> None:
    (certs.folder / "service.key").unlink()
    (certs.folder / "service.key").mkdir()


def locked_key(certs: Certs) -> None:
    fresh = certs.authority.service()
    key = load_pem_private_key(fresh.key, None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    Pair(fresh.certificate, locked).write(certs.folder, "service")


def no_authority(certs: Certs) -> None:
    (certs.folder / "ca.pem").write_text("nothing")


WRONG = [
    (other_key, "HAYSTREAM_TLS_KEY", "service.key"),
    (half_a_key, "HAYSTREAM_TLS_KEY", "service.key"),
    (half_a_certificate, "HAYSTREAM_TLS_CERT", "service.pem"),
    (empty_certificate, "HAYSTREAM_TLS_CERT", "service.pem"),
    (no_certificate, "HAYSTREAM_TLS_CERT", "service.pem"),
    (folder_for_a_key, "HAYSTREAM_TLS_KEY", "service.key"),
    (locked_key, "HAYSTREAM_TLS_KEY", "service.key"),
    (no_authority, "HAYSTREAM_TLS_CLIENT_CA", "ca.pem"),
]


@pytest.mark.parametrize(("spoil", "setting", "file"), WRONG)
async def test_new_files_that_are_wrong_leave_the_certificates_as_they_were(
    certs: Certs, spoil: Callable[[Certs], None], setting: str, file: str
) -> None:
    """The log says so once, with the setting and the file, and shows no key. Right ones are taken then."""
    roots, caller = certs.authority.certificate, certs.authority.caller("billing", dns=["billing.local"])
    keys = (certs.folder / "service.key").read_text()
    async with served(**certs.mutual) as running:
        port = running.service.port
        with structlog.testing.capture_logs() as lines:
            spoil(certs)
            for _ in range(3):
                assert not await refused(channel_to(port, roots, caller))
        (problem,) = problems_in(lines)
        assert problem.startswith(f"{setting}: {certs.folder / file} ")
        if (certs.folder / "service.key").is_dir():
            (certs.folder / "service.key").rmdir()
        else:
            keys += (certs.folder / "service.key").read_text()
        assert not any(line in str(lines) for line in keys.splitlines())
        fresh = Authority()
        (certs.folder / "ca.pem").write_bytes(fresh.certificate)
        fresh.service().write(certs.folder, "service")
        assert not await refused(channel_to(port, fresh.certificate, fresh.caller("billing", dns=["billing.local"])))


@pytest.mark.parametrize(("spoil", "setting", "file"), WRONG)
async def test_files_that_are_wrong_at_the_start_are_refused(
    certs: Certs, spoil: Callable[[Certs], None], setting: str, file: str
) -> None:
    """In one line with the setting, the file and what to do."""
    spoil(certs)
    with pytest.raises(CertificateUnusable) as caught:
        async with served(**certs.mutual):
            pass
    assert str(caught.value).startswith(f"{setting}: {certs.folder / file} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("begins", "lifetime", "words"),
    [
        (-timedelta(days=40), timedelta(days=30), ["has expired"]),
        (timedelta(0), timedelta(days=6), ["expires on"]),
        (timedelta(days=1), timedelta(days=30), ["is not valid before"]),
        (timedelta(0), timedelta(days=8), []),
    ],
)
async def test_a_certificate_that_will_not_do_for_long_is_warned_of(
    certs: Certs, begins: timedelta, lifetime: timedelta, words: list[str]
) -> None:
    """Once, and it is served all the same."""
    pair = certs.authority.service(begins=datetime.now(UTC) + begins, lifetime=lifetime)
    pair.write(certs.folder, "service")
    with structlog.testing.capture_logs() as lines:
        async with served(**certs.settings) as running:
            for _ in range(2):
                await refused(channel_to(running.service.port, certs.authority.certificate))
    problems = problems_in(lines)
    assert len(problems) == len(words)
    for problem, word in zip(problems, words, strict=True):
        assert problem.startswith(f"HAYSTREAM_TLS_CERT: {certs.folder / 'service.pem'} {word}")


# A port for probes


async def test_probes_are_answered_without_encryption_on_a_port_of_their_own(certs: Certs) -> None:
    """Kubernetes knows neither certificates nor tokens. Nothing else is there."""
    async with served(**certs.mutual, health_listen="127.0.0.1:0") as running:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.service.health_port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
            assert (await health.Check(READY)).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await names_of(channel)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_probes_are_answered_until_the_last_run_is_over(stage: Stage) -> None:
    """Through the drain the service lives, and is not ready; a watcher does not hold it up."""
    stack = AsyncExitStack()
    running = await stack.enter_async_context(
        served(health_listen="127.0.0.1:0", default_pipeline="fake", drain_seconds=20)
    )
    async with (
        grpc.aio.insecure_channel(running.address) as callers,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.service.health_port}") as probes,
    ):
        health = health_pb2_grpc.HealthStub(probes)
        call = chat_pb2_grpc.ChatServiceStub(callers).Chat(chat_pb2.ChatRequest(query="q"))
        watcher = aiter(health.Watch(READY))
        assert (await anext(watcher)).status == SERVING
        await stage.waiting.wait()
        events = asyncio.create_task(all_events(call))
        closing = asyncio.create_task(stack.aclose())
        assert (await anext(watcher)).status == NOT_SERVING
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
        assert (await health.Check(READY)).status == NOT_SERVING
        stage.proceed.set()
        assert kinds_of(await events)[-1] == "finished"
        async with asyncio.timeout(5):
            with pytest.raises(grpc.aio.AioRpcError):
                await anext(watcher)
            await closing


@pytest.mark.parametrize("has_reflection", [True, False])
async def test_the_contract_is_told_where_that_is_set(has_reflection: bool) -> None:
    """On both ports, and each tells of no more than it has."""
    async with served(health_listen="127.0.0.1:0", reflection=has_reflection) as running:
        told = [await reflected(port) for port in (running.service.port, running.service.health_port)]
    assert [b"grpc.health.v1.Health" in names for names in told] == [has_reflection, False]
    assert [b"haystream.v1.ChatService" in names for names in told] == [has_reflection, False]


async def reflected(port: int | None) -> bytes:
    """Return what reflection says that there is, as it comes; nothing where there is no reflection."""
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    list_services = b"\x3a\x01*"  # field 7: a text
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = cast("Any", channel).stream_stream(method)
        try:
            return b"".join([response async for response in ask(iter([list_services]))])
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            return b""


# Certificates for development


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
