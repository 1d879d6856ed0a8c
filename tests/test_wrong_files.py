"""Wrong files: each is named with what is wrong in it and the cure, in words that give nothing away; others serve."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.calls import complaint_of
from tests.conftest import served
from tests.test_pipelines import listed
from tests.test_yaml_pipelines import ALLOWLIST, ASKED, MODEL, answer_of, prompted, written

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Served
    from tests.fakes import Stage

SERVICE = "haystream.v1.ChatService"
GOOD = prompted("{{ query }}")


def block(text: str) -> str:
    """Return a good file with a block."""
    return f"{GOOD}haystream: {text}\n"


def model(text: str) -> str:
    """Return a file of one component."""
    return f"components: {{llm: {text}}}\n"


# A file's text, and what its message has to say. `hunter2` is in none of them.
YAML_FILES: dict[str, tuple[str, list[str]]] = {
    "unclosed": ("components: [\n  a: {", ["not YAML at line 2, column 7", "mend its syntax"]),
    "tab": ("components:\n\tllm: 3", ["not YAML at line 2"]),
    "object": ("a: 1\nb: !!python/object/apply:os.system ['hunter2']", ["not YAML at line 2"]),
    "empty": ("", ["`components` is missing", "Pipeline.dumps"]),
    "list": ("- hunter2", ["`components` is missing"]),
    "no_component": ("components: {}", ["`components` is missing"]),
    "no_type": (model("{init_parameters: {}}"), ["`components.llm.type` is missing"]),
    "dotted_name": (f"components: {{a.b: {{type: {MODEL}}}}}", ["`components.a.b`", "without dots"]),
    "number_as_name": (f"components: {{3: {{type: {MODEL}}}}}", ["`components.3`", "a name in text"]),
    "unknown_type": (model("{type: haystack.nothing.Nothing}"), ["`components.llm.type`", "haystack.nothing.Nothing"]),
    "no_path": (model("{type: Nothing}"), ["`components.llm.type`", "there is no Nothing", "check the name"]),
    "no_component_type": (model("{type: haystack.dataclasses.ChatMessage}"), ["`components.llm.type`"]),
    "not_trusted": (model("{type: tests.fakes.AsyncFake}"), ["`components.llm.type`", ALLOWLIST]),
    "part_not_trusted": (
        model(f"{{type: {MODEL}, init_parameters: {{response_fn: tests.fakes.sunny}}}}"),
        ["`components.llm`", ALLOWLIST],
    ),
    "wrong_parameter": (
        model(f"{{type: {MODEL}, init_parameters: {{password: hunter2}}}}"),
        ["`components.llm`: MockChatGenerator cannot be made", "`init_parameters`", "log"],
    ),
    "not_installed": (
        model("{type: haystack.components.converters.pypdf.PyPDFToDocument, init_parameters: {}}"),
        ["`components.llm`", "needs pypdf", "install it"],
    ),
    "no_key": (
        model("{type: haystack.components.generators.chat.openai.OpenAIChatGenerator, init_parameters: {}}"),
        ["llm wants OPENAI_API_KEY", "set it", "`api_key_components`"],
    ),
    "socket_of_connection": (GOOD.replace("llm.messages", "llm.message"), ["`connections`", "llm.message"]),
    "component_of_connection": (GOOD.replace("r: llm.m", "r: lm.m"), ["`connections`", "lm"]),
    "key_of_connection": (GOOD.replace("receiver", "to"), ["`connections[0]`", "`receiver`"]),
    "connections": (GOOD.replace("- {", "  {"), ["`connections`: expected a list"]),
    "types_of_connection": (GOOD.replace("llm.messages", "llm.generation_kwargs"), ["`connections`", "types"]),
    "most_runs": (GOOD + "max_runs_per_component: many", ["`max_runs_per_component`", "whole number"]),
    "missed_connection": (
        GOOD.partition("connections:")[0],
        ["prompt_builder.query, llm.messages", "`haystream: {query: [prompt_builder.query, llm.messages]}`"],
    ),
    "two_candidates": (
        prompted("{{ query }} {{ text }}"),
        ["prompt_builder.query, prompt_builder.text", "`haystream: {query: ["],
    ),
    "two_variables": (
        prompted("{{ city }} {{ day }}"),
        ["prompt_builder.city, prompt_builder.day", "`haystream: {query: [prompt_builder.city, prompt_builder.day]}`"],
    ),
    "no_question": (
        model("{type: haystack.components.joiners.branch.BranchJoiner, init_parameters: {type_: int}}"),
        ["no input takes the question", "query, question, messages, prompt, text", "`haystream: {query: "],
    ),
    "block_is_a_list": (block("[description]"), ["`haystream`: expected names and values"]),
    "key_of_block": (block("{qery: prompt_builder.query}"), ["`haystream.qery`", "it has description, query, "]),
    "description": (block("{description: 3}"), ["`haystream.description`", "expected text"]),
    "query_without_socket": (block("{query: prompt_builder}"), ["`haystream.query`", "prompt_builder.query"]),
    "query_is_nowhere": (block("{query: prompt_builder.qery}"), ["`query`", "prompt_builder.qery", "_builder.query"]),
    "query_is_none": (block("{query: []}"), ["`haystream.query`: expected at least one"]),
    "query_is_a_number": (block("{query: 3}"), ["`haystream.query`: expected a name"]),
    "query_takes_no_text": (block("{query: llm.tools_strict}"), ["`query`: llm.tools_strict takes neither text"]),
    "messages": (
        block("{messages: prompt_builder.query}"),
        ["`messages`: prompt_builder.query", "put it under `query`"],
    ),
    "no_stream": (block("{streaming_components: [prompt_builder]}"), ["`streaming_components`", "those that do: llm"]),
    "outputs": (block("{outputs: llm.reply}"), ["`outputs`", "llm.reply;", "llm.replies"]),
    "inputs": (block("{inputs: {llm.temperature: {}}}"), ["`inputs`", "llm.temperature", "llm.generation_kwargs"]),
    "input_of_no_json": (block("{inputs: [llm.tools]}"), ["`inputs`", "llm.tools", "remove it"]),
    "callback": (block("{inputs: [llm.streaming_callback]}"), ["`inputs`", "llm.streaming_callback"]),
    "limit": (
        block("{inputs: {llm.generation_kwargs: {maxProperties: many}}}"),
        ["`haystream.inputs.llm.generation_kwargs`", "maxProperties is none"],
    ),
    "misspelt_limit": (
        block("{inputs: {llm.generation_kwargs: {properties: {top_p: {maxmum: 1}}}}}"),
        ["`haystream.inputs.llm.generation_kwargs`", "maxmum is none"],
    ),
    "limit_elsewhere": (
        block("{inputs: {llm.generation_kwargs: {$ref: '#/nowhere'}}}"),
        ["`haystream.inputs.llm.generation_kwargs`", "$ref is none"],
    ),
    "mandatory_and_not_settable": (
        prompted("{{ query }} {{ city }}", rest="haystream: {query: prompt_builder.query, inputs: {}}"),
        ["prompt_builder.city needs a value", "`haystream: {inputs: "],
    ),
    "unknown_keyed": (block("{api_key_components: [lm]}"), ["`haystream.api_key_components`", "'lm'"]),
    "keyed_without_key": (
        block("{api_key_components: [llm]}"),
        ["`haystream.api_key_components`: llm takes no api_key"],
    ),
    "timeout": (block("{timeout_seconds: -1}"), ["`haystream.timeout_seconds`", "greater than 0"]),
    "hayhooks_inputs": (GOOD + "inputs: [query]", ["`inputs`: expected names and paths"]),
    "hayhooks_path": (GOOD + "inputs: {query: prompt_builder}", ["`inputs.query`: expected a path"]),
    "hayhooks_place": (GOOD + "inputs: {query: prompt_builder.qery}", ["`query`", "prompt_builder.qery"]),
    "hayhooks_outputs": (GOOD + "outputs: {replies: []}", ["`outputs.replies`: expected a path"]),
    "hayhooks_two": (
        GOOD + "inputs: {query: prompt_builder.query, text: llm.generation_kwargs}",
        ["which of `inputs` is the question: query, text", "`haystream: {query: component.socket}`"],
    ),
}

EXITS = """
import sys
from haystack import component

