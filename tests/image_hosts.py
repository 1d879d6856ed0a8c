"""Web servers with images, good and bad, and an internet that leads to them."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpcore
import pytest

from haystream_service.images import ImageFetcher, ImageRefused, Internet

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Iterable


SECONDS = 10  # what anything on the loopback takes, and much more
SHORT_SECONDS = 0.2  # the limit where it is what ends the fetch
SMALL_BYTES = 64

PNG = b"\x89PNG\r\n\x1a\n" + bytes(SMALL_BYTES - 8)
JPEG = b"\xff\xd8\xff\xe0" + bytes(8)
GIF = b"GIF89a" + bytes(8)
WEBP = b"RIFF\x0a\x00\x00\x00WEBPVP8 "
KINDS = {"image/png": PNG, "image/jpeg": JPEG, "image/gif": GIF, "image/webp": WEBP}

NAME = "pictures.example"
PUBLIC = "93.184.215.14"
PRIVATE = "10.0.0.7"


def answer(body: bytes = PNG, *headers: str, status: str = "200 OK", content_type: str | None = "image/png") -> bytes:
    """Return an HTTP answer that lasts until its connection is closed, unless the headers say otherwise."""
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Type: {content_type}"] if content_type else [])]
    return "\r\n".join([*lines, "", ""]).encode() + body


def sized(body: bytes = PNG) -> bytes:
    """Return an answer that says how long it is."""
    return answer(body, f"Content-Length: {len(body)}")


@dataclass
class Host:
    """A web server that gives every visitor the same answer, and stays until the visitor closes.

    Not `proceed`: it waits before it answers. Not `ends`: it leaves the answer open.
    """

    answer: bytes = field(default_factory=sized)
    ends: bool = True
    port: int = 0
    proceed: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    heads: list[str] = field(default_factory=list[str])
    visits: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    @property
    def authority(self) -> str:
        """What stands for this server in a URL."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where the image is."""
        return f"http://{self.authority}/image.png"

    @property
    def present(self) -> int:
        """How many connections are open."""
        return sum(not visit.done() for visit in self.visits)

    def visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        self.visits.append(asyncio.create_task(self._visit(reader, writer)))

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = asyncio.Event()
        answering = asyncio.create_task(self._answer(asked, writer))
        with suppress(ConnectionError):  # a visitor who closes with answers unread
            received = b""
            while chunk := await reader.read(65536):
                received += chunk
                if received.endswith(b"\r\n\r\n"):
                    self.heads.append(received.decode())
                    self.arrived.release()
                    asked.set()
        answering.cancel()
        await asyncio.wait([answering])
        writer.close()

    async def _answer(self, asked: asyncio.Event, writer: asyncio.StreamWriter) -> None:
        await asked.wait()
        await self.proceed.wait()
        writer.write(self.answer)
        if self.ends and writer.can_write_eof():
            writer.write_eof()


@asynccontextmanager
async def hosting(
    reply: bytes | None = None, *, ends: bool = True, holds: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Host]:
    """Run a server; at the end every connection to it has been closed by whoever opened it."""
    host = Host(sized() if reply is None else reply, ends)
    server = await asyncio.start_server(host.visit, "127.0.0.1", 0, ssl=tls)
    if not holds:
        host.proceed.set()
    async with server:
        host.port = server.sockets[0].getsockname()[1]
        yield host
        host.proceed.set()
        if host.visits:
            _, open_still = await asyncio.wait(host.visits, timeout=SECONDS)
            assert not open_still


@dataclass
class FakeInternet(Internet):
    """Names with the addresses of the test, and public addresses that lead to a server of the test or nowhere."""

    names: dict[str, Iterable[list[str]]]
    leads_to: Host | None = None
    dead: frozenset[str] = frozenset()
    lookups: list[str] = field(default_factory=list[str])
    dialled: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._answers = {name: iter(answers) for name, answers in self.names.items()}

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the next answer for a name."""
        self.lookups.append(host)
        if host not in self._answers:
            raise socket.gaierror(socket.EAI_NONAME, f"{host}: not known to 10.1.2.3")
        return next(self._answers[host])

    async def connect(self, address: str, port: int) -> httpcore.AsyncNetworkStream:
        """Connect to the server of the test instead."""
        self.dialled.append(address)
        if self.leads_to is None or address in self.dead:
            raise httpcore.ConnectError(f"{address} refuses")
        return await super().connect("127.0.0.1", self.leads_to.port)


def allowing(host: Host, *, max_bytes: int = SMALL_BYTES, seconds: float = SECONDS, at_once: int = 8) -> ImageFetcher:
    """Return a fetcher that may go to a server of the test."""
    allowed = frozenset({host.authority})
    return ImageFetcher(max_bytes=max_bytes, seconds=seconds, at_once=at_once, allowed_hosts=allowed)


async def refusal(images: ImageFetcher, url: str) -> str:
    """Fetch what must be refused; return the words."""
    with pytest.raises(ImageRefused) as refused:
        async with asyncio.timeout(SECONDS):
            await images.fetch(url)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None or refused.value.__suppress_context__
    words = str(refused.value)
    for secret in ("127.0.0.1", PRIVATE, "Errno", "httpcore", "\n", "/root", "SSL"):
        assert secret not in words
    return words


async def turns() -> None:
    """Let what is ready on the loop happen."""
    for _ in range(20):
        await asyncio.sleep(0)
