"""JSON Web Tokens: the issuer's are taken, and whatever else has their form is refused."""

from __future__ import annotations

import base64
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from haystream_service.errors import NotAuthenticated
from haystream_service.identity import json_web_tokens
from haystream_service.identity.json_web_tokens import LEEWAY_SECONDS, MAX_HEAD_BYTES, MAX_TOKEN_BYTES, JsonWebTokens
from haystream_service.identity.key_set import KeySet
from tests.image_hosts import answer, hosting
from tests.issuers import HOUR_SECONDS, Heard, by_hand, claims_of, jwks, settings_with, signer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.issuers import Kind, Signer

KINDS: list[Kind] = ["RS256", "ES256", "EdDSA"]


class Wall:
    """A clock on the wall that a test sets forward."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_seconds


class Shown:
    """A JWKS that a test changes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def bring(self) -> bytes:
        return self.content


@asynccontextmanager
async def checking(
    *signers: Signer | dict[str, Any], shown: Shown | None = None, wall: Wall | None = None, **settings: Any
) -> AsyncGenerator[JsonWebTokens]:
    """Check tokens with the keys of some signers."""
    async with KeySet((shown or Shown(jwks(*signers))).bring, Heard().log) as keys:
        yield JsonWebTokens(settings_with(**settings), keys, wall or Wall())


async def refusal(tokens: JsonWebTokens, token: str) -> str:
    """Return why a token is refused."""
    with pytest.raises(NotAuthenticated) as caught:
        await tokens.name_of(token)
    assert token not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_of_the_issuer_calls_as_its_subject(kind: Kind) -> None:
    """With each kind of key that is taken unless the settings say else, the first time and every time."""
    async with checking(signer(kind)) as tokens:
        token = signer(kind).token()
        for _ in range(3):
            assert await tokens.name_of(token) == "jwt:alice"


async def test_another_claim_names_the_caller_where_the_settings_say_so() -> None:
    """A subject of another type is then none of its business."""
    async with checking(signer(), jwt_principal_claim="client_id") as tokens:
        assert await tokens.name_of(signer().token(client_id="billing", sub=7)) == "jwt:billing"
        assert await refusal(tokens, signer().token()) == "TOKEN_INVALID"


async def test_a_token_for_several_audiences_is_taken_if_one_is_this_service() -> None:
    """As issuers write them."""
    async with checking(signer()) as tokens:
        assert await tokens.name_of(signer().token(aud=["other", "haystream"])) == "jwt:alice"


WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "other audience": {"aud": "other"},
    "no audience": {"aud": None},
    "audience of a number": {"aud": 1},
    "audience in capitals": {"aud": "Haystream"},
    "other issuer": {"iss": "https://issuer.example/"},
    "issuer of a list": {"iss": ["https://issuer.example"]},
    "not yet valid": {"nbf": int(time.time()) + HOUR_SECONDS},
    "valid from nowhere": {"nbf": "soon"},
    "no expiry": {"exp": None},
    "expiry of text": {"exp": "tomorrow"},
    "expiry of digits": {"exp": str(int(time.time()) + HOUR_SECONDS)},
    "expiry of infinity": {"exp": float("inf")},
    "expiry of nothing": {"exp": float("nan")},
    "no subject": {"sub": None},
    "empty subject": {"sub": ""},
    "subject of a list": {"sub": ["alice"]},
    "long subject": {"sub": "a" * 201},
    "subject of two lines": {"sub": "alice\nbob"},
    "subject written backwards": {"sub": "\u202ealice"},
    "subject of half a letter": {"sub": "\ud800"},
    "subject of a null": {"sub": "alice\0"},
}


@pytest.mark.parametrize("claims", WRONG_CLAIMS.values(), ids=WRONG_CLAIMS)
async def test_a_token_that_is_not_for_this_service_now_is_refused(claims: dict[str, Any]) -> None:
    """Though the issuer has signed it; the second time as the first."""
    token = by_signature(signer(), {"alg": "ES256", "kid": "one"}, claims_of(**claims))
    async with checking(signer()) as tokens:
        for _ in range(2):
            assert await refusal(tokens, token) == "TOKEN_INVALID"


