"""Images behind URLs: certificates, time, places, and connections that are not left open."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from haystream_service.images import ImageFetcher, Internet
from tests.image_hosts import (
    NAME,
    PNG,
    PRIVATE,
    PUBLIC,
    SECONDS,
    SHORT_SECONDS,
    SMALL_BYTES,
    FakeInternet,
    Host,
    allowing,
    answer,
    hosting,
    refusal,
    turns,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's certificate for one name, which the fetcher trusts as it would trust a company's own."""
    key, chain = tmp_path / "key.pem", tmp_path / "certificate.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=haystream", "-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run(
        ["openssl", "req", *kind, *name, "-keyout", key, "-out", chain],  # noqa: S607 - wherever it is installed
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


async def test_a_certificate_is_checked_against_the_name_though_the_address_is_dialled(
    certificate: ssl.SSLContext,
) -> None:
    """The name of the URL is what a certificate has to be for; another name at the same address is refused."""
    async with hosting(tls=certificate) as host:
        internet = FakeInternet({NAME: [[PUBLIC]], "other.example": [[PUBLIC]], PUBLIC: [[PUBLIC]]}, host)
        async with ImageFetcher(internet=internet, max_bytes=SMALL_BYTES, seconds=SECONDS) as images:
            assert (await images.fetch(f"https://{NAME}/")).data == PNG
            for name in ("other.example", PUBLIC):
                assert "no valid certificate" in await refusal(images, f"https://{name}/")
        assert len(host.heads) == 1


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a host that an operator allows: that is about its address alone."""
    monkeypatch.delenv("SSL_CERT_FILE")
    async with hosting(tls=certificate) as host:
        internet = FakeInternet({NAME: [[PRIVATE]]}, host)
        async with ImageFetcher(internet=internet, allowed_hosts=frozenset({NAME}), seconds=SECONDS) as images:
            assert "no valid certificate" in await refusal(images, f"https://{NAME}/")
        assert not host.heads


# Time, places and leaving.


@pytest.mark.parametrize("reply", [b"HTTP/1.1 200 OK\r\nContent-", answer(b""), answer(PNG[:8], "Content-Length: 64")])
@pytest.mark.parametrize("holds", [True, False])
async def test_a_server_that_takes_its_time_is_left(reply: bytes, *, holds: bool) -> None:
    """Whether it says nothing, half a head, or half an image: the limit is for everything together."""
    async with hosting(reply, ends=False, holds=holds) as host, allowing(host, seconds=SHORT_SECONDS) as images:
        assert "0.2 seconds" in await refusal(images, host.url)
        await asyncio.wait(host.visits, timeout=SECONDS)
        assert host.present == 0


async def test_a_server_that_does_not_shake_hands_is_left(anyone: Host) -> None:
    """A connection whose handshake never ends is closed, and not left to the garbage collector."""
    async with allowing(anyone, seconds=SHORT_SECONDS) as images:
        await refusal(images, f"https://{PRIVATE}/")  # reads the certificates, which takes half of the limit
        assert "0.2 seconds" in await refusal(images, f"https://{anyone.authority}/")
        await asyncio.wait(anyone.visits, timeout=SECONDS)
        assert (len(anyone.visits), anyone.present) == (1, 0)


async def test_a_resolver_that_does_not_answer_is_left() -> None:
    """The look-up is within the limit, too."""

    class SilentInternet(Internet):
        async def addresses(self, host: str, port: int) -> list[str]:
            await asyncio.Event().wait()
            return [PUBLIC]

    async with ImageFetcher(internet=SilentInternet(), seconds=SHORT_SECONDS) as images:
        assert "0.2 seconds" in await refusal(images, f"http://{NAME}/")


async def test_no_more_images_come_at_once_than_may() -> None:
    """The next begins when one is done, and not even its name is looked up before."""
    async with hosting(holds=True) as host:
        internet = FakeInternet({NAME: [[PUBLIC]] * 5}, host)
        async with ImageFetcher(internet=internet, at_once=2, seconds=SECONDS) as images:
            fetches = [asyncio.create_task(images.fetch(f"http://{NAME}/")) for _ in range(5)]
            for _ in range(2):
                await host.arrived.acquire()
            await turns()
            assert (len(internet.lookups), host.present) == (2, 2)
            host.proceed.set()
            assert [image.data for image in await asyncio.gather(*fetches)] == [PNG] * 5
        assert len(internet.dialled) == 5


async def test_what_waits_for_its_place_waits_no_longer_than_the_limit() -> None:
    """It is refused like what is slow, without ever having connected."""
    async with hosting(holds=True) as host, allowing(host, at_once=1, seconds=SHORT_SECONDS) as images:
        words = await asyncio.gather(refusal(images, host.url), refusal(images, host.url))
        assert all("0.2 seconds" in each for each in words)
        assert len(host.visits) == 1


async def test_places_are_free_again_however_a_fetch_ends() -> None:
    """Refused, late, cancelled or done: a leak of one each time would end all fetching."""
    async with hosting(holds=True) as host:
        internet = FakeInternet({NAME: repeat([PUBLIC]), "inside.example": repeat([PRIVATE])}, host)
        async with ImageFetcher(internet=internet, at_once=1, seconds=SHORT_SECONDS) as images:
            assert "no address" in await refusal(images, "http://nowhere.example/")
            assert "public internet" in await refusal(images, "http://inside.example/")
            assert "0.2 seconds" in await refusal(images, f"http://{NAME}/")
            assert len(host.visits) == 1
            await host.arrived.acquire()
            fetch = asyncio.create_task(images.fetch(f"http://{NAME}/"))
            await host.arrived.acquire()
            fetch.cancel()
            await asyncio.wait([fetch])
            host.proceed.set()
            for _ in range(2):
                assert (await images.fetch(f"http://{NAME}/")).data == PNG


async def test_a_fetch_that_is_cancelled_closes_its_connection() -> None:
    """At once, and the cancellation goes on; its place is free."""
    async with hosting(holds=True) as host, allowing(host, at_once=1) as images:
        for _ in range(2):
            fetch = asyncio.create_task(images.fetch(host.url))
            await host.arrived.acquire()
            fetch.cancel()
            await asyncio.wait([fetch])
            assert fetch.cancelled()
            await asyncio.wait(host.visits, timeout=SECONDS)
            assert host.present == 0


async def cancel_in_every_turn(host: Host, scheme: str) -> None:
    """Cancel a fetch before its first turn of the loop, the next before its second, until one is done before that."""
    internet, image, count = FakeInternet({NAME: repeat([PUBLIC])}, host), None, 0
    async with ImageFetcher(internet=internet, at_once=1, seconds=SECONDS) as images:
        while image is None:
            fetch = asyncio.create_task(images.fetch(f"{scheme}://{NAME}/"))
            for _ in range(count):
                await asyncio.sleep(0)
            fetch.cancel()
            await asyncio.wait([fetch])
            if host.visits:
                await asyncio.wait(host.visits, timeout=SECONDS)
            assert host.present == 0
            image, count = (None if fetch.cancelled() else fetch.result()), count + 1
    assert image.data == PNG
    assert len(host.visits) > 2


async def test_a_fetch_that_is_cancelled_in_any_turn_leaves_nothing_open(anyone: Host) -> None:
    """Also just after connecting, where httpcore's pool keeps it."""
    await cancel_in_every_turn(anyone, "http")


async def test_a_fetch_that_is_cancelled_in_any_turn_of_its_handshake_leaves_nothing_open(
    certificate: ssl.SSLContext,
) -> None:
    """Nor in those after it."""
    async with hosting(tls=certificate) as host:
        await cancel_in_every_turn(host, "https")


async def test_leaving_waits_for_what_is_on_its_way() -> None:
    """Nobody's image is lost, and nothing is open afterwards."""
    async with hosting(holds=True) as host:
        async with allowing(host, at_once=1) as images:
            fetches = [asyncio.create_task(images.fetch(host.url)) for _ in range(2)]
            await host.arrived.acquire()
            asyncio.get_running_loop().call_soon(host.proceed.set)
        assert all(fetch.done() for fetch in fetches)
        assert [fetch.result().data for fetch in fetches] == [PNG, PNG]
