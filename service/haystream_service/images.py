"""Brings the images behind the URLs of a conversation, from the public internet only. Knows no run and no contract.

A caller's URL is a wish to connect from inside this network: only an address that was checked is ever dialled.
"""

from __future__ import annotations

import asyncio
import re
import socket
from binascii import a2b_base64
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any, Self, cast

import httpcore

MAX_URL_LENGTH = 2048
OR_BYTES = "or send the image's bytes"
_HEADERS = [("user-agent", "haystream"), ("accept", "image/*"), ("accept-encoding", "identity")]
_HOST = r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?|\[[0-9a-f.]*:[0-9a-f:.]*\]"
_URL = re.compile(rf"(?ai)(https?)://({_HOST})(?::([0-9]{{1,5}}))?([/?][\x21\x22\x24-\x7e]*)?(?:#[\x21-\x7e]*)?")
_DATA_HEAD = re.compile(r"(?ai)data:image/[a-z0-9.+-]+;base64")
_KIND = re.compile(rb"(?s)(?P<png>\x89PNG\r\n\x1a\n)|(?P<jpeg>\xff\xd8\xff)|(?P<gif>GIF8[79]a)|(?P<webp>RIFF.{4}WEBP)")
# `is_global` does not suffice: Python 3.11 has it true for what the internet does not route, and for IPv4 addresses in
# IPv6's clothes (https://www.iana.org/assignments/ipv6-address-space). 168.63.129.16 is the host of a machine at Azure.
_NAT64 = ip_network("64:ff9b::/96")
_ROUTED = ip_network("0.0.0.0/0"), ip_network("2000::/3")
_INSIDE = [ip_network(net) for net in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16", "2002::/16", "3fff::/20")]


class ImageRefused(Exception):
    """The image is not brought. The text is meant for the caller and names the cure."""


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """An image, and what its own first bytes say that it is."""

    data: bytes
    mime_type: str


class Internet:
    """Names and connections as this machine has them, unchecked."""

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return a host's addresses in the order in which to try them. Raises OSError where there are none."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    async def connect(self, address: str, port: int) -> httpcore.AsyncNetworkStream:
        """Connect to an address. Raises httpcore.ConnectError."""
        backend = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())  # pyright sees its stand-in
        return await backend.connect_tcp(address, port)


