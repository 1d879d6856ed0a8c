"""Two callers with tokens and rights of their own, a service that asks for them, and how it refuses calls."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import yaml

from tests.calls import all_events, complaint_of
from tests.conftest import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.calls import Complaint
    from tests.conftest import Served
    from tests.fakes import Stage


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller."""
    return (("authorization", f"Bearer {token}"),)


def hashed(token: str) -> str:
    """Return a token as the file has it."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


BILLING, SUPPORT = bearer("hs_billing-token-0123456789"), bearer("hs_support-token-0123456789")

PRINCIPALS: dict[str, Any] = {
    "principals": {
        "billing": {"tokens": [hashed("hs_billing-token-0123456789")]},
        "support": {
            "tokens": [hashed("hs_support-token-0123456789")],
            "pipelines": ["fake", "gone"],
            "max_runs": 1,
            "own_api_key": False,
        },
    }
}


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    """Who may call."""
    path = tmp_path / "tokens.yaml"
    path.write_text(yaml.safe_dump(PRINCIPALS))
    return path


@pytest.fixture
async def guarded(stage: Stage, tokens_file: Path) -> AsyncIterator[Served]:
    """A service that asks for tokens."""
    async with served(default_pipeline="fake", tokens_file=tokens_file) as running:
        yield running
    stage.proceed.set()


async def refused(call: grpc.aio.UnaryStreamCall[Any, Any] | grpc.aio.UnaryUnaryCall[Any, Any]) -> Complaint:
    """Return how a call is refused. Nothing comes before that: clients may send it again elsewhere."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            await call
        else:
            await all_events(call)
    assert not await call.initial_metadata()
    return complaint_of(caught.value)


async def refused_later(call: grpc.aio.UnaryStreamCall[Any, Any]) -> Complaint:
    """Return how a stream that has begun ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    return complaint_of(caught.value)