@component
class Exits:
    @component.output_types(text=str)
    def run(self, query: str): ...
    {method}(self): sys.exit("hunter2")

build = Exits
"""

PYTHON_FILES: dict[str, tuple[str, list[str]]] = {
    "syntax": ("x = 1\ndef build(:\n", ["not Python at line 2", "mend its syntax"]),
    "no_build": ("x = 1", ["no function `build`", "`def build(api_key=None)`"]),
    "build_is_none": ("build = None", ["no function `build`"]),
    "imports": ("import a_package_that_is_not_there", ["it imports a_package_that_is_not_there", "install it"]),
    "imports_late": ("def build():\n    import a_package_that_is_not_there", ["it imports a_package", "install it"]),
    "relative": ("from .parts import part", ["it imports parts, which is not there", "put it into"]),
    "raises_at_once": ("raise ValueError('hunter2')", ["raised ValueError", "log"]),
    "raises": ("def build():\n    raise ValueError('hunter2 in /etc/secret')", ["raised ValueError", "log"]),
    "raises_async": ("async def build():\n    raise KeyError('hunter2')", ["raised KeyError", "log"]),
    "wants_more": ("def build(model):\n    return model", ["`build` wants 'model'", "a default"]),
    "nothing": ("def build():\n    pass", ["`build` returned nothing", "return a Pipeline"]),
    "text": ("def build():\n    return 'hunter2'", ["returned an object of type str", "an Agent"]),
    "class": ("from haystack import Pipeline\nbuild = lambda: Pipeline", ["returned the class Pipeline"]),
    "generator": ("def build():\n    yield 'hunter2'", ["returned an object of type generator"]),
    "half": ("class Half:\n    def run(self): ...\nbuild = Half", ["returned an object of type Half", "`outputs`"]),
    "no_components": ("from haystack import Pipeline\nbuild = Pipeline", ["no input takes the question"]),
    "block": (
        "from tests.fakes import *\nHAYSTREAM = {'qery': 'llm.query'}\nbuild = lambda: pipeline_of(AsyncFake())",
        ["`haystream.qery`", "it has description, query"],
    ),
    "block_of_text": (
        "from tests.fakes import *\nHAYSTREAM = 'hunter2'\nbuild = lambda: pipeline_of(AsyncFake())",
        ["`haystream`: expected names and values"],
    ),
    "warm_up": (
        """
