"""Providers as they are on a bad day: slow, gone, cut off, full, broken or talking rubbish; and on a good one."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import grpc.aio
import pytest
import structlog
from llmock.pytest_plugin import LLMock

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, kinds_of, text_of
from tests.conftest import SHIPPED, served
from tests.providers import provider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.calls import Complaint
    from tests.conftest import Served

ASK = chat_pb2.ChatRequest(query="q")

THREADED = '''
from haystack import Pipeline, component
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, StreamingCallbackT


@component
class ThreadedOpenAI:
    """OpenAI's generator for those who only know threads."""

    def __init__(self):
        self.generator = OpenAIChatGenerator()

    def close(self):
        self.generator.close()

    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback: StreamingCallbackT | None = None):
        return self.generator.run([ChatMessage.from_user(query)], streaming_callback=streaming_callback)


def build():
    pipeline = Pipeline()
    pipeline.add_component("llm", ThreadedOpenAI())
    return pipeline
'''

AGENT = """
from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from tests.fakes import sunny, weather_tool


def build():
    return Agent(chat_generator=OpenAIChatGenerator(), tools=[weather_tool(sunny)])
"""


@pytest.fixture(params=["async", "threaded", "agent"])
def openai_folder(
    request: pytest.FixtureRequest, tmp_path: Path, llmock: LLMock, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """OpenAI's generator on the loop, in a thread and in an Agent, in front of a provider that is asked once."""
    monkeypatch.setenv("OPENAI_MAX_RETRIES", "0")
    llmock.tool_mode("off")
    source = {"async": (SHIPPED / "openai.py").read_text(), "threaded": THREADED, "agent": AGENT}
    (tmp_path / f"{request.param}.py").write_text(source[request.param])
    return tmp_path


def rate_limit(mock: LLMock) -> None:
    """Have no room for three seconds."""
    mock.rate_limit(retry_after=3)


def outage(mock: LLMock) -> None:
    """Break down."""
    mock.fail(500)


def wrong_key(mock: LLMock) -> None:
    """Refuse the key."""
    mock.fail(401)


def cut(mock: LLMock) -> None:
    """Break the connection in the middle."""
    mock.disconnect(after_chunks=4)


def rubbish(mock: LLMock) -> None:
    """Send what is not JSON in the middle."""
    mock.corrupt(after_chunks=4)


async def complaint_about(running: Served, timeout_seconds: float | None = None) -> tuple[Complaint, str]:
    """Ask, and return how it failed and what was said before."""
    events: list[chat_pb2.Event] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for response in running.stub.Chat(ASK, timeout=timeout_seconds):
            events.append(response.event)  # noqa: PERF401 - those before the error are wanted
    return complaint_of(caught.value), text_of(events)


async def test_it_answers_and_tells_what_that_cost(openai_folder: Path, llmock: LLMock) -> None:
    """Usage included where OpenAI gives it only on request."""
    llmock.reply("Forty-two, they say.")
    async with served(openai_folder) as running:
        events = await all_events(running.stub.Chat(ASK))
    assert text_of(events) == "Forty-two, they say."
    assert events[-1].finished.reason == chat_pb2.FINISH_REASON_STOP
    if (openai_folder / "threaded.py").exists():
        return  # a class of the operator's own, which may refuse settings: it is not asked
    assert llmock.last_request.body["stream_options"] == {"include_usage": True}
    [usage] = events[-1].finished.usage
    assert usage.completion_tokens > 0


async def test_a_stream_that_ends_early_does_not_look_complete(openai_folder: Path, llmock: LLMock) -> None:
    """Haystack takes it for a whole answer; the reason says otherwise."""
    llmock.reply("one two three four five six").truncate(after_chunks=3)
    async with served(openai_folder) as running:
        events = await all_events(running.stub.Chat(ASK))
    assert events[-1].finished.reason == chat_pb2.FINISH_REASON_INCOMPLETE
    assert text_of(events) != "one two three four five six"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (rate_limit, ("RESOURCE_EXHAUSTED", "PROVIDER_BUSY", 3)),
        (outage, ("UNAVAILABLE", "PROVIDER_UNAVAILABLE", 1)),
        (wrong_key, ("FAILED_PRECONDITION", "PROVIDER_AUTH", None)),
        (LLMock.context_overflow, ("INVALID_ARGUMENT", "PROVIDER_REJECTED", None)),
    ],
)
async def test_a_refusal_is_typed(
    openai_folder: Path, llmock: LLMock, fault: Callable[[LLMock], object], expected: tuple[str, str, float | None]
) -> None:
    """As raised by the openai package and wrapped by Haystack."""
    fault(llmock)
    async with served(openai_folder) as running:
        complaint, text = await complaint_about(running)
    assert (complaint.code, complaint.reason, complaint.retry_seconds) == expected
    assert complaint.metadata["component"] in {"llm", "agent"}
    assert text == ""


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (cut, ("UNAVAILABLE", "PROVIDER_UNAVAILABLE", 1)),
        (rubbish, ("INTERNAL", "COMPONENT_FAILED", None)),
    ],
)
async def test_a_fault_in_the_middle_is_typed_after_what_was_said(
    openai_folder: Path, llmock: LLMock, fault: Callable[[LLMock], object], expected: tuple[str, str, float | None]
) -> None:
    """A connection that breaks, and a chunk that is rubbish."""
    llmock.reply("one two three four five six")
    fault(llmock)
    async with served(openai_folder) as running:
        complaint, text = await complaint_about(running)
    assert (complaint.code, complaint.reason, complaint.retry_seconds) == expected
    assert "one two three four five six".startswith(text)
    assert text


async def test_nobody_listens_where_the_provider_should_be(
    openai_folder: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """Waiting helps, perhaps; the address stays inside."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{unused_tcp_port}/v1")
    async with served(openai_folder) as running:
        complaint, _ = await complaint_about(running)
    assert (complaint.code, complaint.reason) == ("UNAVAILABLE", "PROVIDER_UNAVAILABLE")
    assert str(unused_tcp_port) not in complaint.message


async def test_a_provider_that_stalls_is_left_when_the_caller_leaves(
    openai_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the loop its socket is closed at once, in the middle of the silence; in a thread at its next chunk."""
    async with provider() as running_provider:
        monkeypatch.setenv("OPENAI_BASE_URL", running_provider.base_url)
        async with served(openai_folder) as running:
            call = running.stub.Chat(ASK)
            reader = aiter(call)
            while (await anext(reader)).event.text.delta != "word ":
                pass
            call.cancel()
            if (openai_folder / "threaded.py").exists():
                await running.runs.until_idle()
                assert running.service.threads.orphans == 1
                assert not running_provider.left.is_set()
                running_provider.next_word.release()
            async with asyncio.timeout(5):
                await running_provider.left.wait()


async def test_a_provider_that_stalls_is_left_when_the_deadline_is_over(
    openai_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's own as well as the caller's."""
    async with provider() as running_provider:
        monkeypatch.setenv("OPENAI_BASE_URL", running_provider.base_url)
        async with served(openai_folder, max_run_seconds=0.5) as running:
            complaint, text = await complaint_about(running)
            running_provider.next_word.release()
            async with asyncio.timeout(5):
                await running_provider.left.wait()
    assert (complaint.code, complaint.reason, text) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "word ")


async def test_an_agent_calls_its_tools(tmp_path: Path, llmock: LLMock) -> None:
    """As OpenAI's models ask for them, and the usage is that of both turns."""
    (tmp_path / "agent.py").write_text(AGENT)
    llmock.tool_mode("off").call_tool("weather", {"city": "Rome"}).reply("It is sunny.")
    async with served(tmp_path) as running:
        events = await all_events(running.stub.Chat(ASK))
    calls = [event.tool_call for event in events if event.HasField("tool_call")]
    assert json.loads("".join(call.arguments_delta for call in calls)) == {"city": "Rome"}
    assert [event.tool_result.result for event in events if event.HasField("tool_result")] == ["Sunny in Rome"]
    assert text_of(events) == "It is sunny."
    assert kinds_of(events).count("finished") == 1
    assert len(llmock.requests) == 2
    asked = [request.body["stream_options"] for request in llmock.requests]
    assert asked == [{"include_usage": True}] * 2


@pytest.mark.parametrize("whose", ["caller", "service"])
async def test_it_runs_on_the_callers_key_or_on_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """The key that the provider sees is the caller's where the caller brings one."""
    (tmp_path / "openai.py").write_text((SHIPPED / "openai.py").read_text())
    if whose == "caller":
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    else:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-service")
    async with provider() as running_provider:
        monkeypatch.setenv("OPENAI_BASE_URL", running_provider.base_url)
        async with served(tmp_path) as running:
            call = running.stub.Chat(chat_pb2.ChatRequest(query="q", api_key="sk-caller" if whose == "caller" else ""))
            await anext(aiter(call))
            await running_provider.asked.wait()
            call.cancel()
            await running_provider.left.wait()
    assert len(running_provider.requests) == 1
    assert f"\r\nauthorization: bearer sk-{whose}\r\n" in running_provider.requests[0].lower()


async def test_a_key_that_the_provider_repeats_reaches_neither_caller_nor_log(tmp_path: Path, llmock: LLMock) -> None:
    """Not the one that looks like a key, nor one that only its caller knows for one; the rest of the story is there."""
    (tmp_path / "openai.py").write_text((SHIPPED / "openai.py").read_text())
    key = "plain-looking-key"
    llmock.fail(401, message=f"Incorrect API key provided: {key}, or sk-abcdefghijkl")
    request = chat_pb2.ChatRequest(query="q", api_key=key)
    async with served(tmp_path) as running:
        with structlog.testing.capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(request))
    said = json.dumps([*lines, repr(caught.value), str(caught.value.trailing_metadata())], default=repr)
    assert key not in said
    assert "sk-abc" not in said
    [line] = [line for line in lines if line["event"] == "run failed"]
    assert "AuthenticationError" in line["exception"]
    assert "Incorrect" not in line["exception"]  # nor any of the provider's words, which may quote the question
    assert line["run_id"] == complaint_of(caught.value).metadata["run_id"]
