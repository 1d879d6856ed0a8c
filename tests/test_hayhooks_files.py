"""Wrappers made for hayhooks serve unchanged: through their `setup` and their chat completion."""

from __future__ import annotations

import asyncio
import gc
import re
from importlib.metadata import distribution
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import served
from tests.providers import provider
from tests.test_pipelines import listed
from tests.test_yaml_pipelines import answer_of, asking, described, prompted, written

if TYPE_CHECKING:
    from pathlib import Path

    from llmock.pytest_plugin import LLMock

    from tests.fakes import Stage


def wrapper(body: str, *, head: str = "", setup: str = "self.pipeline = None") -> str:
    """Return a wrapper's file."""
    return f"""
from pathlib import Path
from haystack import Pipeline, component
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage, StreamingChunk
from hayhooks import (
    BasePipelineWrapper, async_streaming_generator, get_last_user_message, log, streaming_generator
)
{head}

class PipelineWrapper(BasePipelineWrapper):
    def setup(self) -> None:
        {setup}

    def run_api(self, question: str) -> str:
        return question

    {body}
"""


LOADS_YAML = 'self.pipeline = Pipeline.loads((Path(__file__).parent / "pipeline.yml").read_text())'

SYNC = wrapper(
    """
    def run_chat_completion(self, model: str, messages: list[dict], body: dict):
        log.trace("Running pipeline with model: {}, messages: {}, body: {}", model, messages, body)
        question = get_last_user_message(messages)
        return streaming_generator(pipeline=self.pipeline, pipeline_run_args={"prompt_builder": {"query": question}})
""",
    setup=LOADS_YAML,
)

ASYNC = wrapper(
    """
    async def run_chat_completion_async(self, model: str, messages: list[dict], body: dict):
        question = get_last_user_message(messages)
        return async_streaming_generator(
            pipeline=self.pipeline, pipeline_run_args={"prompt_builder": {"query": question}}
        )
""",
    setup=LOADS_YAML,
)

HYBRID = wrapper(
    """
    async def run_chat_completion_async(self, model: str, messages: list[dict], body: dict):
        return async_streaming_generator(
            pipeline=self.pipeline,
            pipeline_run_args={"llm": {"query": get_last_user_message(messages)}},
            allow_sync_streaming_callbacks=True,
        )
""",
    head="""
@component
class SyncOnly:
    @component.output_types(replies=list[str])
    def run(self, query: str, streaming_callback=None):
        for word in ["You", "asked:", query]:
            streaming_callback(StreamingChunk(content=word + " "))
        return {"replies": [query]}
""",
    setup='self.pipeline = Pipeline(); self.pipeline.add_component("llm", SyncOnly())',
)

BEE = prompted("Bees: {{ query }}")

# A wrapper, and what it says when it is asked "why".
WRAPPERS = {
    "sync": (SYNC, "Bees: why"),
    "async": (ASYNC, "Bees: why"),
    "hybrid": (HYBRID, "You asked: why "),
    "text": (wrapper("def run_chat_completion(self, model, messages, body): return 'plain'"), "plain"),
    "text_async": (
        wrapper("async def run_chat_completion_async(self, model, messages, body): return 'plain'"),
        "plain",
    ),
    "yields_text": (
        wrapper("def run_chat_completion(self, model, messages, body): yield from ['a ', messages[-1]['content']]"),
        "a why",
    ),
    "yields_text_async": (
        wrapper(
            """
    async def run_chat_completion_async(self, model, messages, body):
        for word in ["a ", model]:
            yield word
"""
        ),
        "a yields_text_async",
    ),
    "yields_chunks": (
        wrapper(
            """
    def run_chat_completion(self, model, messages, body):
        return (StreamingChunk(content=word) for word in ["a ", "b"])
"""
        ),
        "a b",
    ),
    "yields_events": (
        wrapper(
            """
    def run_chat_completion(self, model, messages, body):
        yield {"type": "status", "data": {"description": "for Open WebUI"}}
        yield "said"
"""
        ),
        "said",
    ),
    "both": (
        wrapper(
            """
    def run_chat_completion(self, model, messages, body):
        return "blocks"

    async def run_chat_completion_async(self, model, messages, body):
        return "does not block"
"""
        ),
        "does not block",
    ),
    "relative_imports": (
        wrapper(
            "def run_chat_completion(self, model, messages, body): return f'{kind(model)} {MANNER}'",
            head="from . import MANNER\nfrom .parts.words import kind",
        ),
        "relative_imports, please kindly",
    ),
}

BESIDE = {
    "sync/pipeline.yml": BEE,
    "async/pipeline.yml": BEE,
    "relative_imports/__init__.py": "MANNER = 'kindly'\n",
    "relative_imports/parts/words.py": "def kind(text):\n    return f'{text}, please'\n",
    "single.py": wrapper("def run_chat_completion(self, model, messages, body): return model"),
}


async def test_a_wrapper_streams_what_its_chat_completion_returns_or_yields(tmp_path: Path) -> None:
    """Chunks or text, from hayhooks' generators or its own; with the files and modules that lie beside it."""
    wrappers = {f"{name}/pipeline_wrapper.py": text for name, (text, _) in WRAPPERS.items()}
    async with served(written(tmp_path, {**wrappers, **BESIDE})) as running:
        errors = {name: pipeline.error for name, pipeline in (await listed(running)).items() if pipeline.error}
        assert errors == {}
        said = {name: await answer_of(running, name, "why") for name in (*WRAPPERS, "single")}
        seen = {name: (await described(running, name)).cancellation for name in ("sync", "async", "both")}
    assert said == {**{name: expected for name, (_, expected) in WRAPPERS.items()}, "single": "single"}
    assert seen == {
        "sync": chat_pb2.CANCELLATION_NEXT_CHUNK,
        "async": chat_pb2.CANCELLATION_IMMEDIATE,
        "both": chat_pb2.CANCELLATION_IMMEDIATE,
    }