from haystack import component

@component
class Cold:
    @component.output_types(text=str)
    def run(self, query: str): ...
    def warm_up(self): raise OSError("hunter2 in /etc/secret")

build = Cold
""",
        ["raised OSError", "log"],
    ),
    "cancelled": (
        "import asyncio\nasync def build():\n    raise asyncio.CancelledError('hunter2')",
        ["raised CancelledError", "await what it waits for"],
    ),
    "exits_as_it_warms": (EXITS.format(method="def warm_up"), ["calls `sys.exit`", "raise an exception"]),
    "exits_as_it_warms_async": (EXITS.format(method="async def warm_up_async"), ["calls `sys.exit`"]),
    "key_components": (
        "from tests.fakes import *\nHAYSTREAM = {'api_key_components': 'llm'}\nbuild = AsyncFake",
        ["`api_key_components`", "`build(api_key=None)`"],
    ),
}


async def complaints(running: Served, expected: dict[str, list[str]], folder: Path) -> dict[str, Any]:
    """Return the pipelines whose message, in the list or to a caller, does not say what it should, or says too much."""
    pipelines = await listed(running)
    wrong: dict[str, Any] = {}
    for name, words in expected.items():
        error = pipelines[name].error
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer_of(running, name)
        refusal = complaint_of(caught.value)
        too_much = [part for part in ("hunter2", "/", "Traceback", "\n", "0x", str(folder)) if part in error]
        is_told = all(word in error for word in words) and error.startswith(name) and not too_much
        is_refused = (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "PIPELINE_NOT_LOADED")
        beginning = f"pipeline: {name!r} is not ready: {error}"[:100]
        if pipelines[name].ready or not (is_told and is_refused and refusal.message.startswith(beginning)):
            wrong[name] = (error, refusal)
    return wrong


async def test_each_wrong_yaml_file_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read, built, connected or fitted to its block; the good one beside them serves on."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    written(tmp_path, {"good.yaml": GOOD, **{f"{name}.yaml": text for name, (text, _) in YAML_FILES.items()}})
    (tmp_path / "latin.yaml").write_bytes(b"components: \xff")
    expected = {name: words for name, (_, words) in YAML_FILES.items()}
    async with served(tmp_path) as running:
        assert await complaints(running, {**expected, "latin": ["not YAML in UTF-8"]}, tmp_path) == {}
        assert await answer_of(running, "good") == ASKED


async def test_each_wrong_python_file_is_named_with_its_cure(tmp_path: Path) -> None:
    """What is no Python, lacks a module or `build`, raises, or builds the wrong thing; the log has the whole story."""
    written(tmp_path, {"good.yaml": GOOD, **{f"{name}.py": text for name, (text, _) in PYTHON_FILES.items()}})
    written(tmp_path, {"package/__init__.py": "from . import parts", "package/parts.py": "x = 1\ny = ("})
    (tmp_path / "latin.py").write_bytes(b"x = '\xff'")
    expected = {name: words for name, (_, words) in PYTHON_FILES.items()}
    expected |= {"package": ["parts.py is not Python at line 2"], "latin": ["not Python"]}
    with structlog.testing.capture_logs() as lines:
        async with served(tmp_path) as running:
            assert await complaints(running, expected, tmp_path) == {}
            assert await answer_of(running, "good") == ASKED
    stories = {line["pipeline"]: line for line in lines if line["event"] == "pipeline not served"}
    assert set(stories) == set(expected)
    assert "hunter2 in /etc/secret" in repr(stories["raises"]["exc_info"])


async def test_names_and_links_that_lead_astray_are_told_apart_from_those_that_do_not(tmp_path: Path) -> None:
    """Two files of one name, links out of the folder, to nothing and to themselves, names that are no text."""
    folder, outside = tmp_path / "pipelines", tmp_path / "outside"
    written(outside, {"stray.yaml": GOOD, "parts/part.py": "PART = 1"})
    written(
        folder,
        {"good.yaml": GOOD, "twin.yaml": GOOD, "twin.yml": GOOD, "twin/__init__.py": "", ".real/real.yaml": GOOD},
    )
    written(folder, {"package/__init__.py": "from .parts import part", "folder.yaml/__init__.py": ""})
    (folder / os.fsdecode(b"\xff.yaml")).write_text(GOOD)
    (folder / "stray.yaml").symlink_to(outside / "stray.yaml")
    (folder / "package" / "parts").symlink_to(outside / "parts")
    (folder / "dangling.py").symlink_to("nowhere.py")
    (folder / "circle.py").symlink_to("circle.py")
    (folder / "inside.yaml").symlink_to(".real/real.yaml")  # as a ConfigMap's files are
    async with served(folder) as running:
        errors = {name: pipeline.error for name, pipeline in (await listed(running)).items()}
        assert [await answer_of(running, name) for name in ("good", "inside")] == [ASKED, ASKED]
    assert errors == {
        "?": "?.yaml: its name has letters that cannot be shown: rename it",
        "circle": "circle.py: it is a symbolic link to nothing: put the file itself there",
        "dangling": "dangling.py: it is a symbolic link to nothing: put the file itself there",
        "folder.yaml": "folder.yaml: it has no function `build`, nor hayhooks' class `PipelineWrapper`: "
        "add `def build(api_key=None)`",
        "good": "",
        "inside": "",
        "package": "package: package/parts is a symbolic link that leaves the folder of pipelines: "
        "put the file itself there",
        "stray": "stray.yaml: stray.yaml is a symbolic link that leaves the folder of pipelines: "
        "put the file itself there",
        "twin": "twin: twin and twin.yml have the same name: rename one of them",
    }


HANGING = """
import asyncio
from tests.fakes import AsyncFake, pipeline_of, stage