@dataclass(kw_only=True, eq=False)
class ImageFetcher:
    """Brings images from http, https and data: URLs, each in at most `seconds` with all its waiting.

    `allowed_hosts` may have private addresses: "host" or "host:port" as a URL has them, an IPv6 address in brackets.
    Leaving waits for what is on its way.
    """

    max_bytes: int = 8 * 1024 * 1024
    seconds: float = 10.0
    at_once: int = 8
    allowed_hosts: frozenset[str] = frozenset()
    internet: Internet = field(default_factory=Internet)

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.at_once)
        self._tls = cache(httpcore.default_ssl_context)  # reads certificates for a tenth of a second, on the loop

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for _place in range(self.at_once):
            await self._places.acquire()

    async def fetch(self, url: str) -> FetchedImage:
        """Return the image behind a URL. Raises ImageRefused, whatever is wrong."""
        if url[:5].lower() == "data:":
            return _image(self._decoded(url))
        target = _target(url)
        try:
            async with asyncio.timeout(self.seconds), self._places:
                return await self._get(target)
        except TimeoutError:
            why = f"the image did not come within {self.seconds:g} seconds; give a faster host, {OR_BYTES}"
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError):
            why = f"no connection to the image's host, no valid certificate, or no HTTP/1.1; check the URL, {OR_BYTES}"
        raise ImageRefused(why) from None

    def _decoded(self, url: str) -> bytes:
        head, _, payload = url.partition(",")
        self._check_size(len(payload) // 4 * 3 - payload[-2:].count("="))
        with suppress(ValueError):
            if _DATA_HEAD.fullmatch(head) and len(payload) % 4 == 0 and not payload.endswith("==="):
                return a2b_base64(payload, strict_mode=True)
        raise ImageRefused("a data: URL of an image is data:image/png;base64, or another type, and valid base64")

    async def _get(self, url: httpcore.URL) -> FetchedImage:
        headers = [("host", _authority(url.host.decode(), url.port)), *_HEADERS]
        tls = self._tls() if url.scheme == b"https" else None
        opened = AsyncExitStack()
        network = _PublicNetwork(self.internet, frozenset(map(str.lower, self.allowed_hosts)), opened)
        # No pool: httpcore's keeps for ever a connection whose request is cancelled in the turn after it was made.
        async with (
            opened,
            httpcore.AsyncHTTPConnection(url.origin, tls, network_backend=network) as connection,
            connection.stream("GET", url, headers=headers) as response,
        ):
            self._check_head(response)
            body = bytearray()
            async for chunk in response.aiter_stream():
                body += chunk
                self._check_size(len(body))
            return _image(bytes(body))

    def _check_head(self, response: httpcore.Response) -> None:
        if response.status != 200:  # noqa: PLR2004 - OK
            cure = "the address it leads to" if response.status in range(300, 400) else "one that answers 200"
            raise ImageRefused(f"the image's URL answers with status {response.status}; give {cure}, {OR_BYTES}")
        headers = {name.lower(): value.strip().lower() for name, value in response.headers}
        if not headers.get(b"content-type", b"").startswith(b"image/"):
            raise ImageRefused("the URL leads to something that is not called an image; give the address of the image")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise ImageRefused(f"the image's host compresses it, unasked; give another URL, {OR_BYTES}")
        self._check_size(int(headers.get(b"content-length", b"0")))  # h11 has seen to it that these are digits

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.max_bytes:
            raise ImageRefused(f"the image has more than {self.max_bytes} bytes; give a smaller one")


@dataclass(frozen=True, slots=True)
class _PublicNetwork(httpcore.AsyncNetworkBackend):
    """The way out for one image: connects to addresses that may be reached, and to no name."""

    internet: Internet
    allowed_hosts: frozenset[str]
    opened: AsyncExitStack  # httpcore itself leaves open what is cancelled within the TLS handshake

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers. Raises ImageRefused where none may be tried."""
        try:
            addresses = await self.internet.addresses(host, port)
        except (OSError, UnicodeError):
            raise ImageRefused(f"the image's host has no address; check the URL, {OR_BYTES}") from None
        if self.allowed_hosts.isdisjoint((_authority(host), _authority(host, port))):
            addresses = [address for address in addresses if _is_public(address)]
        if not addresses:
            raise ImageRefused(f"the image's host is not on the public internet; give one that is, {OR_BYTES}")
        for address in addresses:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                stream = await self.internet.connect(address, port)
                self.opened.push_async_callback(stream.aclose)
                return stream
        raise httpcore.ConnectError


def _target(url: str) -> httpcore.URL:
    parts = _URL.fullmatch(url)
    if len(url) > MAX_URL_LENGTH or parts is None or int(parts[3] or 1) not in range(1, 65536):
        rule = f"https://, http:// or data:, no user, and at most {MAX_URL_LENGTH} characters of visible ASCII"
        raise ImageRefused(f"the image's URL is not taken: give one with {rule}, {OR_BYTES}")
    host, port = parts[2].strip("[]").lower(), int(parts[3]) if parts[3] else None
    return httpcore.URL(scheme=parts[1].lower(), host=host, port=port, target="/" + (parts[4] or "").removeprefix("/"))


def _authority(host: str, port: int | None = None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _is_public(text: str) -> bool:
    """Return whether an address, or the IPv4 address that it stands for, is the internet's and not this network's."""
    address = ip_address(text)
    if address in _NAT64:
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    is_routed = any(address in network for network in _ROUTED) and not any(address in network for network in _INSIDE)
    return is_routed and address.is_global and not address.is_multicast


def _image(data: bytes) -> FetchedImage:
    if (mime_type := media_type_of(data)) is None:
        raise ImageRefused("the image is none of PNG, JPEG, GIF or WebP; convert it to one of these")
    return FetchedImage(data, mime_type)


def media_type_of(data: bytes) -> str | None:
    """Return what an image's first bytes say that it is; None for all but PNG, JPEG, GIF and WebP."""
    kind = _KIND.match(data)
    return f"image/{kind.lastgroup}" if kind is not None else None
