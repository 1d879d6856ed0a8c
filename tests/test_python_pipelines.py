"""Pipelines in Python: a file or a package whose `build` returns whatever Haystack can run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, kinds_of
from tests.conftest import served
from tests.test_pipelines import listed
from tests.test_yaml_pipelines import ASKED, answer_of, asking, described, written

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes import Stage

# Each says the question back.
FILES = {
    "plain.py": '''
"""Says the question back.

The rest of what its owner wrote is not for callers.
"""
from haystack.components.generators.chat import MockChatGenerator
from tests.fakes import pipeline_of

def build(api_key=None):
    return pipeline_of(MockChatGenerator())
''',
    "component_alone.py": """
from haystack.components.generators.chat import MockChatGenerator

def build():
    return MockChatGenerator()
""",
    "agent_alone.py": """
from haystack.components.generators.chat import MockChatGenerator
from tests.fakes import agent_of

async def build():
    return agent_of(MockChatGenerator())
""",
    "waits.py": """
import asyncio
from haystack.components.generators.chat import MockChatGenerator
from tests.fakes import pipeline_of

async def build():
    loaded = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(loaded.set_result, MockChatGenerator())
    return pipeline_of(await loaded)
""",
    "subclass.py": """
from haystack import Pipeline
from haystack.components.generators.chat import MockChatGenerator

class Mine(Pipeline):
    def __init__(self):
        super().__init__()
        self.add_component("llm", MockChatGenerator())

build = Mine
""",
    "package/__init__.py": '''
"""Is a package."""
from haystack.components.generators.chat import MockChatGenerator
from tests.fakes import pipeline_of
from .parts.words import reply

def build():
    from . import late  # while it is built, as well
    return pipeline_of(MockChatGenerator(response_fn=reply, model=late.MODEL))
''',
    "package/late.py": "MODEL = 'mine'\n",
    "package/parts/__init__.py": "",
    "package/parts/words.py": """
def reply(messages):
    return messages[-1].text
""",
    "_hidden.py": "raise AssertionError('this is no pipeline')\n",
    ".hidden.py": "raise AssertionError('this is no pipeline')\n",
    "_parts/__init__.py": "raise AssertionError('this is no pipeline')\n",
    "data/words.txt": "a folder that is no package is no pipeline\n",
    "notes.md": "nor is this\n",
}


async def test_whatever_haystack_can_run_is_served_from_a_file_or_a_package(tmp_path: Path) -> None:
    """A Pipeline, one of a class of its own, an Agent or another component, built at once or awaited."""
    async with served(written(tmp_path, FILES)) as running:
        pipelines = await listed(running)
        said = {name: await answer_of(running, name) for name in pipelines}
        agent = await described(running, "agent_alone")
        alone = await described(running, "component_alone")
    assert said == dict.fromkeys(["agent_alone", "component_alone", "package", "plain", "subclass", "waits"], ASKED)
    assert pipelines["plain"].description == "Says the question back."
    assert pipelines["package"].description == "Is a package."
    assert list(agent.streaming_components) == ["agent"]
    assert list(alone.streaming_components) == ["mock_chat_generator"]


OBJECT = """
from haystack.dataclasses import ChatMessage

class Mine:
    def inputs(self):
        return {{"mine": {{"query": {{"type": str, "is_mandatory": True}},
                         "times": {{"type": int, "is_mandatory": False, "default_value": 1}}}}}}

    def outputs(self):
        return {{"mine": {{"text": {{"type": str}}}}}}

    {method}

def said(data):
    return {{"mine": {{"text": data["mine"]["query"] * data["mine"].get("times", 1)}}}}

def build():
    return Mine()
