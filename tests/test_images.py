"""Images behind URLs: what is brought, and what is refused in words."""

from __future__ import annotations

import base64
import gzip

import pytest

from haystream_service.images import FetchedImage, ImageFetcher
from tests.image_hosts import (
    JPEG,
    KINDS,
    PNG,
    PUBLIC,
    SMALL_BYTES,
    FakeInternet,
    Host,
    allowing,
    answer,
    hosting,
    refusal,
)


@pytest.mark.parametrize("mime_type", KINDS)
async def test_an_image_comes_with_its_bytes_and_its_type(mime_type: str) -> None:
    """All four kinds; parameters and capitals in the answer's own name for it do not matter."""
    content_type = f"{mime_type.upper()}; charset=binary"
    async with hosting(answer(KINDS[mime_type], content_type=content_type)) as host, allowing(host) as images:
        assert await images.fetch(host.url) == FetchedImage(KINDS[mime_type], mime_type)


async def test_the_bytes_decide_what_an_image_is() -> None:
    """A server that says PNG and sends JPEG is not believed."""
    async with hosting(answer(JPEG)) as host, allowing(host) as images:
        assert (await images.fetch(host.url)).mime_type == "image/jpeg"


async def test_an_image_in_chunks_is_put_together() -> None:
    """And one byte less than too large is not too large."""
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in PNG) + b"0\r\n\r\n"
    async with hosting(answer(chunks, "Transfer-Encoding: chunked")) as host, allowing(host) as images:
        assert (await images.fetch(host.url)).data == PNG


async def test_a_request_says_little(anyone: Host) -> None:
    """The path and the query as they are, no fragment, no cookies of an earlier answer, and who asks."""
    anyone.answer = answer(PNG, "Content-Length: 64", "Set-Cookie: a=b")
    async with allowing(anyone) as images:
        for _ in range(2):
            await images.fetch(f"HTTP://{anyone.authority}/a%20b?c=d/e?f#g")
    assert len(anyone.visits) == 2
    line, *fields = anyone.heads[1].strip().split("\r\n")
    assert line == "GET /a%20b?c=d/e?f HTTP/1.1"
    assert {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)} == {
        "host": anyone.authority,
        "user-agent": "haystream",
        "accept": "image/*",
        "accept-encoding": "identity",
    }


@pytest.mark.parametrize(
    ("url", "host"), [("http://[2606:4700::1111]:81?a", "[2606:4700::1111]:81"), ("http://a/", "a")]
)
async def test_the_host_header_is_what_the_url_has(anyone: Host, url: str, host: str) -> None:
    """Also of an IPv6 address, which stands in brackets."""
    internet = FakeInternet({"2606:4700::1111": [["2606:4700::1111"]], "a": [[PUBLIC]]}, anyone)
    async with ImageFetcher(internet=internet) as images:
        await images.fetch(url)
    assert f"\r\nhost: {host}\r\n" in anyone.heads[0].lower()
    assert anyone.heads[0].startswith("GET /")


