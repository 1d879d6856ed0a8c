"""Who calls: what each way of saying so leads to, alone and beside another, and what refusals tell."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st

from haystream_service.errors import IdentityUnavailable, NotAuthenticated
from haystream_service.identity.authentication import authenticating
from haystream_service.identity.certificate import PeerCertificate
from haystream_service.identity.principal import ANYONE, Principal, Rights
from haystream_service.settings import Settings
from tests.issuers import AUDIENCE, ISSUER, Heard, by_hand, claims_of, jwks, signer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from haystream_service.identity.authentication import Authenticator

TOKEN = "hs_" + "a" * 43
DOTTED = "one.two.three"  # as a JSON Web Token is
LONGEST = "x" * 8192


def sha256_of(token: str) -> str:
    """Return a token's hash."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


FILE = f"""
principals:
  billing: {{tokens: ["{sha256_of(TOKEN)}"], max_runs: 1}}
  dotted: {{tokens: ["{sha256_of(DOTTED)}"]}}
  long: {{tokens: ["{sha256_of(LONGEST)}", "{sha256_of("Y" * 8193)}"]}}
  "jwt:alice": {{max_runs: 2}}
  "spiffe://example.org/gateway": {{max_runs: 3}}
  "dns:gateway.example.org": {{max_runs: 4}}
defaults: {{pipelines: []}}
"""
GATEWAY = PeerCertificate(dns_names=("gateway.example.org", "other.example.org"))
SPIFFE_ID = "spiffe://example.org/gateway"
WAYS = ("tokens", "jwt", "certificates")


class Ways:
    """Authenticators by what is configured."""

    def __init__(self, folder: Path) -> None:
        (folder / "tokens.yaml").write_text(FILE)
        (folder / "jwks.json").write_bytes(jwks(signer()))
        self.folder = folder

    def settings(self, *ways: str) -> Settings:
        """Return settings with these ways."""
        token = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": str(self.folder / "jwks.json")}
        unread = self.folder / "unread.pem"
        certificate = {"tls_cert": unread, "tls_key": unread, "tls_client_ca": unread}
        settings: dict[str, Any] = {
            **({"tokens_file": self.folder / "tokens.yaml"} if "tokens" in ways else {}),
            **(token if "jwt" in ways else {}),
            **(certificate if "certificates" in ways else {}),
        }
        return Settings(**settings)


@pytest.fixture
def ways(tmp_path: Path) -> Ways:
    """What can be configured."""
    return Ways(tmp_path)


@pytest.fixture
async def all_ways(ways: Ways) -> AsyncIterator[Authenticator]:
    """An authenticator with everything configured."""
    async with authenticating(ways.settings(*WAYS), Heard().log) as authenticator:
        yield authenticator


async def refusal(
    authenticator: Authenticator, authorization: Sequence[str] = (), certificate: PeerCertificate | None = None
) -> str:
    """Return why a caller is refused."""
    with pytest.raises(NotAuthenticated) as caught:
        await authenticator.principal_of(authorization, certificate)
    return caught.value.reason


async def test_where_nothing_is_configured_everybody_is_anyone(ways: Ways) -> None:
    """Whatever is sent."""
    async with authenticating(ways.settings(), Heard().log) as authenticator:
        for authorization in ([], ["Bearer x"], ["Basic x", "x"]):
            assert await authenticator.principal_of(authorization, GATEWAY) == ANYONE


