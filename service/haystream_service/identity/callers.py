"""Those who are known: whose a token is, and what each caller may."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING

from haystream_service.identity.principal import Principal, Rights

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_PREFIX = "hs_"  # noqa: S105 - what scanners for secrets know a token by, and no token


@dataclass(frozen=True, slots=True)
class _Holder:
    """Who has a token, and the token's hash."""

    token_sha256: bytes
    principal: Principal | None


class Callers:
    """Names by the SHA-256 of their tokens, rights by name, and the rights of all others."""

    def __init__(self, names: Mapping[bytes, str], rights: Mapping[str, Rights], others: Rights) -> None:
        self._rights = dict(rights)
        self._others = others
        self._key = secrets.token_bytes(32)
        self._nobody = _Holder(bytes(32), None)
        self._holders = {self._index(digest): _Holder(digest, self.named(name)) for digest, name in names.items()}

    def named(self, name: str) -> Principal:
        """Return the caller who is known by a name."""
        return Principal(name, self._rights.get(name, self._others))

    def with_token(self, token: str) -> Principal | None:
        """Return the caller whose token it is."""
        digest = sha256(token.encode()).digest()
        # How long the dictionary takes depends on how much of its keys agrees with what is sought. The attacker can
        # compute SHA-256 of what he sends, and so could feel his way along the hash of a token; under a key that he
        # does not know the same says nothing about it. What is left, the comparison, takes equally long for all.
        holder = self._holders.get(self._index(digest), self._nobody)
        return holder.principal if hmac.compare_digest(holder.token_sha256, digest) else None

    def _index(self, digest: bytes) -> bytes:
        return blake2b(digest, key=self._key, digest_size=16).digest()
