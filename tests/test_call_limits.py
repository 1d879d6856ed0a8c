"""What an owner limits is limited whichever way it comes, and what nobody listed is not a caller's to set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.protobuf import json_format

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Served
    from tests.fakes import Stage

LIMITED = """
from tests.fakes import AsyncFake, pipeline_of

HAYSTREAM = {"inputs": {"llm.query": {"maxLength": 5}}}


def build():
    return pipeline_of(AsyncFake())
"""

FINDING = """
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from tests.fakes import AsyncFake


def build():
    store = InMemoryDocumentStore()
    store.write_documents([Document(content="mine", meta={"tenant": "me"}), Document(content="theirs")])
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, filters={"tenant": "me"}))
    pipeline.add_component("llm", AsyncFake())
    return pipeline
"""

OLD_SPELLING = """
from typing import List, Optional

from haystack import component
from haystack.dataclasses import ChatMessage
from tests.fakes import pipeline_of


@component
class Old:
    @component.output_types(replies=List[ChatMessage])
    async def run_async(self, messages: Optional[List[ChatMessage]], streaming_callback=None):
        return {"replies": [ChatMessage.from_assistant(messages[-1].text, meta={"finish_reason": "stop"})]}

    @component.output_types(replies=List[ChatMessage])
    def run(self, messages: Optional[List[ChatMessage]], streaming_callback=None):
        raise NotImplementedError


def build():
    return pipeline_of(Old())
"""


@pytest.fixture
async def limited(tmp_path: Path, stage: Stage) -> AsyncIterator[Served]:
    """A service with all of them, which answers at once."""
    stage.proceed.set()
    for name, text in {"limited": LIMITED, "finding": FINDING, "old": OLD_SPELLING}.items():
        (tmp_path / f"{name}.py").write_text(text)
    async with served(tmp_path) as running:
        yield running


def user(text: str) -> dict[str, Any]:
    """Return a conversation of one message."""
    return {"messages": [{"role": "ROLE_USER", "parts": [{"text": text}]}]}


@pytest.mark.parametrize(
    ("request_json", "field"),
    [
        ({"pipeline": "limited", "query": "too long"}, "query"),
        ({"pipeline": "limited", "conversation": user("too long")}, "conversation.messages"),
        ({"pipeline": "limited", "query": "q", "inputs": {"llm": {"query": "too long"}}}, "inputs.llm.query"),
        ({"pipeline": "finding", "query": "q", "inputs": {"retriever": {"filters": {}}}}, "inputs.retriever.filters"),
        ({"pipeline": "finding", "query": "q", "generationKwargs": {"service_tier": "priority"}}, "generation_kwargs"),
        (
            {"pipeline": "finding", "query": "q", "inputs": {"llm": {"generation_kwargs": {"n": 5}}}},
            "inputs.llm.generation_kwargs",
        ),
    ],
)
async def test_no_way_leads_around_a_limit(
    limited: Served, stage: Stage, request_json: dict[str, Any], field: str
) -> None:
    """Neither as the question, nor in a conversation, nor by another field for the same."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(limited.stub.Chat(json_format.ParseDict(request_json, chat_pb2.ChatRequest())))
    assert list(complaint_of(caught.value).fields) == [field]
    assert stage.received == []


async def test_what_is_within_the_limits_goes_through(limited: Served, stage: Stage) -> None:
    """The limit is what it says it is."""
    request = {"pipeline": "limited", "query": "short"}
    await all_events(limited.stub.Chat(json_format.ParseDict(request, chat_pb2.ChatRequest())))
    assert [received["query"] for received in stage.received] == ["short"]


async def test_a_conversation_goes_to_lists_of_messages_in_either_spelling(limited: Served) -> None:
    """Components of older generations have `typing.List`."""
    request = {"pipeline": "old", "conversation": user("hello"), "includeOutputsFrom": ["llm"]}
    events = await all_events(limited.stub.Chat(json_format.ParseDict(request, chat_pb2.ChatRequest())))
    assert "hello" in str(events[-1].finished.outputs)
    assert text_of(events) == ""
