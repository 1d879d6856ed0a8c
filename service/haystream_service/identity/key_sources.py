"""Where an issuer's keys come from: a file, or an https address. No other is ever read or dialled."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httpcore
from anyio import to_thread

from haystream_service.files import read_at_most
from haystream_service.identity.keys import KeysNotHad

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

MAX_BYTES = 1 << 20
SECONDS = 10.0
_HEADERS = [("user-agent", "haystream"), ("accept", "application/json, application/jwk-set+json")]


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A JWKS in a file."""

    file: Path

    async def bring(self) -> bytes:
        """Return what the file holds. Raises KeysNotHad."""
        try:
            return await to_thread.run_sync(read_at_most, self.file, MAX_BYTES)
        except OSError as error:
            raise KeysNotHad(f"it cannot be read ({error.strerror})") from None


@dataclass(frozen=True, slots=True)
class KeyAddress:
    """A JWKS behind an address. A redirect is an answer like any other that is not wanted."""

    url: str
    seconds: float = SECONDS

    async def bring(self) -> bytes:
        """Return what the address answers. Raises KeysNotHad."""
        try:
            async with asyncio.timeout(self.seconds):
                return await self._get(httpcore.URL(self.url))
        except TimeoutError:
            why = f"nothing came within {self.seconds:g} seconds"
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError, ValueError):
            why = "no connection to its host, no valid certificate, or no HTTP/1.1"
        raise KeysNotHad(why) from None

    async def _get(self, url: httpcore.URL) -> bytes:
        tls = await to_thread.run_sync(_tls) if url.scheme == b"https" else None
        opened = AsyncExitStack()
        # No pool, and closed from outside: see how images are fetched.
        async with (
            opened,
            httpcore.AsyncHTTPConnection(url.origin, tls, network_backend=_Network(opened)) as connection,
            connection.stream("GET", url, headers=_HEADERS) as response,
        ):
            if response.status != 200:  # noqa: PLR2004 - OK
                raise KeysNotHad(f"its address answers with status {response.status}")
            body = bytearray()
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise KeysNotHad(f"it has more than {MAX_BYTES} bytes")
            return bytes(body)


@dataclass(frozen=True, slots=True)
class _Network(httpcore.AsyncNetworkBackend):
    """The usual one, whose connections are closed whatever happens: httpcore leaves one open within a handshake."""

    opened: AsyncExitStack

    async def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        backend = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())  # pyright sees its stand-in
        stream = await backend.connect_tcp(*arguments, **options)
        self.opened.push_async_callback(stream.aclose)
        return stream


def _tls() -> ssl.SSLContext:
    """Read the certificates that are trusted, which takes a tenth of a second; anew, since they may have changed."""
    return httpcore.default_ssl_context()