def by_signature(by: Signer, head: object, claims: object) -> str:
    """Return a token that no library would make, signed for all that."""
    signed = by_hand(head, claims).rpartition(".")[0]
    signature = jwt.get_algorithm_by_name(by.algorithm).sign(signed.encode(), by.private)
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


async def test_a_token_is_good_until_it_expires_and_half_a_minute_longer() -> None:
    """For clocks that go wrong; after that the refusal says why."""
    now = int(time.time())
    async with checking(signer()) as tokens:
        assert await tokens.name_of(signer().token(exp=now - LEEWAY_SECONDS + 20)) == "jwt:alice"
        assert await tokens.name_of(signer().token(nbf=now + LEEWAY_SECONDS - 20)) == "jwt:alice"
        assert await refusal(tokens, signer().token(exp=now - LEEWAY_SECONDS - 1)) == "TOKEN_EXPIRED"


async def test_a_head_that_is_long_is_not_even_decoded() -> None:
    """It would cost a millisecond of everybody's time for each call of a stranger; a usual one has some 50 bytes."""
    async with checking(signer()) as tokens:
        most = signer().token({"typ": "a" * 732})
        assert len(most.partition(".")[0]) == MAX_HEAD_BYTES
        assert await tokens.name_of(most) == "jwt:alice"
        assert await refusal(tokens, signer().token({"typ": "a" * 733})) == "TOKEN_INVALID"


async def test_a_token_that_was_good_expires_all_the_same() -> None:
    """What is kept of it is kept no longer than it is good."""
    wall = Wall()
    async with checking(signer(), wall=wall) as tokens:
        token = signer().token()
        assert await tokens.name_of(token) == "jwt:alice"
        wall.ahead_seconds = HOUR_SECONDS + LEEWAY_SECONDS - 5
        assert await tokens.name_of(token) == "jwt:alice"
        wall.ahead_seconds = HOUR_SECONDS + LEEWAY_SECONDS + 1
        assert await refusal(tokens, token) == "TOKEN_EXPIRED"


async def test_an_expired_token_of_a_stranger_is_not_called_expired() -> None:
    """Whether a token has expired only its issuer's are told."""
    stranger = signer("ES256", "stranger")
    async with checking(signer()) as tokens:
        forged = jwt.encode(claims_of(exp=1), stranger.private, "ES256", {"kid": "one"})
        assert await refusal(tokens, forged) == "TOKEN_INVALID"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 0, ["ES256"], {"ES256": 1}])
async def test_a_token_without_a_signature_is_refused(algorithm: object) -> None:
    """However it writes that it has none."""
    async with checking(signer(), signer("RS256", "two")) as tokens:
        for signature in (b"", b"signature"):
            assert await refusal(tokens, by_hand({"alg": algorithm, "kid": "one"}, claims_of(), signature)) == (
                "TOKEN_INVALID"
            )


@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(form: PublicFormat) -> None:
    """Everybody has the public key: who takes HS256 with it takes everybody's tokens."""
    key = signer("RS256")
    for secret in (key.private.public_key().public_bytes(Encoding.PEM, form), json.dumps(key.jwk()).encode()):
        signed = by_hand({"alg": "HS256", "kid": "one"}, claims_of()).rpartition(".")[0]
        mac = hmac.HMAC(secret, hashes.SHA256())
        mac.update(signed.encode())
        token = f"{signed}.{base64.urlsafe_b64encode(mac.finalize()).decode().rstrip('=')}"
        async with checking(key) as tokens:
            assert await refusal(tokens, token) == "TOKEN_INVALID"


async def test_a_secret_in_the_set_checks_nothing() -> None:
    """Whoever can read the set could sign with it."""
    secret = b"s" * 32
    oct_key = {"kty": "oct", "kid": "two", "alg": "HS256", "k": base64.urlsafe_b64encode(secret).decode()}
    async with checking(signer(), oct_key) as tokens:
        assert await refusal(tokens, jwt.encode(claims_of(), secret, "HS256", {"kid": "two"})) == "TOKEN_INVALID"
        assert await tokens.name_of(signer().token()) == "jwt:alice"