"""

METHODS = {
    "run": "def run(self, data): return said(data)",
    "run_async": "async def run_async(self, data, include_outputs_from=None): return said(data)",
    "run_async_generator": """async def run_async_generator(self, data, include_outputs_from=None):
        yield {}
        yield said(data)""",
}


async def test_an_object_with_haystacks_run_methods_is_served(tmp_path: Path) -> None:
    """Any one of the methods will do; what it takes and gives is described as a pipeline's is."""
    written(tmp_path, {f"{name}.py": OBJECT.format(method=method) for name, method in METHODS.items()})
    async with served(tmp_path) as running:
        for name in METHODS:
            request = asking("ho", pipeline=name, inputs={"mine": {"times": 2}})
            events = await all_events(running.stub.Chat(request))
            assert kinds_of(events) == ["started", "finished"]
            assert MessageToDict(events[-1].finished.outputs) == {"mine": {"text": "hoho"}}
            seen = await described(running, name)
            times = MessageToDict(seen.inputs_schema)["properties"]["mine"]["properties"]["times"]
            assert times == {"type": "integer", "default": 1.0}
        blocking = await described(running, "run")
    assert blocking.cancellation == chat_pb2.CANCELLATION_NONE


async def test_what_its_owner_says_of_it_stands_in_the_file(tmp_path: Path, stage: Stage) -> None:
    """`HAYSTREAM` is the block of a YAML file, and what it says of itself goes before its docstring."""
    stage.proceed.set()
    stage.chunks = 1
    source = '''
"""For people who read the file."""
from tests.fakes import AsyncFake, pipeline_of
HAYSTREAM = {"description": "For callers.", "inputs": {"llm.top_k": {"maximum": 5}}, "outputs": "llm.replies"}

def build():
    return pipeline_of(AsyncFake())
'''
    async with served(written(tmp_path, {"said.py": source})) as running:
        seen = await described(running, "said")
        await answer_of(running, "said", inputs={"llm": {"top_k": 5}})
    assert seen.pipeline.description == "For callers."
    [llm] = MessageToDict(seen.inputs_schema)["properties"].values()
    assert llm["properties"] == {"top_k": {"type": "integer", "maximum": 5.0, "default": 3.0}}
    assert stage.received[0]["top_k"] == 5


KEYED = """
from haystack.components.generators.chat import MockChatGenerator
from tests.fakes import pipeline_of

{define} build(api_key=None):
    answer = api_key.resolve_value() if api_key is not None else "the service's own"
    return pipeline_of(MockChatGenerator(answer))
"""


async def test_build_gets_the_callers_key(tmp_path: Path) -> None:
    """As Haystack's Secret, and nothing where the caller brings none; an async one as well."""
    written(tmp_path, {f"{name}.py": KEYED.format(define=define) for name, define in DEFINES.items()})
    async with served(tmp_path) as running:
        for name in DEFINES:
            assert await answer_of(running, name) == "the service's own"
            assert await answer_of(running, name, api_key="a-callers") == "a-callers"


DEFINES = {"plain": "def", "async": "async def"}

# Ends the process, as a script would: in each place where the service runs an operator's code.
EXITS = {
    "module": "import sys\nsys.exit('hunter2')",
    "build": "import sys\n\ndef build():\n    sys.exit('hunter2')",
    "async_build": "import sys\n\nasync def build():\n    sys.exit('hunter2')",
    "build_with_key": """
import sys
from tests.fakes import AsyncFake, pipeline_of

async def build(api_key=None):
    if api_key is not None:
        sys.exit('hunter2')
    return pipeline_of(AsyncFake())
""",
    "run": """
import sys
from haystack import component

@component
class Exits:
    @component.output_types(text=str)
    def run(self, query: str):
        sys.exit('hunter2')

def build():
    return Exits()
""",
}


async def test_a_file_that_ends_the_process_does_not_end_the_service(tmp_path: Path, stage: Stage) -> None:
    """Wherever it calls `sys.exit`; its owner reads what to do, and its callers nothing of its own words."""
    stage.proceed.set()
    async with served(written(tmp_path, {f"{name}.py": text for name, text in EXITS.items()})) as running:
        errors = {name: pipeline.error for name, pipeline in (await listed(running)).items()}
        said: list[Any] = []
        for name, key in {"run": "", "build_with_key": "a-callers"}.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answer_of(running, name, api_key=key)
            said.append(complaint_of(caught.value))
        await answer_of(running, "build_with_key")
    for name in ("module", "build", "async_build"):
        assert errors[name] == f"{name}.py: the file calls `sys.exit`: raise an exception instead"
    assert [complaint.reason for complaint in said] == ["COMPONENT_FAILED", "PIPELINE_BUILD_FAILED"]
    assert "hunter2" not in str([errors, said])
