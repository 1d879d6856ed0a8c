"""The issuer's keys: brought from a file or over HTTP, kept when they cannot be had, and not asked for too often."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from haystream_service.errors import IdentityFileError, IdentityUnavailable, NotAuthenticated
from haystream_service.identity.authentication import authenticating
from haystream_service.identity.json_web_tokens import JsonWebTokens
from haystream_service.identity.key_set import KEPT_SECONDS, PAUSE_SECONDS, REFRESH_SECONDS, KeySet
from haystream_service.identity.key_sources import KeyAddress
from haystream_service.identity.keys import KeysNotHad, keys_of
from tests.clock import ClockedLoop, clocked
from tests.image_hosts import answer, hosting
from tests.issuers import SECONDS, Heard, Signer, jwks, settings_with, signer

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from haystream_service.identity.authentication import Authenticator
    from haystream_service.identity.keys import Key

ONE, TWO = signer("ES256", "one"), signer("ES256", "two")
JSON = "application/json"


class Issuer:
    """Shows its keys, or does not; counts how often it is asked, and answers when a test lets it."""

    def __init__(self, *signers: Signer) -> None:
        self.content: bytes | None = jwks(*signers)
        self.asked = 0
        self.proceed = asyncio.Event()
        self.proceed.set()

    async def bring(self) -> bytes:
        self.asked += 1
        await self.proceed.wait()
        if self.content is None:
            raise KeysNotHad("it is out")
        return self.content


class Clocked:
    """A set of keys in a loop whose clock a test sets forward."""

    def __init__(self, loop: ClockedLoop, issuer: Issuer) -> None:
        self.loop = loop
        self.heard = Heard()
        self.keys = KeySet(issuer.bring, self.heard.log)

    def run(self, wanted: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> Any:
        """Return what comes of something that needs no time."""
        return self.loop.run_until_complete(wanted)

    def find(self, kid: str | None = "one") -> Key | None:
        """Return a key."""
        found: Key | None = self.run(self.keys.find(kid, "ES256"))
        return found

    def __enter__(self) -> Self:
        self.run(self.keys.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.keys.__aexit__())


def test_keys_are_brought_once_and_again_every_ten_minutes() -> None:
    """Whoever calls in between waits for nothing; a key that is gone is gone with the next turn."""
    issuer = Issuer(ONE)
    with clocked() as loop, Clocked(loop, issuer) as it:
        assert it.find() is not None
        loop.turn(REFRESH_SECONDS - 1)
        assert issuer.asked == 1
        issuer.content = jwks(TWO)
        loop.turn(1)
        assert issuer.asked == 2
        it.run(it.keys.refresh())
        assert [key.kid for key in it.keys.keys] == ["two"]


def test_a_key_that_is_not_known_is_looked_for_once() -> None:
    """So a caller with a token of the issuer's newest key does not wait for ten minutes."""
    issuer = Issuer(ONE)
    with clocked() as loop, Clocked(loop, issuer) as it:
        assert it.find() is not None
        issuer.content = jwks(ONE, TWO)
        loop.turn(PAUSE_SECONDS)
        assert it.find("two") is not None
        assert issuer.asked == 2


def test_however_many_ask_for_keys_that_there_are_not_the_issuer_is_asked_once_in_half_a_minute() -> None:
    """At the same time, and one after the other."""
    issuer = Issuer(ONE)
    with clocked() as loop, Clocked(loop, issuer) as it:
        it.find()
        loop.turn(PAUSE_SECONDS)

        async def flood() -> list[Key | None]:
            return await asyncio.gather(*[it.keys.find(f"unknown {number}", "ES256") for number in range(500)])

        issuer.proceed.clear()
        waiting = loop.create_task(flood())
        loop.turn()
        assert issuer.asked == 2
        issuer.proceed.set()
        assert it.run(asyncio.wait_for(waiting, 1)) == [None] * 500
        for _ in range(3):
            assert it.run(flood()) == [None] * 500
            assert issuer.asked == 2
        loop.turn(PAUSE_SECONDS)
        it.run(flood())
        assert issuer.asked == 3


