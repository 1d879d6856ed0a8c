"""The caller's own key: built once, kept for the next call, closed on the way out, and shown nowhere."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.logs import Secrets
from haystream_service.pipelines.keyed import KeyedPipelines
from haystream_service.pipelines.sharing import COLLECT_AFTER, Closings
from tests.calls import all_events, complaint_of, text_of
from tests.clock import clocked
from tests.conftest import served
from tests.fakes import Gate
from tests.processes import address_of, started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.conftest import Served
    from tests.fakes import Stage

KEY = "a-key-of-a-caller-that-looks-like-none"

COUNTING = '''
"""Counts what becomes of it."""

from haystack import Pipeline

from tests.fakes import AsyncFake, pipeline_of
from tests.test_caller_keys import Counter

def build(api_key=None) -> Pipeline:
    return pipeline_of(Counter.of(AsyncFake(), api_key))
'''


class Counter:
    """How often a pipeline was built, and which of them are closed, by their key."""

    built: list[str] = []  # noqa: RUF012 - the pipeline's file and the test share it
    closed: list[str] = []  # noqa: RUF012 - as above

    @classmethod
    def of(cls, component: Any, api_key: Any) -> Any:
        """Count a component."""
        key = api_key.resolve_value() if api_key is not None else ""
        cls.built.append(key)
        component.close = lambda: cls.closed.append(key)
        return component


@pytest.fixture
async def counting(tmp_path: Path, stage: Stage) -> AsyncIterator[Served]:
    """A service whose pipeline counts, and answers at once; two keys are kept."""
    Counter.built.clear()
    Counter.closed.clear()
    stage.proceed.set()
    stage.chunks = 1
    (tmp_path / "counting.py").write_text(COUNTING)
    async with served(tmp_path, keyed_pipelines=2) as running:
        yield running


async def ask(running: Served, key: str) -> None:
    """Ask with a key, and read the answer."""
    assert text_of(await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", api_key=key)))) == "word "


async def test_the_second_call_with_a_key_builds_nothing(counting: Served) -> None:
    """It costs no more than a call on the service's own key."""
    for key in ("", "one", "one", "", "two", "one"):
        await ask(counting, key)
    assert Counter.built == ["", "one", "two"]
    assert Counter.closed == []


async def test_concurrent_first_calls_build_once(counting: Served) -> None:
    """However many of a key's callers come at once."""
    await asyncio.gather(*(ask(counting, "one") for _ in range(20)))
    assert Counter.built == ["", "one"]


async def test_the_key_that_was_used_longest_ago_loses_its_place_and_is_closed(counting: Served) -> None:
    """Of a thousand keys only so many pipelines stay; each is closed on its way out, and all are at the end."""
    for key in ("one", "two", "one", "three", "one"):
        await ask(counting, key)
    assert Counter.built == ["", "one", "two", "three"]
    assert Counter.closed == ["two"]
    assert len(counting.service.keyed) == 2


async def test_a_pipeline_that_loses_its_place_is_closed_after_the_runs_that_it_has(
    counting: Served, stage: Stage
) -> None:
    """Not under them."""
    stage.proceed = Gate()
    readers: list[AsyncIterator[chat_pb2.ChatResponse]] = []
    for key in ("one", "two", "three"):
        readers.append(aiter(counting.stub.Chat(chat_pb2.ChatRequest(query="q", api_key=key))))
        while not (await anext(readers[-1])).event.HasField("text"):
            pass
    assert len(counting.service.keyed) == 2
    assert Counter.closed == []
    stage.proceed.set()
    for reader in readers:
        assert [response.event.WhichOneof("kind") async for response in reader] == ["finished"]
    await counting.runs.until_idle()
    assert Counter.closed == ["one"]


async def test_all_pipelines_are_closed_when_the_service_stops(tmp_path: Path, stage: Stage) -> None:
    """Those for callers' keys among them."""
    Counter.closed.clear()
    stage.proceed.set()
    stage.chunks = 1
    (tmp_path / "counting.py").write_text(COUNTING)
    async with served(tmp_path) as running:
        await ask(running, "one")
    assert sorted(Counter.closed) == ["", "one"]


