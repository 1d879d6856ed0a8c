"""Change without a restart: what is in the folder now is what new runs get, and no run notices."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import served
from tests.processes import address_of, started
from tests.test_caller_keys import until_ready

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import Served
    from tests.fakes import Stage

# Says its version, and then does what the stage says.
VERSIONED = '''
"""Version {version}."""

from haystack import component
from haystack.dataclasses import ChatMessage, StreamingCallbackT, StreamingChunk
from tests.fakes import pipeline_of, speak, tell


@component
class Versioned:
    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback: StreamingCallbackT | None = None):
        raise NotImplementedError

    @component.output_types(replies=list[ChatMessage])
    async def run_async(self, query: str, streaming_callback: StreamingCallbackT | None = None):
        await tell(streaming_callback, StreamingChunk(content="version {version} "))
        return await speak(streaming_callback)


def build():
    return pipeline_of(Versioned())
'''

SAYS = """
from haystack import component
from haystack.dataclasses import ChatMessage, StreamingChunk
from tests.fakes import pipeline_of
from tests.test_changing_files import closed


@component
class Says:
    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback=None):
        streaming_callback(StreamingChunk(content="{said}"))
        return {{"replies": [ChatMessage.from_assistant("{said}", meta={{"finish_reason": "stop"}})]}}

    def close(self):
        closed.put_nowait("{said}")


def build():
    return pipeline_of(Says())