def test_who_gives_up_waiting_takes_the_keys_from_nobody_else() -> None:
    """They are on their way for all."""
    issuer = Issuer(ONE)
    issuer.proceed.clear()
    with clocked() as loop, Clocked(loop, issuer) as it:
        first, second = (loop.create_task(it.keys.find("one", "ES256")) for _ in range(2))
        loop.turn()
        first.cancel()
        loop.turn()
        assert first.cancelled()
        issuer.proceed.set()
        assert it.run(second) is not None
        assert issuer.asked == 1


def test_when_keys_cannot_be_had_those_before_stay_in_force() -> None:
    """Of others nobody can tell just now. The log says so once, and it is tried again every half minute."""
    issuer = Issuer(ONE)
    with clocked() as loop, Clocked(loop, issuer) as it:
        it.find()
        it.heard.lines.get_nowait()
        for content in (None, b"<html>", b"{}", b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'):
            issuer.content = content
            loop.turn(REFRESH_SECONDS)
            it.run(it.keys.refresh())
            assert it.find() is not None
            assert it.heard.lines.get_nowait()["level"] == "warning"
        with pytest.raises(IdentityUnavailable):
            it.find("two")
        before = issuer.asked
        loop.turn(PAUSE_SECONDS)
        assert issuer.asked == before + 1
        it.run(it.keys.refresh())
        assert it.heard.lines.empty()
        issuer.content = jwks(TWO)
        loop.turn(PAUSE_SECONDS)
        it.run(it.keys.refresh())
        assert it.find("two") is not None
        assert it.find("one") is None


def test_keys_of_which_there_is_no_news_for_a_day_are_used_no_longer() -> None:
    """Whoever keeps the issuer's address from being reached would keep a stolen key good; then come new ones."""
    issuer = Issuer(ONE)
    with clocked() as loop, Clocked(loop, issuer) as it:
        tokens = JsonWebTokens(settings_with(), it.keys)
        token = ONE.token(exp=int(time.time()) + 2 * int(KEPT_SECONDS))
        assert it.run(tokens.name_of(token)) == "jwt:alice"
        loop.turn(KEPT_SECONDS / 2)
        it.run(it.keys.refresh())  # the day begins with the last news, though they are the same
        issuer.content = None
        loop.turn(KEPT_SECONDS - 1)
        it.run(it.keys.refresh())
        assert it.run(tokens.name_of(token)) == "jwt:alice"
        loop.turn(PAUSE_SECONDS)
        it.run(it.keys.refresh())
        with pytest.raises(IdentityUnavailable):
            it.run(tokens.name_of(token))
        assert [it.heard.lines.get_nowait()["level"] for _ in range(3)] == ["info", "warning", "error"]
        issuer.content = jwks(ONE)
        loop.turn(PAUSE_SECONDS)
        assert it.run(tokens.name_of(token)) == "jwt:alice"


def test_without_any_keys_nobody_is_refused_for_good() -> None:
    """It is the service that cannot tell; half a minute later it tries again."""
    issuer = Issuer(ONE)
    issuer.content = None
    with clocked() as loop, Clocked(loop, issuer) as it:
        for _ in range(3):
            for kid in ("one", None):
                with pytest.raises(IdentityUnavailable):
                    it.find(kid)
        assert issuer.asked == 1
        issuer.content = jwks(ONE)
        loop.turn(PAUSE_SECONDS)
        assert it.find() is not None


def test_the_end_does_not_wait_for_keys() -> None:
    """Nor does it leave somebody who waits for them."""
    issuer = Issuer(ONE)
    issuer.proceed.clear()
    with clocked() as loop:
        with Clocked(loop, issuer) as it:
            waiting = loop.create_task(it.keys.find("one", "ES256"))
            loop.turn()
        loop.turn()
        with pytest.raises(IdentityUnavailable):
            waiting.result()


def test_keys_that_cannot_be_used_are_passed_over() -> None:
    """Broken ones, weak ones, secret ones, and those for something else; private parts are not read."""
    weak: dict[str, Any] = Signer("weak", "RS256", rsa.generate_private_key(65537, 1024)).jwk()  # noqa: S505 - yes
    good = ONE.jwk()
    odd: list[object] = [
        {"kty": "RSA"},
        1,
        None,
        [],
        "key",
        {},
        {"kty": []},
        {"kty": "EC"},
        {"kty": "RSA", "n": 1, "e": "AQAB"},
    ]
    odd += [weak, {"kty": "oct", "kid": "oct", "k": "AAAA"}, {**good, "kid": 1}, {**good, "crv": ["P-256"]}]
    odd += [{**good, "x": "AAAA"}, {**good, "x": good["y"]}, {**good, "crv": "P-384"}, {**good, "use": "enc"}]
    odd += [{**good, "key_ops": "verify"}, {**good, "alg": "none"}, {**good, "crv": "secp256k1"}]
    kept = keys_of(json.dumps({"keys": [*odd, {**good, "d": "AAAA"}]}).encode())
    assert [(key.kid, *key.algorithms) for key in kept] == [("one", "ES256")]
    assert not hasattr(kept[0].public, "private_numbers")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["RSA", "EC", "P-256", "AQAB"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kty", "crv", "n", "e", "x"]), inner),
    max_leaves=10,
)
members = st.sampled_from(["kty", "crv", "n", "e", "x", "y", "alg", "use", "kid", "key_ops"])


@trying(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(members, json_values) | json_values) | json_values)
def test_whatever_an_issuer_shows_it_is_keys_or_not_had(shown: object) -> None:
    """No other exception ends the refreshing."""
    for whole in (shown, {"keys": shown}):
        with pytest.raises(KeysNotHad):
            keys_of(json.dumps(whole).encode())