async def at_once(function: Callable[..., Any], *arguments: object) -> Any:
    """Do what would be done in a thread."""
    return function(*arguments)


class Closable:
    """A pipeline of one component that can be closed."""

    def __init__(self) -> None:
        self.closings = 0
        self.itself: object = None

    def walk(self) -> list[tuple[str, Closable]]:
        return [("it", self)]

    def close(self) -> None:
        self.closings += 1


def test_a_pipeline_whose_key_is_not_used_is_closed_after_its_time() -> None:
    """Each call begins the time anew, and nothing waits for a pipeline that has gone before."""
    hidden = Secrets()
    with clocked() as loop:
        closings = Closings(at_once, structlog.get_logger())
        keyed = KeyedPipelines(10, 60, closings, hidden)
        mine, owner = Closable(), object()

        async def build() -> Closable:
            return mine

        async def use() -> None:
            async with keyed.shared(owner, KEY, build).lent() as pipeline:
                assert pipeline is mine

        async def use_for(seconds: float) -> None:
            async with keyed.shared(owner, KEY, build).lent():
                await loop.later(seconds)

        loop.run_until_complete(use())
        loop.turn(50)
        loop.run_until_complete(use_for(55))  # from its end on the time goes anew
        loop.turn(50)
        assert mine.closings == 0
        assert list(hidden) == [KEY]
        loop.turn(11)
        assert mine.closings == 1
        assert len(keyed) == 0
        assert list(hidden) == []


def test_what_has_lost_its_place_is_held_by_nothing() -> None:
    """Or a thousand keys would hold a thousand pipelines until their time is over."""
    with clocked() as loop:
        keyed = KeyedPipelines(1, 60, Closings(at_once, structlog.get_logger()), Secrets())
        built: list[weakref.ref[Closable]] = []

        async def build() -> Closable:
            pipeline = Closable()
            built.append(weakref.ref(pipeline))
            return pipeline

        async def use(key: str) -> None:
            async with keyed.shared(built, key, build).lent():
                pass

        for key in ("one", "two"):
            loop.run_until_complete(use(key))
        loop.turn()
        gc.collect()
        assert [pipeline() is None for pipeline in built] == [True, False]


def test_closed_pipelines_are_freed_though_their_clients_are_cycles() -> None:
    """They are few and large: Python would wait for far more of them."""
    with clocked() as loop:
        keyed = KeyedPipelines(1, 60, Closings(at_once, structlog.get_logger()), Secrets())
        built: list[weakref.ref[Closable]] = []

        async def build() -> Closable:
            pipeline = Closable()
            pipeline.itself = pipeline
            built.append(weakref.ref(pipeline))
            return pipeline

        async def use(key: str) -> None:
            async with keyed.shared(built, key, build).lent():
                pass

        gc.disable()
        try:
            for number in range(COLLECT_AFTER + 1):
                loop.run_until_complete(use(str(number)))
            loop.turn()
        finally:
            gc.enable()
        assert [pipeline() is None for pipeline in built] == [True] * COLLECT_AFTER + [False]


def test_a_build_that_failed_is_not_kept() -> None:
    """The next call with the key tries again; who waited for the first all learn of it."""
    with clocked() as loop:
        keyed = KeyedPipelines(10, 60, Closings(at_once, structlog.get_logger()), Secrets())
        attempts: list[int] = []

        async def build() -> Closable:
            attempts.append(1)
            raise ValueError

        async def use() -> None:
            with pytest.raises(ValueError, match=r"^$"):
                await keyed.shared(keyed, KEY, build).lent().__aenter__()

        async def together() -> None:
            await asyncio.gather(use(), use())

        loop.run_until_complete(together())
        loop.run_until_complete(use())
        assert len(attempts) == 2
        assert len(keyed) == 0