async def test_an_algorithm_that_the_settings_do_not_name_is_refused() -> None:
    """Though there is a key that it would go with."""
    async with checking(signer("RS256"), jwt_algorithms="RS256") as tokens:
        assert await tokens.name_of(signer("RS256").token()) == "jwt:alice"
        assert await refusal(tokens, signer("RS256").token(algorithm="PS256")) == "TOKEN_INVALID"


async def test_the_key_of_one_name_does_not_check_a_token_of_another() -> None:
    """Neither one of the same kind nor one of another; nor is every key tried."""
    one, two, third = signer("ES256", "one"), signer("ES256", "two"), signer("RS256", "three")
    async with checking(one, two, third) as tokens:
        assert await tokens.name_of(two.token()) == "jwt:alice"
        assert await refusal(tokens, two.token({"kid": "one"})) == "TOKEN_INVALID"
        assert await refusal(tokens, two.token({"kid": "three"})) == "TOKEN_INVALID"
        assert await refusal(tokens, third.token({"kid": "one"})) == "TOKEN_INVALID"


@pytest.mark.parametrize("kid", [1, None, ["one"], {}, "ONE", "one ", "", "../../dev/null", "one' OR '1'='1", "\ud800"])
async def test_a_name_of_a_key_that_is_none_is_refused(kid: object) -> None:
    """Also where it is not even text."""
    async with checking(signer(), signer("ES256", "two")) as tokens:
        token = by_signature(signer(), {"alg": "ES256", "kid": kid}, claims_of())
        assert await refusal(tokens, token) == "TOKEN_INVALID"


async def test_a_token_that_names_no_key_is_checked_only_where_one_key_fits() -> None:
    """By its type: nothing is tried out."""
    nameless = signer("ES256", None)
    async with checking(nameless, signer("RS256", "two"), signer("ES384", "three")) as tokens:
        assert await tokens.name_of(nameless.token()) == "jwt:alice"
    async with checking(nameless, signer("ES256", "two")) as tokens:
        assert await refusal(tokens, nameless.token()) == "TOKEN_INVALID"


async def test_what_a_key_says_of_itself_binds_the_token() -> None:
    """Its algorithm, what it is for, and the curve: a key is used for nothing else."""
    key, other = signer("RS256"), signer("ES256", "two")
    everything = "RS256,PS256,ES256"
    async with checking(key.jwk(alg="PS256"), other, jwt_algorithms=everything) as tokens:
        assert await tokens.name_of(key.token(algorithm="PS256")) == "jwt:alice"
        assert await refusal(tokens, key.token()) == "TOKEN_INVALID"
    for members in ({"use": "enc"}, {"key_ops": ["sign"]}, {"key_ops": 1}, {"alg": "HS256"}, {"alg": "RSA-OAEP"}):
        async with checking(key.jwk(**members), other, jwt_algorithms=everything) as tokens:
            with pytest.raises(NotAuthenticated):
                await tokens.name_of(key.token())
    async with checking(signer("ES384"), jwt_algorithms="ES256,ES384") as tokens:
        assert await refusal(tokens, by_signature(signer("ES256"), {"alg": "ES256", "kid": "one"}, claims_of())) == (
            "TOKEN_INVALID"
        )


async def test_keys_that_a_token_brings_along_or_points_at_are_not_looked_at() -> None:
    """Nobody is dialled, and with the issuer's own key a token is good in spite of them."""
    stranger = signer("ES256", "stranger")
    async with hosting(answer(jwks(stranger), content_type="application/json")) as host:
        head = {"jwk": stranger.jwk(), "jku": host.url, "x5u": host.url, "x5c": ["AAAA"]}
        async with checking(signer()) as tokens:
            for kid in ("one", "stranger"):
                assert await refusal(tokens, stranger.token({**head, "kid": kid})) == "TOKEN_INVALID"
            assert await tokens.name_of(signer().token(head)) == "jwt:alice"
        assert not host.visits