async def name_of(authenticator: Authenticator, by: Signer) -> str:
    """Return who calls with a token."""
    return (await authenticator.principal_of([f"Bearer {by.token()}"], None)).name


async def test_keys_come_from_a_file_which_is_read_again_on_change(tmp_path: Path) -> None:
    """A token of a new key is taken then, and one of the key that is gone refused."""
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(ONE))
    heard = Heard()
    async with authenticating(settings_with(jwt_jwks=str(file)), heard.log) as authenticator:
        assert await name_of(authenticator, ONE) == "jwt:alice"
        await heard.next()
        replacement = tmp_path / "new"
        replacement.write_bytes(jwks(TWO))
        replacement.rename(file)
        assert (await heard.next())["keys"] == 1
        assert await name_of(authenticator, TWO) == "jwt:alice"
        with pytest.raises(NotAuthenticated):
            await name_of(authenticator, ONE)
        file.write_bytes(b"{")
        assert (await heard.next())["complaint"] == "it is not JSON"
        assert await name_of(authenticator, TWO) == "jwt:alice"


async def test_keys_behind_a_link_are_read_again_with_the_next_call(tmp_path: Path) -> None:
    """Though no watching tells of a change there: a key that is taken out is good for nobody from then on."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    there, file = folder / "jwks.json", tmp_path / "jwks.json"
    there.write_bytes(jwks(ONE))
    file.symlink_to(there)
    async with authenticating(settings_with(jwt_jwks=str(file)), Heard().log) as authenticator:
        there.write_bytes(jwks(TWO, signer("ES256", "three")))
        with pytest.raises(NotAuthenticated):
            await name_of(authenticator, ONE)
        assert await name_of(authenticator, TWO) == "jwt:alice"


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"keys": [{}]}', b"x" * ((1 << 20) + 1)])
async def test_a_file_without_keys_stops_the_start_with_one_line(tmp_path: Path, content: bytes | None) -> None:
    """It names the setting and the file."""
    file = tmp_path / "jwks.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(IdentityFileError) as caught:
        async with authenticating(settings_with(jwt_jwks=str(file)), Heard().log):
            pass
    assert str(caught.value).startswith(f"HAYSTREAM_JWT_JWKS: {file}: it ")
    assert str(caught.value).isprintable()


async def test_keys_come_from_an_address() -> None:
    """Once for many callers, the first of whom waits for them."""
    async with hosting(answer(jwks(ONE), content_type=JSON)) as host:
        settings = settings_with(jwt_jwks=f"http://{host.authority}/keys?v=1")
        async with authenticating(settings, Heard().log) as authenticator:
            assert set(await asyncio.gather(*[name_of(authenticator, ONE) for _ in range(20)])) == {"jwt:alice"}
            for unknown in range(20):
                with pytest.raises(NotAuthenticated):
                    await name_of(authenticator, signer("ES256", f"unknown {unknown % 2}"))
        assert len(host.heads) == 1
        assert host.heads[0].startswith("GET /keys?v=1 HTTP/1.1\r\n")
        assert f"host: {host.authority}\r\n" in host.heads[0].lower()


async def test_a_redirect_is_not_followed() -> None:
    """Wherever it leads, it leads away from what the settings name."""
    async with hosting(answer(jwks(ONE), content_type=JSON)) as other:
        moved = answer(b"", f"Location: {other.url}", "Content-Length: 0", status="302 Found", content_type=None)
        async with hosting(moved) as host:
            with pytest.raises(KeysNotHad, match="status 302"):
                await KeyAddress(host.url).bring()
        assert not other.visits


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (answer(b"", status="500 Oh"), "status 500"),
        (answer(b"x" * ((1 << 20) + 1)), "more than 1048576 bytes"),
        (b"SSH-2.0-OpenSSH\r\n", "no connection"),
        (b"", "no connection"),
        (answer(b"{", "Content-Length: 9"), "no connection"),
    ],
)
async def test_an_answer_that_is_not_wanted_is_none(reply: bytes, complaint: str) -> None:
    """With a line for the operator, without anything of the answer; the connection is closed."""
    async with hosting(reply) as host:
        with pytest.raises(KeysNotHad, match=complaint):
            await KeyAddress(host.url).bring()


async def test_an_answer_of_a_mebibyte_is_read() -> None:
    """The limit itself is allowed."""
    async with hosting(answer(b"x" * (1 << 20))) as host:
        assert len(await KeyAddress(host.url).bring()) == 1 << 20


async def test_an_address_that_does_not_answer_is_given_up() -> None:
    """After its time, with the connection closed; nobody there at all is known at once."""
    async with hosting(holds=True) as host:
        async with asyncio.timeout(SECONDS):
            with pytest.raises(KeysNotHad, match=r"within 0\.2 seconds"):
                await KeyAddress(host.url, seconds=0.2).bring()
    for url in (host.url, "http://[::1]:1/", "https://issuer.invalid:99999/", "https://a..b/"):
        with pytest.raises(KeysNotHad, match="no connection"):
            await KeyAddress(url).bring()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for this machine, which nobody has signed, and its key in the same file."""
    key, chain, both = tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "both.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", *kind, *name, "-keyout", key, "-out", chain],  # noqa: S607 - wherever it is installed
        check=True,
        capture_output=True,
    )
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    return both


async def test_a_certificate_that_nobody_trusts_brings_no_keys(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the machine trusts does: a company's own authority is named as everywhere, in SSL_CERT_FILE."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    async with hosting(answer(jwks(ONE), f"Content-Length: {len(jwks(ONE))}"), tls=tls) as host:
        address = KeyAddress(f"https://{host.authority}/")
        with pytest.raises(KeysNotHad, match="no valid certificate"):
            await address.bring()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await address.bring() == jwks(ONE)