ASKED = [(KEY, "q"), (KEY, "fail"), (f"{KEY}-unfit", "q"), ("another-key", "q")]
REFUSED = """
from tests.fakes import AsyncFake, pipeline_of


class Refused(Exception):
    status_code = 401


def build(api_key=None):
    if api_key:
        raise Refused
    return pipeline_of(AsyncFake())
"""


async def test_a_provider_that_refuses_a_key_while_the_pipeline_is_built_is_told_as_ever(tmp_path: Path) -> None:
    """Some look at their key when they are made."""
    (tmp_path / "it.py").write_text(REFUSED)
    async with served(tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", api_key=KEY)))
    assert complaint_of(caught.value).reason == "PROVIDER_AUTH"


TELLTALE = """
import logging
from haystack import Pipeline, component
from haystack.dataclasses import ChatMessage, StreamingChunk


@component
class Telltale:
    \"\"\"Says its key wherever it can, but for the answer.\"\"\"

    def __init__(self, key):
        self.key = key

    @component.output_types(replies=list[ChatMessage])
    async def run_async(self, query: str, streaming_callback=None):
        logging.getLogger("telltale").warning("my key is %s", self.key)
        if query == "fail":
            raise ValueError(f"{self.key} is no good", {"key": self.key})
        return {"replies": [ChatMessage.from_assistant("word", meta={"finish_reason": "stop"})]}

    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback=None):
        raise NotImplementedError

    def close(self):
        raise ValueError(f"{self.key} does not close")


def build(api_key=None):
    key = api_key.resolve_value() if api_key else "none"
    if key.endswith("-unfit"):
        raise ValueError(f"{key} is not fit")
    pipeline = Pipeline()
    pipeline.add_component("llm", Telltale(key))
    return pipeline
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_the_key_is_shown_nowhere(tmp_path: Path, log_format: str) -> None:
    """Not in a log, an answer, an error or a file, though the provider, the component and its builder all tell it."""
    (tmp_path / "telltale.py").write_text(TELLTALE)
    settings = {
        "HAYSTREAM_PIPELINES": str(tmp_path),
        "HAYSTREAM_LOG_LEVEL": "debug",
        "HAYSTREAM_LOG_FORMAT": log_format,
        "HAYSTREAM_KEYED_PIPELINES": "1",
        "HAYSTACK_PIPELINE_SNAPSHOT_SAVE_ENABLED": "true",
        "HOME": str(tmp_path),
    }
    seen: list[str] = []
    async with started("haystream_service", **settings) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            await until_ready(channel)
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            for number, (key, query) in enumerate(ASKED):
                request = chat_pb2.ChatRequest(query=query, api_key=key, run_id=f"r{number}")
                seen.append(await all_that_is_said(stub.Chat(request)))
                seen.append(await all_that_is_said(stub.Resume(chat_pb2.ResumeRequest(run_id=f"r{number}"))))
            seen.append(str(await stub.ListPipelines(chat_pb2.ListPipelinesRequest())))
        process.terminate()
        output, log = await process.communicate()
    seen += [output.decode(), log.decode()]
    seen += await asyncio.to_thread(texts_below, tmp_path)
    assert not [text for text in seen if KEY in text]
    assert "word" in seen[0]
    assert "COMPONENT_FAILED" in seen[2]
    assert "PIPELINE_BUILD_FAILED" in seen[4]
    assert log.decode().count("[redacted]") >= 4


def texts_below(folder: Path) -> list[str]:
    """Return what all files of a folder say."""
    return [file.read_text() for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"]


async def all_that_is_said(call: Any) -> str:
    """Return what a stream brings, its error with all its details among it."""
    try:
        return str([str(response) async for response in call])
    except grpc.aio.AioRpcError as error:
        return f"{error!r} {error.trailing_metadata()} {complaint_of(error)}"


async def until_ready(channel: grpc.aio.Channel) -> None:
    """Wait until the pipelines are warm."""
    request = health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
    async for answer in health_pb2_grpc.HealthStub(channel).Watch(request):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return
