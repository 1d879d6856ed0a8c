"""An issuer of JSON Web Tokens, and a log that is listened to."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from haystream_service.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import EventDict, FilteringBoundLogger

ISSUER = "https://issuer.example"
AUDIENCE = "haystream"
HOUR_SECONDS = 3600
SECONDS = 10  # what anything on this machine takes, and much more

Kind = Literal["RS256", "ES256", "ES384", "EdDSA"]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, and what its public one is called."""

    kid: str | None
    algorithm: str
    private: PrivateKey

    def jwk(self, **members: Any) -> dict[str, Any]:
        """Return the public key as a member of a JWKS."""
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            jwk = ECAlgorithm.to_jwk(public, as_dict=True)
        else:
            jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
        return {**jwk, **({} if self.kid is None else {"kid": self.kid}), **members}

    def token(self, head: dict[str, Any] | None = None, algorithm: str | None = None, **claims: Any) -> str:
        """Return a token of Alice's that is good for an hour, with other claims; those that are None are left out."""
        kid = {} if self.kid is None else {"kid": self.kid}
        headers = {name: value for name, value in {**kid, **(head or {})}.items() if value is not None}
        return jwt.encode(claims_of(**claims), self.private, algorithm or self.algorithm, headers)


def claims_of(**claims: Any) -> dict[str, Any]:
    """Return claims that are good, changed by what is given; those that are None are left out."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + HOUR_SECONDS}
    return {name: value for name, value in {**good, **claims}.items() if value is not None}


@cache
def _private(kind: Kind, name: str) -> PrivateKey:
    if kind == "RS256":
        return rsa.generate_private_key(65537, 2048)
    if kind == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1() if kind == "ES256" else ec.SECP384R1())


def signer(kind: Kind = "ES256", kid: str | None = "one") -> Signer:
    """Return a signer; that of the same kind and name is the same."""
    return Signer(kid, kind, _private(kind, str(kid)))


def jwks(*signers: Signer | dict[str, Any]) -> bytes:
    """Return the set of their public keys."""
    return json.dumps({"keys": [one.jwk() if isinstance(one, Signer) else one for one in signers]}).encode()


def by_hand(head: object, claims: object, signature: bytes = b"signature") -> str:
    """Return a token that no library would make."""
    parts = [json.dumps(head).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def settings_with(**settings: Any) -> Settings:
    """Return settings in which the issuer is known, unless they say else."""
    known: dict[str, Any] = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": "unused.json"}
    return Settings(**{**known, **settings})


def issuer_in(folder: Path) -> dict[str, Any]:
    """Return settings that make a service believe the issuer, whose keys are put into a folder."""
    path = folder / "jwks.json"
    path.write_bytes(jwks(signer()))
    return {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": str(path)}


@dataclass
class Heard:
    """A log, and its lines in the order in which they came."""

    lines: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue[dict[str, Any]])

    @property
    def log(self) -> FilteringBoundLogger:
        """What is to be written to."""
        wrapper = structlog.make_filtering_bound_logger("info")
        logger = structlog.wrap_logger(structlog.ReturnLogger(), processors=[self._hear], wrapper_class=wrapper)
        return cast("FilteringBoundLogger", logger)

    async def next(self) -> dict[str, Any]:
        """Return the next line, as soon as there is one."""
        return await asyncio.wait_for(self.lines.get(), SECONDS)

    def _hear(self, _logger: object, method: str, event: EventDict) -> str:
        self.lines.put_nowait({**event, "level": method})
        return ""