async def test_the_wrapper_in_hayhooks_own_readme_is_served(tmp_path: Path, llmock: LLMock) -> None:
    """Copied from the documentation of the release that is installed: an Agent that calls a tool and answers."""
    readme = distribution("hayhooks").read_text("METADATA") or ""
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    [example] = [block for block in blocks if "run_chat_completion" in block]
    llmock.tool_mode("off").call_tool("weather_tool", {"location": "Rome"}).reply("It is sunny in Rome.")
    written(tmp_path, {"my_agent/pipeline_wrapper.py": example})
    async with served(tmp_path) as running:
        events = await all_events(running.stub.Chat(asking("How is the weather in Rome?")))
    gc.collect()  # what its Agent holds is closed by now, or warns
    assert text_of(events) == "It is sunny in Rome."
    assert [event.tool_result.result for event in events if event.HasField("tool_result")] == [
        "The weather in Rome is sunny."
    ]
    assert events[-1].finished.reason == chat_pb2.FINISH_REASON_STOP


BLOCKING = wrapper(
    """
    async def run_chat_completion_async(self, model, messages, body):
        return self.blocking()

    def blocking(self):
        yield "a "
        stage().waiting.set()
        stage().proceed.wait_in_thread()
        yield "b"
""",
    head="from tests.fakes import stage",
)


async def test_an_async_chat_completion_may_return_what_blocks(tmp_path: Path, stage: Stage) -> None:
    """As it may in hayhooks: others are answered meanwhile."""
    async with served(written(tmp_path, {"mine/pipeline_wrapper.py": BLOCKING})) as running:
        reading = asyncio.create_task(answer_of(running, "mine"))
        await stage.waiting.wait()
        assert (await listed(running))["mine"].ready
        stage.proceed.set()
        assert await reading == "a b"


RECORDING = wrapper(
    """
    def run_chat_completion(self, model, messages, body):
        stage().received.append({"model": model, "messages": messages, "body": body})
        return "heard"
""",
    head="from tests.fakes import stage",
)


async def test_a_wrapper_gets_what_an_openai_client_would_send(tmp_path: Path, stage: Stage) -> None:
    """Its own name as the model, the conversation in OpenAI's form, and the settings of the generation."""
    conversation = {
        "messages": [
            {"role": "ROLE_SYSTEM", "parts": [{"text": "Be kind."}]},
            {"role": "ROLE_USER", "parts": [{"text": "How is Rome?"}]},
            {"role": "ROLE_ASSISTANT", "tool_calls": [{"id": "1", "name": "weather", "arguments": {"city": "Rome"}}]},
            {"role": "ROLE_TOOL", "tool_results": [{"id": "1", "name": "weather", "result": "Sunny"}]},
        ]
    }
    request: dict[str, Any] = {"conversation": conversation, "generation_kwargs": {"temperature": 0.5}}
    async with served(written(tmp_path, {"mine/pipeline_wrapper.py": RECORDING})) as running:
        assert text_of(await all_events(running.stub.Chat(chat_pb2.ChatRequest(**request)))) == "heard"
    [received] = stage.received
    assert received["model"] == "mine"
    assert received["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "How is Rome?"},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "Sunny"},
    ]
    assert received["body"] == {
        "model": "mine",
        "messages": received["messages"],
        "temperature": 0.5,
        "stream": True,
    }


OPENAI = prompted("{{ query }}").replace(
    "haystack.components.generators.chat.mock.MockChatGenerator",
    "haystack.components.generators.chat.openai.OpenAIChatGenerator",
)


@pytest.mark.parametrize("name", ["sync", "async"])
async def test_a_provider_that_fails_behind_a_wrapper_is_typed(tmp_path: Path, llmock: LLMock, name: str) -> None:
    """As it is behind a pipeline; the provider's words stay inside."""
    llmock.rate_limit(times=None, retry_after=0.01)
    files = {"pipeline_wrapper.py": {"sync": SYNC, "async": ASYNC}[name], "pipeline.yml": OPENAI}
    written(tmp_path / "mine", files)
    async with served(tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer_of(running, "mine")
    complaint = complaint_of(caught.value)
    assert (complaint.code, complaint.reason) == ("RESOURCE_EXHAUSTED", "PROVIDER_BUSY")
    assert complaint.metadata["component"] == "llm"


async def test_a_caller_who_leaves_ends_the_providers_stream_behind_an_async_wrapper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the answer, while the provider says nothing."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-service")
    written(tmp_path / "mine", {"pipeline_wrapper.py": ASYNC, "pipeline.yml": OPENAI})
    async with provider() as running_provider:
        monkeypatch.setenv("OPENAI_BASE_URL", running_provider.base_url)
        async with served(tmp_path) as running:
            call = running.stub.Chat(asking("q"))
            reader = aiter(call)
            while (await anext(reader)).event.text.delta != "word ":
                pass
            assert not running_provider.left.is_set()
            call.cancel()
            async with asyncio.timeout(5):
                await running_provider.left.wait()
            await running.runs.until_idle()


async def test_a_wrapper_that_cannot_chat_is_refused_with_the_method_to_give_it(tmp_path: Path) -> None:
    """One with `run_api` alone has no conversation to stream."""
    async with served(
        written(tmp_path, {"api/pipeline_wrapper.py": wrapper(""), "good.yaml": prompted("{{ query }}")})
    ) as running:
        pipelines = await listed(running)
    assert pipelines["good"].ready
    assert pipelines["api"].error == (
        "api: the PipelineWrapper cannot chat: give it `run_chat_completion` or `run_chat_completion_async`"
    )
