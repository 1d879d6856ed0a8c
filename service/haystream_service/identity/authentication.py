"""Who calls: asked once for every call, of a token or of the certificate that the caller's end of TLS has shown."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from haystream_service.errors import IdentityFileError
from haystream_service.identity.callers import Callers
from haystream_service.identity.certificate import PeerCertificate, name_in
from haystream_service.identity.json_web_tokens import MAX_TOKEN_BYTES, JsonWebTokens
from haystream_service.identity.key_set import KeySet
from haystream_service.identity.key_sources import KeyAddress, KeyFile
from haystream_service.identity.principal import ANYONE, Principal, Rights
from haystream_service.identity.refusals import credentials_missing, token_invalid
from haystream_service.identity.tokens_file import TokensFile
from haystream_service.identity.watched_file import WatchedFile, watched

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from structlog.typing import FilteringBoundLogger

    from haystream_service.settings import Settings

# RFC 6750 and RFC 9110: the scheme in any case, spaces, and a token of these characters alone.
_BEARER = re.compile(rf"(?i:bearer) {{1,8}}([A-Za-z0-9._~+/=-]{{1,{MAX_TOKEN_BYTES}}})")
_DOTS_IN_JWT = 2
JWKS = "HAYSTREAM_JWT_JWKS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticator:
    """Tells who calls. A part that is None is not configured; with none at all, everybody is anyone."""

    rights: Callers
    tokens: TokensFile | None = None
    json_web_tokens: JsonWebTokens | None = None
    takes_certificates: bool = False
    files: tuple[WatchedFile, ...] = ()

    def principal_at_once(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Principal | None:
        """Return who calls, or None where it takes waiting to tell: see there. Raises NotAuthenticated."""
        if not self._asks:  # all of them are one, and share what one may
            return self.rights.named(ANYONE.name)
        for file in self.files:
            if file.has_to_be_waited_for():
                return None
        token = _token_in(authorization)
        if self.json_web_tokens is None or not _is_json_web_token(token):
            return self._told(token, certificate)
        name = self.json_web_tokens.remembered_name_of(token)
        return None if name is None else self._callers.named(name)

    async def principal_of(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Principal:
        """Return who calls, by the values of `authorization` and what TLS has told; a token comes before a certificate.

        Waits where a file is looked at, and for an issuer's keys. Raises NotAuthenticated and IdentityUnavailable.
        """
        if not self._asks:
            return self.rights.named(ANYONE.name)
        for file in self.files:
            await file.glance()
        token = _token_in(authorization)
        if self.json_web_tokens is None or not _is_json_web_token(token):
            return self._told(token, certificate)
        return self._callers.named(await self.json_web_tokens.name_of(token))

    async def look_again(self) -> None:
        """Read the files and have the keys brought at once: who asks for it need not trust the watching."""
        if self.tokens is not None:
            await self.tokens.look_again()
        if self.json_web_tokens is not None:
            await self.json_web_tokens.keys.look_again()

    def _told(self, token: str, certificate: PeerCertificate | None) -> Principal:
        if token:
            if (principal := self._callers.with_token(token)) is None:
                raise token_invalid()
            return principal
        if certificate is not None and self.takes_certificates:
            return self._callers.named(name_in(certificate))
        raise credentials_missing(self._wanted)

    @property
    def _callers(self) -> Callers:
        return self.rights if self.tokens is None else self.tokens.callers

    @property
    def _takes_tokens(self) -> bool:
        return self.tokens is not None or self.json_web_tokens is not None

    @property
    def _asks(self) -> bool:
        return self._takes_tokens or self.takes_certificates

    @property
    def _wanted(self) -> str:
        ways = {
            "send a token in `authorization`, as `Bearer` and the token": self._takes_tokens,
            "show a client certificate": self.takes_certificates,
        }
        return ", or ".join(way for way, is_taken in ways.items() if is_taken)


@asynccontextmanager
async def authenticating(settings: Settings, log: FilteringBoundLogger) -> AsyncGenerator[Authenticator]:
    """Tell who calls while the block lasts. Raises IdentityFileError where a file is wrong now."""
    unless_said = Rights(max_runs=settings.principal_max_runs, runs_per_minute=settings.principal_runs_per_minute)
    async with AsyncExitStack() as opened:
        tokens = keys = None
        files: list[WatchedFile] = []
        if settings.tokens_file is not None:
            tokens = TokensFile(settings.tokens_file, unless_said, log)
            files.append(await opened.enter_async_context(watched(settings.tokens_file, tokens.look_again, log)))
            await tokens.read()
        if settings.jwt_jwks:
            keys = await _open_keys(settings.jwt_jwks, files, opened, log)
        yield Authenticator(
            rights=Callers({}, {}, unless_said),
            tokens=tokens,
            json_web_tokens=None if keys is None else JsonWebTokens(settings, keys),
            takes_certificates=settings.tls_client_ca is not None,
            files=tuple(files),
        )


async def _open_keys(place: str, files: list[WatchedFile], opened: AsyncExitStack, log: FilteringBoundLogger) -> KeySet:
    """Return the keys of a place. Those of a file are there at once, those of an address when they have come.

    A file is added to those that are watched.
    """
    if "://" in place:
        return await opened.enter_async_context(KeySet(KeyAddress(place).bring, log))
    file = Path(place)
    keys = await opened.enter_async_context(KeySet(KeyFile(file).bring, log))
    files.append(await opened.enter_async_context(watched(file, keys.look_again, log)))
    await keys.look_again()
    if not keys.keys:
        raise IdentityFileError(f"{JWKS}: {place}: {keys.complaint}; give the issuer's JWKS, or its https address")
    return keys


def _token_in(authorization: Sequence[str]) -> str:
    """Return the token, which is never empty where there is an `authorization`."""
    if not authorization:
        return ""
    bearer = _BEARER.fullmatch(authorization[0]) if len(authorization) == 1 else None
    if bearer is None:
        raise token_invalid()
    return bearer[1]


def _is_json_web_token(token: str) -> bool:
    return token.count(".") == _DOTS_IN_JWT