@pytest.mark.parametrize("head", [{"crit": ["b64"], "b64": True}, {"crit": []}, {"crit": ["exp"]}, {"b64": False}])
async def test_a_token_with_something_critical_is_refused(head: dict[str, Any]) -> None:
    """What has to be understood is not."""
    token = by_signature(signer(), {"alg": "ES256", "kid": "one", **head}, claims_of())
    async with checking(signer()) as tokens:
        assert await refusal(tokens, token) == "TOKEN_INVALID"


async def test_a_token_of_eight_kilobytes_is_read_and_one_of_a_letter_more_is_not() -> None:
    """The limit is held before anything is parsed: the longer token is a good one."""
    async with checking(signer()) as tokens:
        lengths = {len(token): token for size in range(5900, 5960) if (token := signer().token(more="x" * size))}
        fits = max(length for length in lengths if length <= MAX_TOKEN_BYTES)
        assert await tokens.name_of(lengths[fits]) == "jwt:alice"
        over = min(length for length in lengths if length > MAX_TOKEN_BYTES)
        assert await refusal(tokens, lengths[over]) == "TOKEN_INVALID"
        assert await refusal(tokens, "a.b." + "c" * 10_000_000) == "TOKEN_INVALID"


@pytest.mark.parametrize(
    "token",
    [
        "..",
        "a.b.c",
        "ä.ö.ü",
        "\ud800.\udfff.\0",
        ".".join(["e30"] * 3),
        ".".join([base64.urlsafe_b64encode(b"[" * 2000).decode().rstrip("=")] * 3),
        by_hand({"alg": "ES256", "kid": "one"}, claims_of()),
        by_hand({"alg": "ES256", "kid": "one"}, claims_of(), b""),
        by_hand({"alg": "ES256", "kid": "one"}, claims_of(), bytes(64)),
        by_hand(["ES256"], claims_of()),
    ],
)
async def test_what_only_looks_like_a_token_is_refused(token: str) -> None:
    """However it is broken."""
    async with checking(signer()) as tokens:
        assert await refusal(tokens, token) == "TOKEN_INVALID"


@pytest.mark.parametrize("claims", [[1], "text", None, 1.5])
async def test_a_signed_token_without_claims_is_refused(claims: object) -> None:
    """What the issuer has signed need not be a token."""
    async with checking(signer()) as tokens:
        assert await refusal(tokens, by_signature(signer(), {"alg": "ES256", "kid": "one"}, claims)) == "TOKEN_INVALID"


async def test_a_changed_token_is_refused_beside_the_one_that_was_good() -> None:
    """What is kept is kept by the whole token, its signature included."""
    async with checking(signer()) as tokens:
        token = signer().token()
        assert await tokens.name_of(token) == "jwt:alice"
        signed, _, signature = token.rpartition(".")
        changed = f"{signed}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
        assert await refusal(tokens, changed) == "TOKEN_INVALID"
        assert await refusal(tokens, f"{signed}.") == "TOKEN_INVALID"


async def test_a_token_whose_key_is_gone_is_refused_though_it_was_good() -> None:
    """What is kept of tokens goes with the keys that it was checked with."""
    shown = Shown(jwks(signer(), signer("ES256", "two")))
    async with checking(shown=shown) as tokens:
        token, other = signer().token(), signer("ES256", "two").token()
        assert await tokens.name_of(token) == await tokens.name_of(other) == "jwt:alice"
        shown.content = jwks(signer("ES256", "two"))
        await tokens.keys.look_again()
        assert await refusal(tokens, token) == "TOKEN_INVALID"
        assert await tokens.name_of(other) == "jwt:alice"


async def test_of_tokens_that_were_good_only_so_many_are_kept_and_none_in_the_clear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that came last."""
    monkeypatch.setattr(json_web_tokens, "MAX_VERIFIED", 3)
    async with checking(signer()) as tokens:
        sent = [signer().token(sub=f"caller {number}") for number in range(4)]
        for token in [sent[0], sent[1], sent[2], sent[0], sent[3]]:
            await tokens.name_of(token)
        kept = vars(tokens)["_verified"]
        assert [verified.name for verified in kept.values()] == ["jwt:caller 2", "jwt:caller 0", "jwt:caller 3"]
        assert not [token for token in sent if token in repr(kept)]