async def test_a_proxy_of_the_environment_is_not_asked(anyone: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would connect for us to wherever it likes."""
    async with hosting() as proxy, allowing(anyone) as images:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy.authority}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert (await images.fetch(anyone.url)).data == PNG
        assert not proxy.visits


# What is refused for what it is.


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(status="302 Found"), "the address it leads to"),
        (answer(PNG, "Location: http://127.0.0.1/", status="301 Moved"), "the address it leads to"),
        (answer(PNG, "Location: /b", status="308 Permanent Redirect"), "the address it leads to"),
        (answer(status="404 Not Found"), "status 404"),
        (answer(status="206 Partial Content"), "status 206"),
        (answer(status="500 Internal Server Error"), "status 500"),
        (answer(b"", "Connection: upgrade", "Upgrade: x", status="101 Switching Protocols"), "HTTP/1.1"),
        (answer(content_type="text/html"), "not called an image"),
        (answer(content_type="text/html; as=image/png"), "not called an image"),
        (answer(content_type=None), "not called an image"),
        (answer(b"<html>I am no image</html>"), "none of PNG, JPEG, GIF or WebP"),
        (answer(b"<svg/>", content_type="image/svg+xml"), "none of PNG, JPEG, GIF or WebP"),
        (answer(b""), "none of PNG, JPEG, GIF or WebP"),
        (answer(b" " + PNG[:-1]), "none of PNG, JPEG, GIF or WebP"),
        (answer(gzip.compress(PNG, mtime=0), "Content-Encoding: gzip"), "compresses"),
        (answer(PNG, "Content-Encoding: br"), "compresses"),
        (answer(PNG[:20], "Content-Length: 40"), "HTTP/1.1"),
        (answer(PNG, "Content-Length: -1"), "HTTP/1.1"),
        (answer(b"zz\r\n", "Transfer-Encoding: chunked"), "HTTP/1.1"),
        (b"220 mail.example ESMTP\r\n", "HTTP/1.1"),
        (b"", "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "HTTP/1.1"),
    ],
)
async def test_what_is_no_image_is_refused_in_words(reply: bytes, words: str) -> None:
    """Redirects lead to where nothing was checked; and what calls itself an image is looked at."""
    async with hosting(reply) as host, allowing(host) as images:
        assert words in await refusal(images, host.url)
        assert len(host.visits) == 1


@pytest.mark.parametrize(
    "reply",
    [
        answer(PNG + b"!", "Content-Length: 65"),
        answer(PNG + b"!"),
        answer(b"1\r\nx\r\n" * 65, "Transfer-Encoding: chunked"),
        answer(b"", "Content-Length: 65"),
        answer(b"", "Content-Length: 99999999999999999999"),
    ],
)
@pytest.mark.parametrize("ends", [True, False])
async def test_an_image_is_too_large_as_soon_as_that_is_known(reply: bytes, *, ends: bool) -> None:
    """By its length or without one, and though the rest is yet to come, which nobody waits for."""
    async with hosting(reply, ends=ends) as host, allowing(host) as images:
        assert "more than 64 bytes" in await refusal(images, host.url)


async def test_a_length_is_no_promise_to_keep_memory_for(anyone: Host) -> None:
    """A server may say nothing of the length, and then send for ever: what is kept stays within the limit."""
    anyone.ends = False
    anyone.answer = answer(PNG * 100_000)
    async with allowing(anyone) as images:
        assert "more than 64 bytes" in await refusal(images, anyone.url)


# The URL itself.


@pytest.mark.parametrize(
    "url",
    [
        "",
        "image.png",
        "//127.0.0.1/image.png",
        "ftp://a.example/image.png",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "http://",
        "http:///image.png",
        "http://user:password@a.example/",
        "http://user@a.example/",
        "http://@a.example/",
        "http://a.example\\@b.example/",
        "http://a.example:0/",
        "http://a.example:65536/",
        "http://a.example:x/",
        "http://.a.example/",
        "http://a..example/",
        f"http://{'a' * 64}.example/",
        "http://[::1/",
        "http://[1.2.3.4]/",
        "http://[fe80::1%25eth0]/",
        "http://a.example/ b",
        "http://a.example/\r\nX: y",
        "http://a.example/\n",
        " http://a.example/",
        "http://a.example/\x00",
        "http://bücher.example/",
        "http://a.example/ü",
        "http\u017f://a.example/",
        "http://\u212a.example/",
    ],
)
async def test_a_url_of_another_kind_is_refused_with_those_that_are_taken(url: str) -> None:
    """Before any name is looked up."""
    internet = FakeInternet({})
    async with ImageFetcher(internet=internet, allowed_hosts=frozenset({"127.0.0.1"})) as images:
        words = await refusal(images, url)
    assert "https://, http:// or data:, no user, and at most 2048 characters" in words
    assert not internet.lookups


async def test_a_url_has_an_end(anyone: Host) -> None:
    """At 2,048 characters."""
    longest = anyone.url.ljust(2048, "x")
    async with allowing(anyone) as images:
        assert "2048" in await refusal(images, longest + "x")
        assert not anyone.visits
        assert (await images.fetch(longest)).data == PNG


@pytest.mark.parametrize("mime_type", KINDS)
@pytest.mark.parametrize("head", ["data:{};base64,", "DATA:{};BASE64,", "data:image/x-anything;base64,"])
async def test_a_data_url_is_decoded_in_place(mime_type: str, head: str) -> None:
    """However large it is within the limit, and with the type that its bytes have."""
    image = KINDS[mime_type] + bytes(10_000)
    async with ImageFetcher(max_bytes=len(image)) as images:
        url = head.format(mime_type) + base64.b64encode(image).decode()
        assert await images.fetch(url) == FetchedImage(image, mime_type)


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:,",
        "data:image/png",
        "data:image/png,abc",
        "data:image/png;charset=utf-8,abc",
        "data:text/html;base64,iVBORw0KGgo=",
        "data:text/html;x=image/png;base64,iVBORw0KGgo=",
        "data:;base64,iVBORw0KGgo=",
        "data:image/png;base64,iVBORw0KGgo",
        "data:image/png;base64,iVBORw0KGgo==",
        "data:image/png;base64,iVBORw0KGgoA====",
        "data:image/png;base64,iVBORw0KGgoA=",
        "data:image/png;base64,iVBO Rw0KGgo",
        "data:image/png;base64,iVBORw0KGgo=\n",
        "data:image/png;base64,iVBORw0K-_o=",
        "data:image/png;base64,iVBORw0KGgo%3D",
        "data:image/png;base64,iVBO=w0KGgo=",
        "data:image/png;base64,iVBORw0KGgé=",
        "data:image/png;base64,iVBORw0KGgo=iVBORw0KGgo=",
    ],
)
async def test_a_data_url_is_strict(url: str) -> None:
    """Base64 of an image or nothing: what one reader skips, another would read."""
    async with ImageFetcher() as images:
        assert "data:image/png;base64," in await refusal(images, url)


async def test_a_data_url_is_held_to_the_limits_of_all_images() -> None:
    """One byte too large, with and without padding, and none of the kinds."""
    async with ImageFetcher(max_bytes=SMALL_BYTES) as images:
        for image in (PNG + b"1", PNG + b"12", PNG + b"123"):
            url = "data:image/png;base64," + base64.b64encode(image).decode()
            assert "more than 64 bytes" in await refusal(images, url)
        assert (await images.fetch("data:image/png;base64," + base64.b64encode(PNG).decode())).data == PNG
        assert "none of PNG" in await refusal(images, "data:image/png;base64,PHN2Zy8+")
        assert "none of PNG" in await refusal(images, "data:image/png;base64,")


# Where it may connect.
