"""Callers who are known by other things than a token of the file: JSON Web Tokens and certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jwt
import pytest
import yaml

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.calls import all_events
from tests.conftest import FAKES, served
from tests.encrypted import Certs, channel_to
from tests.issuers import claims_of, issuer_in, signer
from tests.principals import BILLING, PRINCIPALS, bearer, refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fakes import Stage


async def test_a_json_web_token_says_who_calls(stage: Stage, tmp_path: Path) -> None:
    """Its subject has the runs."""
    stage.chunks = 1
    async with served(default_pipeline="fake", **issuer_in(tmp_path)) as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=bearer(signer().token()))
        await anext(aiter(call))
        assert [run.record.principal for run in running.runs] == ["jwt:alice"]
        stage.proceed.set()
        assert (await all_events(call))[-1].HasField("finished")


WRONG_TOKENS: dict[str, tuple[Callable[[], str], str]] = {
    "expired": (lambda: signer().token(exp=1), "TOKEN_EXPIRED"),
    "for another audience": (lambda: signer().token(aud="billing"), "TOKEN_INVALID"),
    "from another issuer": (lambda: signer().token(iss="https://other.example"), "TOKEN_INVALID"),
    "of nobody": (lambda: signer().token(sub=""), "TOKEN_INVALID"),
    "not signed": (lambda: jwt.encode(claims_of(), "", "none"), "TOKEN_INVALID"),
    "signed by another": (lambda: signer(kid="other").token({"kid": "one"}), "TOKEN_INVALID"),
}


@pytest.mark.parametrize("wrong", WRONG_TOKENS)
async def test_a_json_web_token_that_is_not_right_lets_nobody_in(tmp_path: Path, wrong: str) -> None:
    """Whoever's it is."""
    token_of, reason = WRONG_TOKENS[wrong]
    async with served(FAKES, warm=False, **issuer_in(tmp_path)) as running:
        token = token_of()
        complaint = await refused(running.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=bearer(token)))
    assert (complaint.code, complaint.reason) == ("UNAUTHENTICATED", reason)
    assert token not in complaint.message


async def test_a_certificate_says_who_calls_and_a_token_beside_it_counts_for_more(stage: Stage, tmp_path: Path) -> None:
    """As with a gateway, which shows its own certificate and passes its callers' tokens on. A wrong one is refused."""
    certs = Certs(tmp_path)
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text(yaml.safe_dump(PRINCIPALS))
    gateway = certs.authority.caller("gateway", spiffe_id="spiffe://haystream.local/gateway")
    nobody = certs.authority.caller("nobody")
    stage.chunks = 1
    async with served(default_pipeline="fake", tokens_file=tokens, **certs.mutual) as running:
        async with channel_to(running.service.port, certs.authority.certificate, gateway) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            own, passed_on = (
                stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=metadata) for metadata in ((), BILLING)
            )
            await anext(aiter(own))
            await anext(aiter(passed_on))
            principals = {run.record.principal for run in running.runs}
            assert principals == {"spiffe://haystream.local/gateway", "billing"}
            complaint = await refused(stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=bearer("hs_nobody")))
            assert complaint.reason == "TOKEN_INVALID"
            stage.proceed.set()
            for call in (own, passed_on):
                assert (await all_events(call))[-1].HasField("finished")
        async with channel_to(running.service.port, certs.authority.certificate, nobody) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            complaint = await refused(stub.Cancel(chat_pb2.CancelRequest(run_id="r")))
    assert (complaint.code, complaint.reason) == ("UNAUTHENTICATED", "CERTIFICATE_INVALID")
