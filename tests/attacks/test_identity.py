"""Callers who are nobody: tokens that are wrong in every way, in numbers, and other callers' runs."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import jwt
import pytest
import yaml

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.attacks.canary import withstood
from tests.attacks.target import Target, called, target
from tests.calls import complaint_of
from tests.issuers import AUDIENCE, ISSUER, claims_of, jwks, signer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from tests.attacks.canary import Canary
    from tests.attacks.target import Metadata

TOKEN, OTHER_TOKEN = "hs_canary-0123456789", "hs_other-0123456789"
CALLS = 400
AT_ONCE = 50
UNKNOWN_KEYS, LETTERS = 1000, 5500  # enough to be seen in the memory, if these tokens were kept
TRIES = 100


def bearer(token: str) -> Metadata:
    """Return the metadata of a caller."""
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """A service that asks for tokens of both kinds, and its gateway."""
    folder: Path = tmp_path_factory.mktemp("identity")
    principals = {
        name: {"tokens": [f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"]}
        for name, token in (("canary", TOKEN), ("other", OTHER_TOKEN))
    }
    (folder / "tokens.yaml").write_text(yaml.safe_dump({"principals": principals}))
    (folder / "jwks.json").write_bytes(jwks(signer()))
    settings = {
        "HAYSTREAM_TOKENS_FILE": str(folder / "tokens.yaml"),
        "HAYSTREAM_JWT_ISSUER": ISSUER,
        "HAYSTREAM_JWT_AUDIENCE": AUDIENCE,
        "HAYSTREAM_JWT_JWKS": str(folder / "jwks.json"),
    }
    async with target(bearer(TOKEN), **settings) as running:
        yield running


def forged() -> list[tuple[Metadata, str]]:
    """Return credentials that are wrong, each in its own way, with the reason that they are refused for."""
    stranger = signer("RS256", "stranger")
    in_clear = jwt.encode(claims_of(), "", "none")
    return [
        ((), "CREDENTIALS_MISSING"),
        (bearer(secrets.token_urlsafe()), "TOKEN_INVALID"),
        (bearer(signer().token(exp=1)), "TOKEN_EXPIRED"),
        (bearer(signer().token(aud="others")), "TOKEN_INVALID"),
        (bearer(signer().token(iss="https://others.example")), "TOKEN_INVALID"),
        (bearer(in_clear), "TOKEN_INVALID"),
        (bearer(jwt.encode(claims_of(), "secret" * 8, "HS256", {"kid": "one"})), "TOKEN_INVALID"),
        (bearer(stranger.token({"kid": "one"})), "TOKEN_INVALID"),
        (bearer(f"{signer().token()}x"), "TOKEN_INVALID"),
        (bearer("a" * 12_000), "TOKEN_INVALID"),
        ((*bearer(TOKEN), *bearer(OTHER_TOKEN)), "TOKEN_INVALID"),
    ]


async def test_a_flood_of_wrong_tokens_is_refused_one_by_one(guarded: Target) -> None:
    """Each typed, by the right reason, and none of them starts a run."""
    credentials = forged()
    async with called(guarded.service.address) as channel:

        async def attack(_: Canary) -> None:
            await _each_refused(channel, (credentials[number % len(credentials)] for number in range(CALLS)))

        await withstood(guarded, attack, comes_anew=False)


async def test_tokens_of_keys_that_nobody_knows_do_not_pile_up(guarded: Target) -> None:
    """Each names another key: neither they nor their keys are remembered."""
    async with called(guarded.service.address) as channel:

        async def attack(_: Canary) -> None:
            letters = "x" * LETTERS
            tokens = (bearer(signer().token({"kid": secrets.token_hex()}, x=letters)) for _ in range(UNKNOWN_KEYS))
            await _each_refused(channel, ((token, "TOKEN_INVALID") for token in tokens))

        await withstood(guarded, attack, comes_anew=False)


async def test_another_callers_run_can_be_neither_read_nor_stopped(guarded: Target) -> None:
    """However often it is tried by who knows its id: to a stranger it is no run at all."""
    async with called(guarded.service.address) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)

        async def attack(_: Canary) -> None:
            run_id = secrets.token_hex(8)
            mine = stub.Chat(chat_pb2.ChatRequest(query="shout", run_id=run_id), metadata=guarded.metadata)
            await anext(aiter(mine))
            for _round in range(TRIES):
                for call in (
                    stub.Resume(chat_pb2.ResumeRequest(run_id=run_id), metadata=bearer(OTHER_TOKEN)),
                    stub.Cancel(chat_pb2.CancelRequest(run_id=run_id), metadata=bearer(OTHER_TOKEN)),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await (call if isinstance(call, grpc.aio.UnaryUnaryCall) else first_of(call))
                    assert complaint_of(caught.value).reason == "RUN_NOT_FOUND"
            assert not mine.done()
            mine.cancel()

        await withstood(guarded, attack, comes_anew=False)


async def first_of(call: grpc.aio.UnaryStreamCall[Any, Any]) -> None:
    """Read one event and leave: a run that was let in would go on for ever."""
    try:
        await call.read()
    finally:
        call.cancel()


async def _each_refused(channel: grpc.aio.Channel, credentials: Iterable[tuple[Metadata, str]]) -> None:
    """Call with each of them, some at once; assert that each is refused for its reason."""
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    places = asyncio.Semaphore(AT_ONCE)

    async def call(metadata: Metadata, reason: str) -> None:
        async with places:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await first_of(stub.Chat(chat_pb2.ChatRequest(query="shout"), metadata=metadata))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert complaint_of(caught.value).reason == reason

    async with asyncio.TaskGroup() as calls:
        for metadata, reason in credentials:
            calls.create_task(call(metadata, reason))
