"""What a service is made safe with, in a folder: tokens, an issuer's keys, certificates, and who takes spans."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import ssl
import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from haystream_service.identity.callers import TOKEN_PREFIX
from tools.certs import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

NAME = "caller"
ISSUER, AUDIENCE, KEY_ID = "https://issuer.benchmark", "haystream", "one"
LIFETIME_SECONDS = 24 * 3600
TOKENS = """\
principals:
  {name}:
    tokens: ["sha256:{digest}"]
"""
ACCEPTED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class TokensFile:
    """A token, and the file that knows its hash."""

    def __init__(self, folder: Path) -> None:
        self.token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        path = folder / "tokens.yaml"
        digest = hashlib.sha256(self.token.encode()).hexdigest()
        path.write_text(TOKENS.format(name=NAME, digest=digest), encoding="utf-8")
        self.settings = {"HAYSTREAM_TOKENS_FILE": str(path)}


class Issuer:
    """Signs JSON Web Tokens as most issuers do (RS256), and shows its key in a file."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        self._numbers = count()
        path = folder / "jwks.json"
        shown = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True) | {"kid": KEY_ID}
        path.write_text(json.dumps({"keys": [shown]}), encoding="utf-8")
        self.settings = {
            "HAYSTREAM_JWT_ISSUER": ISSUER,
            "HAYSTREAM_JWT_AUDIENCE": AUDIENCE,
            "HAYSTREAM_JWT_JWKS": str(path),
        }
        self.token = self.new_token()

    def same_token(self) -> str:
        """Return the token of a caller who comes again."""
        return self.token

    def new_token(self) -> str:
        """Return a token that nobody has sent yet."""
        expires = int(time.time()) + LIFETIME_SECONDS
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": NAME, "exp": expires, "jti": str(next(self._numbers))}
        return jwt.encode(claims, self._key, "RS256", {"kid": KEY_ID})


class Certificates:
    """An authority's own certificate, and a service's of it."""

    def __init__(self, folder: Path) -> None:
        authority = Authority()
        self.authority = authority.certificate
        self.authority_file = folder / "ca.pem"
        self.authority_file.write_bytes(self.authority)
        certificate, key = authority.service().write(folder, "service")
        self.settings = {"HAYSTREAM_TLS_CERT": str(certificate), "HAYSTREAM_TLS_KEY": str(key)}

    def trusting(self) -> ssl.SSLContext:
        """Return what a caller encrypts with."""
        context = ssl.create_default_context(cadata=self.authority.decode())
        context.set_alpn_protocols(["h2"])
        return context


@asynccontextmanager
async def taking_spans() -> AsyncGenerator[dict[str, str]]:
    """Take spans and keep none; yields the settings that send them here."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split()[1]))
            writer.write(ACCEPTED)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, StopIteration):
            pass  # whoever sends goes away with its process
        finally:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