"""

BROKEN = "def build() -> 'it':\n    raise ValueError('hunter2')\n"

closed: asyncio.Queue[str] = asyncio.Queue()


async def version_of(running: Served, pipeline: str = "it") -> str:
    """Ask, and return the first word."""
    return text_of(await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline=pipeline)))).strip()


async def listed(running: Served) -> dict[str, chat_pb2.Pipeline]:
    """Return the pipelines by name."""
    response = await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
    return {pipeline.name: pipeline for pipeline in response.pipelines}


async def changed(running: Served) -> None:
    """Wait until the service has taken note of a change."""
    async with asyncio.timeout(10):
        await running.service.registry.changed.wait()


async def written(running: Served, file: Path, text: str) -> None:
    """Write a file, and wait until the service has taken note."""
    running.service.registry.changed.clear()
    replacement = file.with_suffix(".new")
    await asyncio.to_thread(replacement.write_text, text)
    await asyncio.to_thread(replacement.rename, file)
    await changed(running)


@pytest.fixture
async def says(tmp_path: Path) -> AsyncIterator[Served]:
    """A service with a pipeline that says `one`."""
    while not closed.empty():
        closed.get_nowait()
    (tmp_path / "it.py").write_text(SAYS.format(said="one"))
    async with served(tmp_path) as running:
        yield running


async def test_new_runs_get_the_changed_file_and_running_ones_finish_with_what_they_began(
    tmp_path: Path, stage: Stage
) -> None:
    """Under fifty open streams none is lost, and within two seconds a new run sees the new version."""
    stage.more = 1
    (tmp_path / "it.py").write_text(VERSIONED.format(version=1))
    async with served(tmp_path) as running:
        calls = [running.stub.Chat(chat_pb2.ChatRequest(query="q")) for _ in range(50)]
        readers = [aiter(call) for call in calls]
        for reader in readers:
            while not (await anext(reader)).event.HasField("text"):
                pass
        running.service.registry.changed.clear()
        async with asyncio.timeout(2):  # the promise
            (tmp_path / "it.py").write_text(VERSIONED.format(version=2))
            await running.service.registry.changed.wait()
            new = aiter(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
            while not (event := (await anext(new)).event).HasField("text"):
                pass
        assert event.text.delta == "version 2 "
        stage.proceed.set()
        for reader in readers:
            rest = [response.event async for response in reader]
            assert text_of(rest) == "word "
            assert rest[-1].HasField("finished")
        assert [response.event async for response in new][-1].HasField("finished")
        assert (await listed(running))["it"].description == "Version 2."


async def test_the_version_before_is_closed_once_nobody_uses_it(tmp_path: Path, says: Served) -> None:
    """Its connections and its models are not kept."""
    assert await version_of(says) == "one"
    await written(says, tmp_path / "it.py", SAYS.format(said="two"))
    assert await version_of(says) == "two"
    assert await asyncio.wait_for(closed.get(), 10) == "one"
    assert closed.empty()


async def test_a_file_that_comes_is_served_and_one_that_goes_is_not(tmp_path: Path, says: Served) -> None:
    """By the same names that the folder has."""
    await written(says, tmp_path / "more.py", SAYS.format(said="more"))
    assert await version_of(says, "more") == "more"
    says.service.registry.changed.clear()
    (tmp_path / "it.py").unlink()
    await changed(says)
    assert list(await listed(says)) == ["more"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await version_of(says)
    assert complaint_of(caught.value).reason == "PIPELINE_NOT_FOUND"


async def test_a_broken_file_leaves_the_version_before_serving_and_is_reported(tmp_path: Path, says: Served) -> None:
    """Its owner reads why, and callers notice nothing; mended, it is served."""
    await written(says, tmp_path / "it.py", BROKEN)
    pipeline = (await listed(says))["it"]
    assert pipeline.ready
    assert pipeline.error == (
        "it.py raised ValueError; the service's log has the details; the version before is still served"
    )
    assert await version_of(says) == "one"
    await written(says, tmp_path / "it.py", SAYS.format(said="two"))
    assert (await listed(says))["it"].error == ""
    assert await version_of(says) == "two"


async def test_a_second_file_of_the_same_name_leaves_the_first_serving_until_one_is_gone(
    tmp_path: Path, says: Served
) -> None:
    """Nobody guesses which of the two is meant."""
    await written(says, tmp_path / "it.yaml", "components: {}")
    pipeline = (await listed(says))["it"]
    assert pipeline.ready
    assert "it.py and it.yaml have the same name" in pipeline.error
    assert await version_of(says) == "one"
    says.service.registry.changed.clear()
    (tmp_path / "it.yaml").unlink()
    await changed(says)
    assert (await listed(says))["it"].error == ""


async def test_a_part_of_a_package_that_changes_changes_the_pipeline(tmp_path: Path) -> None:
    """Though the file that has `build` is the same."""
    package = tmp_path / "it"
    package.mkdir()
    (package / "__init__.py").write_text("from .parts.says import build\n")
    (package / "parts").mkdir()
    (package / "parts" / "says.py").write_text(SAYS.format(said="one"))
    async with served(tmp_path) as running:
        assert await version_of(running) == "one"
        await written(running, package / "parts" / "says.py", SAYS.format(said="two"))
        assert await version_of(running) == "two"


async def test_what_a_changed_file_hangs_in_holds_up_neither_callers_nor_other_files(
    tmp_path: Path, stage: Stage
) -> None:
    """It has its time to be built in, and is reported when that is over."""
    hanging = "from tests.fakes import stage\n\n\ndef build():\n    stage().proceed.wait_in_thread()\n"
    (tmp_path / "it.py").write_text(SAYS.format(said="one"))
    async with served(tmp_path, build_seconds=0.5) as running:
        await written(running, tmp_path / "it.py", hanging)
        assert "it is not built within 0.5 seconds" in (await listed(running))["it"].error
        assert await version_of(running) == "one"
        await written(running, tmp_path / "more.py", SAYS.format(said="more"))
        assert await version_of(running, "more") == "more"
        stage.proceed.set()


async def test_sighup_looks_at_once_and_tries_again_what_had_failed(tmp_path: Path) -> None:
    """Where the folder is not watched, or what a file needs has come in the meantime."""
    (tmp_path / "it.py").write_text(
        f"from pathlib import Path\nexec(Path({str(tmp_path / 'needed')!r}).read_text())\n"  # what a file may need
    )
    (tmp_path / "other.py").write_text(SAYS.format(said="other"))
    settings = {"HAYSTREAM_PIPELINES": str(tmp_path), "HAYSTREAM_WATCH_PIPELINES": "false"}
    async with started("haystream_service", **settings) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            await until_ready(channel)
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            before = await stub.ListPipelines(chat_pb2.ListPipelinesRequest())
            (tmp_path / "needed").write_text(SAYS.format(said="it"))
            process.send_signal(signal.SIGHUP)
            assert process.stderr is not None
            async for line in process.stderr:
                if b"pipeline ready" in line and b"pipeline=it" in line:
                    break
            after = await stub.ListPipelines(chat_pb2.ListPipelinesRequest())
        process.terminate()
        await process.communicate()
    assert [(pipeline.name, pipeline.ready) for pipeline in before.pipelines] == [("it", False), ("other", True)]
    assert [(pipeline.name, pipeline.ready) for pipeline in after.pipelines] == [("it", True), ("other", True)]
    assert process.returncode == 0


LATE = """
from haystack import component
from haystack.dataclasses import ChatMessage, StreamingChunk
from tests.fakes import pipeline_of, stage


