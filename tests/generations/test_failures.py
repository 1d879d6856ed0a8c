"""Providers and components that fail, on every generation of Haystack: what their callers are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio
import pytest

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, text_of
from tests.generations.conversation import ANSWER, ASK, say
from tests.generations.installed import GENERATION, Kind
from tests.generations.parts import FAIL, FOREIGN_WORDS

if TYPE_CHECKING:
    from llmock.pytest_plugin import LLMock

    from tests.conftest import Served

pytestmark = [pytest.mark.filterwarnings(warning) for warning in GENERATION.warnings]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (429, ("RESOURCE_EXHAUSTED", "PROVIDER_BUSY", 3)),
        (500, ("UNAVAILABLE", "PROVIDER_UNAVAILABLE", 3)),
        (401, ("FAILED_PRECONDITION", "PROVIDER_AUTH", None)),
    ],
)
async def test_a_providers_refusal_is_typed(
    answering: Served, llmock: LLMock, speaker: Kind, status: int, expected: tuple[str, str, float | None]
) -> None:
    """With what the provider asked to wait, and the component where Haystack tells it."""
    llmock.fail(status, retry_after=expected[2])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(answering.stub.Chat(ASK))
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason, complaint.retry_seconds) == expected
    assert complaint.metadata.get("component") == (speaker.speaker if GENERATION.names_failed_component else None)


async def test_a_provider_that_ends_early_does_not_look_complete(answering: Served, llmock: LLMock) -> None:
    """Haystack takes it for a whole answer; the reason says otherwise."""
    llmock.truncate(after_chunks=2)
    events = await all_events(answering.stub.Chat(ASK))
    assert events[-1].finished.reason == chat_pb2.FINISH_REASON_INCOMPLETE
    assert ANSWER.startswith(text_of(events))
    assert text_of(events) != ANSWER


async def test_a_component_that_fails_is_named_without_its_words(acting: Served, actor: Kind) -> None:
    """Named where Haystack tells it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(acting.stub.Chat(say(FAIL)))
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason) == ("INTERNAL", "COMPONENT_FAILED")
    assert complaint.metadata.get("component") == (actor.speaker if GENERATION.names_failed_component else None)
    assert FOREIGN_WORDS not in repr((caught.value, caught.value.trailing_metadata()))
