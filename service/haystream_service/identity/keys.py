"""Public keys out of a JWKS, the set in which an issuer shows them (RFC 7517)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

if TYPE_CHECKING:
    from jwt.algorithms import AllowedPublicKeys

RSA_BITS = range(2048, 8192 + 1)

# The members that make up a public key: the rest of a key, private parts above all, is not even read.
# Keys of the type `oct` would be secrets that whoever checks a token could also sign one with.
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_ALGORITHMS = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}


class KeysNotHad(Exception):
    """The keys could not be had, or are none. The text is meant for the operator."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the algorithms that it may check signatures of."""

    kid: str | None
    algorithms: frozenset[str]
    public: AllowedPublicKeys


def keys_of(content: bytes) -> tuple[Key, ...]:
    """Return the keys of a set that can be used. Raises KeysNotHad where there are none."""
    try:
        jwks: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise KeysNotHad("it is not JSON") from None
    listed: Any = cast("dict[str, Any]", jwks).get("keys") if isinstance(jwks, dict) else None
    if not isinstance(listed, list):
        raise KeysNotHad("it is no JWKS, which has a list `keys`")
    keys = [_key(cast("dict[str, Any]", jwk)) for jwk in cast("list[object]", listed) if isinstance(jwk, dict)]
    usable = tuple(key for key in keys if key is not None)
    if not usable:
        raise KeysNotHad("it has no key that signatures can be checked with")
    return usable


def _key(jwk: dict[str, Any]) -> Key | None:
    kid, algorithms = jwk.get("kid"), _algorithms(jwk)
    if not algorithms or not isinstance(kid, str | None):
        return None
    kind: str = jwk["kty"]
    try:
        members = {name: jwk[name] for name in _MEMBERS[kind]}
        public = PyJWK.from_dict({"kty": kind, **members}, algorithms[0]).key
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size not in RSA_BITS:
        return None
    return Key(kid, frozenset(algorithms), public)


def _algorithms(jwk: dict[str, Any]) -> list[str]:
    """Return what a key may be used with, by its type, its own `alg` and what it says that it is for."""
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return []
    fitting = _ALGORITHMS.get((str(jwk.get("kty")), str(jwk.get("crv", ""))), ())
    return [name for name in fitting if jwk.get("alg", name) == name]