async def test_each_way_of_saying_who_calls_has_a_name_and_rights_of_its_own(all_ways: Authenticator) -> None:
    """The file gives rights to all of them, and to those that it does not list what it says of all others."""
    assert await all_ways.principal_of([f"Bearer {TOKEN}"], None) == Principal("billing", Rights(max_runs=1))
    token = signer().token()
    assert await all_ways.principal_of([f"Bearer {token}"], None) == Principal("jwt:alice", Rights(max_runs=2))
    spiffe = PeerCertificate(SPIFFE_ID, ("gateway.example.org",), (SPIFFE_ID,))
    assert await all_ways.principal_of([], spiffe) == Principal(SPIFFE_ID, Rights(max_runs=3))
    assert await all_ways.principal_of([], GATEWAY) == Principal("dns:gateway.example.org", Rights(max_runs=4))
    others = signer().token(sub="billing")
    assert await all_ways.principal_of([f"Bearer {others}"], None) == Principal("jwt:billing", Rights(frozenset()))


async def test_without_a_file_everybody_who_is_known_may_what_the_settings_allow(ways: Ways) -> None:
    """The limits of one caller are in force without a file as well."""
    settings = ways.settings("jwt", "certificates").model_copy(update={"principal_max_runs": 5})
    async with authenticating(settings, Heard().log) as authenticator:
        assert (await authenticator.principal_of([], GATEWAY)).rights == Rights(max_runs=5)
        assert (await authenticator.principal_of([f"Bearer {signer().token()}"], None)).rights == Rights(max_runs=5)
        assert await refusal(authenticator, [f"Bearer {TOKEN}"]) == "TOKEN_INVALID"


async def test_a_token_comes_before_a_certificate_and_a_wrong_one_is_refused_beside_it(
    all_ways: Authenticator,
) -> None:
    """Who sends a token means it: the certificate may be that of a proxy."""
    assert (await all_ways.principal_of([f"Bearer {TOKEN}"], GATEWAY)).name == "billing"
    assert await refusal(all_ways, [f"Bearer {TOKEN}x"], GATEWAY) == "TOKEN_INVALID"
    assert await refusal(all_ways, [f"Bearer {signer().token(exp=1)}"], GATEWAY) == "TOKEN_EXPIRED"
    assert await refusal(all_ways, ["Basic YTpi"], GATEWAY) == "TOKEN_INVALID"


async def test_where_only_certificates_are_taken_a_token_is_refused(ways: Ways) -> None:
    """It cannot be good, and whoever sends it means to be somebody else."""
    async with authenticating(ways.settings("certificates"), Heard().log) as authenticator:
        assert (await authenticator.principal_of([], GATEWAY)).name == "dns:gateway.example.org"
        assert await refusal(authenticator, [f"Bearer {TOKEN}"], GATEWAY) == "TOKEN_INVALID"


async def test_where_no_certificates_are_taken_one_says_nothing(ways: Ways) -> None:
    """Nobody has checked it."""
    async with authenticating(ways.settings("tokens", "jwt"), Heard().log) as authenticator:
        assert await refusal(authenticator, [], GATEWAY) == "CREDENTIALS_MISSING"


@pytest.mark.parametrize(
    ("configured", "cures"),
    [
        (["tokens"], ["send a token"]),
        (["jwt"], ["send a token"]),
        (["certificates"], ["show a client certificate"]),
        (WAYS, ["send a token", "show a client certificate"]),
    ],
)
async def test_who_sends_nothing_is_told_what_is_wanted(ways: Ways, configured: list[str], cures: list[str]) -> None:
    """Of what is configured, and nothing else."""
    async with authenticating(ways.settings(*configured), Heard().log) as authenticator:
        with pytest.raises(NotAuthenticated) as caught:
            await authenticator.principal_of([], None)
    assert caught.value.reason == "CREDENTIALS_MISSING"
    assert [cure for cure in ("send a token", "show a client certificate") if cure in str(caught.value)] == cures


async def test_what_looks_like_a_json_web_token_is_one_only_where_these_are_taken(ways: Ways) -> None:
    """Three parts with dots between them may be in the file, too."""
    async with authenticating(ways.settings("tokens"), Heard().log) as authenticator:
        assert (await authenticator.principal_of([f"Bearer {DOTTED}"], None)).name == "dotted"
    async with authenticating(ways.settings("tokens", "jwt"), Heard().log) as authenticator:
        assert await refusal(authenticator, [f"Bearer {DOTTED}"]) == "TOKEN_INVALID"