@component
class Late:
    @component.output_types(replies=list[ChatMessage])
    async def run_async(self, query: str, streaming_callback=None):
        stage().waiting.set()
        await stage().proceed.wait()
        from .word import WORD
        await streaming_callback(StreamingChunk(content=WORD))
        return {"replies": [ChatMessage.from_assistant(WORD, meta={"finish_reason": "stop"})]}

    @component.output_types(replies=list[ChatMessage])
    def run(self, query: str, streaming_callback=None):
        raise NotImplementedError


def build():
    return pipeline_of(Late())
"""


async def test_a_broken_version_takes_nothing_from_the_one_that_goes_on(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the modules that it has yet to import; and a folder may be given as seen from where one stands."""
    (tmp_path / "pipelines" / "it").mkdir(parents=True)
    package = tmp_path / "pipelines" / "it"
    (package / "__init__.py").write_text(LATE)
    (package / "word.py").write_text("WORD = 'one'\n")
    monkeypatch.chdir(tmp_path)
    async with served("pipelines") as running:
        reading = asyncio.create_task(version_of(running))
        await stage.waiting.wait()
        await written(running, package / "__init__.py", "raise ValueError\n")
        assert (await listed(running))["it"].ready
        stage.proceed.set()
        assert await reading == "one"
        await written(running, package / "__init__.py", LATE)
        await written(running, package / "word.py", "WORD = 'two'\n")
        assert await version_of(running) == "two"


async def test_what_a_package_writes_into_its_folder_is_no_change(tmp_path: Path, says: Served) -> None:
    """Or a pipeline that keeps a log or a cache there would be loaded again and again."""
    package = tmp_path / "more"
    package.mkdir()
    await written(says, package / "__init__.py", SAYS.format(said="more"))
    before = says.service.registry.slots["more"].file
    (package / "cache.sqlite").write_text("new")
    await says.service.registry.look_again()
    assert says.service.registry.slots["more"].file == before
    (package / "template.j2").write_text("new")
    await says.service.registry.look_again()
    assert says.service.registry.slots["more"].file != before


WAITING = "from tests.fakes import stage\n\n\ndef {name}(self=None):\n    stage().proceed.wait_in_thread()\n"


async def test_a_file_that_takes_long_holds_up_no_other(tmp_path: Path, stage: Stage) -> None:
    """While it is built the others are loaded, changed and asked, at the start too."""
    (tmp_path / "a.py").write_text(WAITING.format(name="build"))
    (tmp_path / "it.py").write_text(SAYS.format(said="one"))
    async with served(tmp_path, warm=False) as running:
        await changed(running)
        assert await version_of(running) == "one"
        assert not (await listed(running))["a"].ready
        await written(running, tmp_path / "it.py", SAYS.format(said="two"))
        assert await version_of(running) == "two"
        stage.proceed.set()


SLOW_TO_CLOSE = """


from tests.fakes import stage


class Slow(Says):
    def close(self):
        stage().waiting.set()
        stage().proceed.wait_in_thread()


def build():
    pipeline = pipeline_of(Says())
    pipeline.add_component("slow", Slow())
    return pipeline
"""


async def test_a_component_that_blocks_while_it_closes_blocks_nobody_else(tmp_path: Path, stage: Stage) -> None:
    """It does so in a thread; and one that fails to close leaves the others closing."""
    failing = SAYS.format(said="one").replace('closed.put_nowait("one")', "raise ValueError")
    (tmp_path / "it.py").write_text(failing + SLOW_TO_CLOSE)
    async with served(tmp_path) as running:
        await written(running, tmp_path / "it.py", SAYS.format(said="two"))
        async with asyncio.timeout(10):
            await stage.waiting.wait()
        assert await version_of(running) == "two"
        stage.proceed.set()
