"""JSON Web Tokens: whose they are, if the issuer has signed them for this service and they are of now (RFC 7519)."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import jwt

from haystream_service.identity.refusals import token_expired, token_invalid
from haystream_service.settings import JWT_ALGORITHMS, Settings, listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from haystream_service.identity.key_set import KeySet
    from haystream_service.identity.keys import Key

LEEWAY_SECONDS = 30
MAX_TOKEN_BYTES = 8192
MAX_HEAD_BYTES = 1024  # it is decoded before anything is known of who sent it
MAX_VERIFIED = 4096
MAX_CLAIM_LENGTH = 200

# Beside PyJWT's own: what JSON and numbers of a stranger's making lead to in this or that version of it.
_WRONG = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a token has said, and when it is over by the clock on the wall."""

    name: str
    over_seconds: float


class JsonWebTokens:
    """Checks tokens, and keeps what the newest of those that were good have said, by their hashes.

    A signature takes a hundred microseconds to check, and a caller sends the same token for minutes.
    """

    def __init__(self, settings: Settings, keys: KeySet, now_seconds: Callable[[], float] = time.time) -> None:
        self._issuer = settings.jwt_issuer
        self._audience = settings.jwt_audience
        self._claim = settings.jwt_principal_claim
        self._algorithms = frozenset(listed(settings.jwt_algorithms)) & frozenset(JWT_ALGORITHMS)
        self.keys = keys
        self._now_seconds = now_seconds
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._verified_with: tuple[Key, ...] = ()

    async def name_of(self, token: str) -> str:
        """Return who calls: `jwt:` and the claim. Raises NotAuthenticated and IdentityUnavailable."""
        index = _index_of(token)
        verified = self._known(index)
        if verified is None:
            key, algorithm = await self._key_of(token)
            verified = self._checked(token, key, algorithm)
            self._keep(index, verified)
        return verified.name

    def remembered_name_of(self, token: str) -> str | None:
        """Return who calls where the token was good before. Raises NotAuthenticated."""
        verified = self._known(_index_of(token))
        return None if verified is None else verified.name

    def _known(self, index: bytes) -> _Verified | None:
        self._forget_other_keys()
        verified = self._verified.get(index)
        if verified is None:
            return None
        if verified.over_seconds <= self._now_seconds():
            del self._verified[index]
            raise token_expired()
        self._verified.move_to_end(index)
        return verified

    def _forget_other_keys(self) -> None:
        if self._verified_with is not self.keys.keys:
            self._verified_with = self.keys.keys
            self._verified.clear()

    def _keep(self, index: bytes, verified: _Verified) -> None:
        self._forget_other_keys()  # they may have come for this very token
        self._verified[index] = verified
        if len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)

    async def _key_of(self, token: str) -> tuple[Key, str]:
        """Return the key that the token's head asks for, of the issuer's: nothing else there is ever used."""
        coded = token.partition(".")[0]
        if len(coded) > MAX_HEAD_BYTES:
            raise token_invalid()
        try:
            # Of the head alone, since PyJWT would decode the rest as well, which takes as long as the rest is.
            head = jwt.get_unverified_header(f"{coded}..")
        except _WRONG:
            raise token_invalid() from None
        algorithm, kid = head.get("alg"), head.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise token_invalid()
        if "crit" in head or "b64" in head:  # what has to be understood, and is not (RFC 7515, section 4.1.11)
            raise token_invalid()
        key = await self.keys.find(kid, algorithm)
        if key is None:
            raise token_invalid()
        return key, algorithm

    def _checked(self, token: str, key: Key, algorithm: str) -> _Verified:
        try:
            claims = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"], "verify_sub": False},
            )
        except jwt.ExpiredSignatureError:
            raise token_expired() from None
        except _WRONG:
            raise token_invalid() from None
        return self._said(claims)

    def _said(self, claims: dict[str, Any]) -> _Verified:
        name, expires = claims.get(self._claim), claims["exp"]
        if not isinstance(name, str) or not 0 < len(name) <= MAX_CLAIM_LENGTH or not name.isprintable():
            raise token_invalid()
        if not isinstance(expires, int | float):
            raise token_invalid()
        return _Verified(f"jwt:{name}", expires + LEEWAY_SECONDS)


def _index_of(token: str) -> bytes:
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise token_invalid()
    return sha256(token.encode()).digest()