@pytest.mark.parametrize("value", [f"bearer {TOKEN}", f"BEARER {TOKEN}", f"Bearer   {TOKEN}"])
async def test_the_scheme_is_taken_in_any_case(all_ways: Authenticator, value: str) -> None:
    """As HTTP has it."""
    assert (await all_ways.principal_of([value], None)).name == "billing"


async def test_a_token_of_eight_kilobytes_is_read(all_ways: Authenticator) -> None:
    """One that could not have come in a head of a call is not even looked for in the file."""
    assert (await all_ways.principal_of([f"Bearer {LONGEST}"], None)).name == "long"
    assert await refusal(all_ways, ["Bearer " + "Y" * 8193]) == "TOKEN_INVALID"


WRONG = {
    "two": [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
    "a good one and an empty one": [f"Bearer {TOKEN}", ""],
    "empty": [""],
    "a space": [" "],
    "no scheme": [TOKEN],
    "no token": ["Bearer"],
    "no token after a space": ["Bearer "],
    "another scheme": ["Basic YTpi"],
    "a longer scheme": [f"Bearers {TOKEN}"],
    "no space": [f"Bearer{TOKEN}"],
    "a tab": [f"Bearer\t{TOKEN}"],
    "a space before": [f" Bearer {TOKEN}"],
    "a space after": [f"Bearer {TOKEN} "],
    "a line after": [f"Bearer {TOKEN}\n"],
    "two in one": [f"Bearer {TOKEN}, Bearer {TOKEN}"],
    "letters of another script": ["Bearer " + TOKEN.replace("a", "\u0430")],
    "wide letters": ["\uff22earer " + TOKEN],
    "a letter that folds into one": ["Bearer " + TOKEN.replace("s", "\u017f")],
    "half a letter": ["Bearer \ud800"],
    "a null": [f"Bearer {TOKEN}\0"],
    "huge": ["Bearer " + "a" * 1_000_000],
    "nothing but spaces": ["Bearer" + " " * 1_000_000],
    "dots": ["Bearer .."],
    "a JSON Web Token of nobody": [f"Bearer {by_hand({'alg': 'none'}, claims_of(), b'')}"],
}


@pytest.mark.parametrize("authorization", WRONG.values(), ids=WRONG)
async def test_what_is_no_token_is_refused_in_words_that_do_not_repeat_it(
    all_ways: Authenticator, authorization: list[str]
) -> None:
    """The same words for all of them."""
    with pytest.raises(NotAuthenticated) as caught:
        await all_ways.principal_of(authorization, None)
    assert caught.value.reason == "TOKEN_INVALID"
    assert str(caught.value) == "`authorization` has no token that is good here; send one, as `Bearer` and the token"


OTHER_URI = "https://example.org/gateway"
CERTIFICATES = {
    "nothing but a common name": PeerCertificate(),
    "another URI alone": PeerCertificate(uris=(OTHER_URI,)),
    "an empty name": PeerCertificate(dns_names=("",)),
    "a name of two lines": PeerCertificate(dns_names=("gateway.example.org\nx",)),
    "a name with a colon": PeerCertificate(dns_names=("a:b",)),
    "two SPIFFE ids": PeerCertificate(uris=(SPIFFE_ID, f"{SPIFFE_ID}2"), dns_names=("gateway.example.org",)),
    "a SPIFFE id and another": PeerCertificate(SPIFFE_ID, uris=(f"{SPIFFE_ID}2",)),
    "a SPIFFE id and another URI": PeerCertificate(SPIFFE_ID, uris=(SPIFFE_ID, OTHER_URI)),
    "a SPIFFE id of a domain": PeerCertificate("spiffe://example.org", dns_names=("gateway.example.org",)),
    "a SPIFFE id in capitals": PeerCertificate(uris=("SPIFFE://example.org/gateway",), dns_names=("a",)),
    "a SPIFFE id with a query": PeerCertificate("spiffe://example.org/gateway?x"),
    "a SPIFFE id of somebody at a port": PeerCertificate("spiffe://example.org:1/gateway"),
}


@pytest.mark.parametrize("certificate", CERTIFICATES.values(), ids=CERTIFICATES)
async def test_a_certificate_that_names_nobody_for_certain_is_refused(
    all_ways: Authenticator, certificate: PeerCertificate
) -> None:
    """The common name is free text, and of several SPIFFE ids none is the caller's."""
    assert await refusal(all_ways, [], certificate) == "CERTIFICATE_INVALID"


async def test_a_dns_name_is_the_same_in_any_case_and_a_spiffe_id_may_stand_among_the_uris(
    all_ways: Authenticator,
) -> None:
    """As their specifications have it."""
    capitals = PeerCertificate(dns_names=("Gateway.Example.ORG",))
    assert (await all_ways.principal_of([], capitals)).name == "dns:gateway.example.org"
    among = PeerCertificate(uris=(SPIFFE_ID,), dns_names=("other",))
    assert (await all_ways.principal_of([], among)).name == SPIFFE_ID


async def test_while_the_issuer_cannot_be_reached_others_call_all_the_same(ways: Ways) -> None:
    """And a token of the issuer's is not called wrong."""
    settings = ways.settings(*WAYS).model_copy(update={"jwt_jwks": "http://127.0.0.1:1/"})
    heard = Heard()
    async with authenticating(settings, heard.log) as authenticator:
        assert (await authenticator.principal_of([f"Bearer {TOKEN}"], None)).name == "billing"
        assert (await authenticator.principal_of([], GATEWAY)).name == "dns:gateway.example.org"
        token = signer().token()
        with pytest.raises(IdentityUnavailable) as caught:
            await authenticator.principal_of([f"Bearer {token}"], None)
        assert token not in str(caught.value)
        line = await heard.next()
        assert line["level"] == "warning"


words = st.text() | st.text("abc._~+/=-, \t\r\n\0\ud800ä", max_size=40)
parts = st.binary(max_size=60) | st.sampled_from([b'{"alg":"ES256","kid":"one"}', b'{"alg":"none"}', b"{}", b"[]"])
heads = st.dictionaries(
    st.sampled_from(["alg", "kid", "crit", "b64", "typ", "jwk", "zip"]),
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["ES256", "RS256", "one"]),
)
tokens = st.builds("{}.{}.{}".format, words, words, words) | st.builds(
    by_hand, heads, st.dictionaries(st.text(max_size=3), st.integers()), parts
)
credentials = st.lists(
    words | st.builds("{} {}".format, st.sampled_from(["Bearer", "bearer", "Basic"]), words | tokens)
)
certificates = st.none() | st.builds(
    PeerCertificate,
    spiffe_id=st.sampled_from(["", "spiffe://", "spiffe://a", "x"]),
    dns_names=st.lists(st.text("\n:/ ä", max_size=5), max_size=2).map(tuple),
    uris=st.lists(st.text(max_size=10), max_size=2).map(tuple),
)


@given(st.lists(st.tuples(credentials, certificates), min_size=10, max_size=30))
@trying(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_stranger_sends_it_is_refused_by_a_reason(
    ways: Ways, sent: list[tuple[list[str], PeerCertificate | None]]
) -> None:
    """No credentials lead to another exception, or to somebody."""

    async def send() -> None:
        async with authenticating(ways.settings("tokens", "jwt", "certificates"), Heard().log) as authenticator:
            for authorization, certificate in sent:
                assert await refusal(authenticator, authorization, certificate) in {
                    *("CREDENTIALS_MISSING", "TOKEN_INVALID", "CERTIFICATE_INVALID")
                }

    asyncio.run(send())