{define} build():
    stage().waiting.set()
    {wait}
    return pipeline_of(AsyncFake())
"""

HANGS = {
    "in_thread": HANGING.format(define="def", wait="stage().proceed.wait_in_thread()"),
    "on_loop": HANGING.format(define="async def", wait="await stage().proceed.wait()"),
}


async def test_a_build_that_hangs_is_given_up_at_the_limit(tmp_path: Path, stage: Stage) -> None:
    """The message names the setting; the others are built behind it, and serve while it hangs."""
    written(tmp_path, {**{f"{name}.py": text for name, text in HANGS.items()}, "good.yaml": GOOD})
    async with served(tmp_path, build_seconds=0.2) as running:
        pipelines = await listed(running)
        assert await answer_of(running, "good") == ASKED
        stage.proceed.set()
    for name in HANGS:
        within = "it is not built within 0.2 seconds (HAYSTREAM_BUILD_SECONDS)"
        assert pipelines[name].error == f"{name}.py: {within}: load what takes long in `warm_up`"


WARMING = """
from haystack import component
from tests.fakes import stage

@component
class Slow:
    @component.output_types(text=str)
    def run(self, query: str): ...

    def warm_up(self):
        stage().waiting.set()
        stage().proceed.wait_in_thread()

build = Slow
"""


async def test_what_takes_long_to_warm_keeps_readiness_waiting_and_nothing_else(tmp_path: Path, stage: Stage) -> None:
    """However short the limit for building is; who calls meanwhile is told to try again, and the others serve."""
    written(tmp_path, {"slow.py": WARMING, "good.yaml": GOOD})
    async with served(tmp_path, warm=False, build_seconds=0.2) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        readiness = aiter(health.Watch(health_pb2.HealthCheckRequest(service=SERVICE)))
        assert (await anext(readiness)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stage.waiting.wait()
        alive = await health.Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer_of(running, "slow")
        stage.proceed.set()
        assert (await anext(readiness)).status == health_pb2.HealthCheckResponse.SERVING
        assert (await listed(running))["slow"].ready
        assert await answer_of(running, "good") == ASKED
    assert alive.status == health_pb2.HealthCheckResponse.SERVING
    assert complaint_of(caught.value).reason == "PIPELINE_LOADING"


async def test_a_file_that_changes_while_it_is_first_loaded_does_not_keep_the_service_from_being_ready(
    tmp_path: Path, stage: Stage
) -> None:
    """Its new version is loaded in its place, and readiness waits for that one."""
    written(tmp_path, {"changing.py": HANGS["in_thread"]})
    async with served(tmp_path, warm=False, watch_pipelines=False) as running:
        await stage.waiting.wait()
        (tmp_path / "changing.py").write_text("from tests.fakes import *\nbuild = lambda: pipeline_of(AsyncFake())\n")
        await running.service.registry.look_again()
        async with asyncio.timeout(10):
            await running.service.loaded.wait()
        stage.proceed.set()
        health = health_pb2_grpc.HealthStub(running.channel)
        readiness = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await listed(running))["changing"].ready
    assert readiness.status == health_pb2.HealthCheckResponse.SERVING
