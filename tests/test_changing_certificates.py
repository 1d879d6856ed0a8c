"""Certificates that change while the service serves, and files that hold none."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.entrance.certificates import CertificateUnusable
from tests.calls import all_events, kinds_of
from tests.conftest import served
from tests.encrypted import Certs, channel_to, refused
from tests.encrypted import certs as certs  # noqa: PLC0414 - a fixture
from tools.certs import Authority, Pair

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from tests.conftest import Served
    from tests.fakes import Stage


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
