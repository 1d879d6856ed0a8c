"""Keys that callers bring, on every generation of Haystack."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of
from tests.conftest import served
from tests.generations.conversation import ASK, folder_of, leave, read_until
from tests.generations.installed import GENERATION, Kind

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Served
    from tests.providers import Provider

pytestmark = [pytest.mark.filterwarnings(warning) for warning in GENERATION.warnings]


async def test_a_callers_key_reaches_the_provider_and_builds_once(chatting: Served, talking: Provider) -> None:
    """A second call with the key runs on what the first one's was built with; one without on the service's key."""
    mine = chat_pb2.ChatRequest(query="Why?", api_key="sk-caller")
    calls = [chatting.stub.Chat(mine)]
    await read_until(calls[0], "word ")
    built = _models()
    calls.append(chatting.stub.Chat(mine))
    await read_until(calls[1], "word ")
    assert [model for model in _models() if not any(model is known for known in built)] == []
    calls.append(chatting.stub.Chat(chat_pb2.ChatRequest(query="Why?")))
    await read_until(calls[2], "word ")
    assert [_key_of(request) for request in talking.requests] == ["sk-caller", "sk-caller", "sk-service"]
    await leave(chatting, talking, *calls)


async def test_without_a_key_each_caller_brings_one(
    talking: Provider, speaker: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A component that wants its key when it is made is no reason not to serve; who brings none is told so."""
    monkeypatch.delenv("OPENAI_API_KEY")
    async with served(folder_of(speaker, tmp_path)) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(ASK))
        complaint = complaint_of(caught.value)
        assert (complaint.code, complaint.reason) == ("FAILED_PRECONDITION", "API_KEY_REQUIRED")
        call = running.stub.Chat(chat_pb2.ChatRequest(query="Why?", api_key="sk-caller"))
        await read_until(call, "word ")
        assert [_key_of(request) for request in talking.requests] == ["sk-caller"]
        await leave(running, talking, call)


def _models() -> list[object]:
    """Return all of OpenAI's generators that there are."""
    return [thing for thing in gc.get_objects() if type(thing).__name__ in {"OpenAIGenerator", "OpenAIChatGenerator"}]


def _key_of(request: str) -> str:
    [line] = [line for line in request.split("\r\n") if line.lower().startswith("authorization: ")]
    return line.rpartition(" ")[2]
