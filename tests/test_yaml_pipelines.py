"""Pipelines in YAML: served as Haystack writes them, with what their owner says of them in a block beside."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from haystack import Pipeline, component
from haystack.components.builders import ChatPromptBuilder, PromptBuilder
from haystack.components.generators.chat import MockChatGenerator, OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import served
from tests.fakes import agent_of, stage
from tests.providers import provider
from tests.test_pipelines import listed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmock.pytest_plugin import LLMock

    from tests.conftest import Served
    from tests.fakes import Stage

ALLOWLIST = "HAYSTACK_DESERIALIZATION_ALLOWLIST"
PROMPT_BUILDER = "haystack.components.builders.prompt_builder.PromptBuilder"
MODEL = "haystack.components.generators.chat.mock.MockChatGenerator"


@component
class Teller:
    """Tells the test what it was asked; each of its inputs may be the question."""

    @component.output_types(text=str)
    async def run_async(
        self, prompt: str = "", text: str = "", question: str = "", messages: list[ChatMessage] | None = None
    ) -> dict[str, str]:
        asked = {"prompt": prompt, "text": text, "question": question, "messages": messages}
        stage().received.append({name: value for name, value in asked.items() if value})
        return {"text": "told"}

    @component.output_types(text=str)
    def run(
        self, prompt: str = "", text: str = "", question: str = "", messages: list[ChatMessage] | None = None
    ) -> dict[str, str]:
        raise NotImplementedError


def written(folder: Path, files: dict[str, str]) -> Path:
    """Write files into a folder, and return it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


async def answer_of(running: Served, pipeline: str, query: str = "Why is that?", **fields: Any) -> str:
    """Ask a pipeline, and return what it says."""
    request = asking(query, pipeline=pipeline, **fields)
    return text_of(await all_events(running.stub.Chat(request, timeout=30)))


def asking(query: str, **fields: Any) -> chat_pb2.ChatRequest:
    """Return a request; protobuf takes dictionaries for its Structs, which its types do not tell."""
    return chat_pb2.ChatRequest(query=query, **fields)


async def described(running: Served, pipeline: str) -> chat_pb2.GetPipelineResponse:
    """Return what there is to be known of a pipeline."""
    return await running.stub.GetPipeline(chat_pb2.GetPipelineRequest(name=pipeline))


def prompted(template: str, *, rest: str = "", variables: str = "'*'") -> str:
    """Return a file whose prompt is made by a template and said back by the model."""
    return f"""
components:
  prompt_builder:
    type: {PROMPT_BUILDER}
    init_parameters: {{template: "{template}", required_variables: {variables}}}
  llm:
    type: {MODEL}
    init_parameters: {{}}
connections:
- {{sender: prompt_builder.prompt, receiver: llm.messages}}
{rest}
"""


def answering(builder: Any, model: Any) -> Pipeline:
    """Return a pipeline of a prompt builder and a model."""
    pipeline = Pipeline()
    pipeline.add_component("prompt_builder", builder)
    pipeline.add_component("llm", model)
    pipeline.connect("prompt_builder.prompt", "llm.messages")
    return pipeline


def alone(name: str, part: Any) -> Pipeline:
    """Return a pipeline of one component."""
    pipeline = Pipeline()
    pipeline.add_component(name, part)
    return pipeline


async def test_what_haystack_has_written_is_served_as_it_stands(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Pipeline.dumps` and nothing beside it: prompt builders of both kinds, models, an Agent with its tools."""
    monkeypatch.setenv(ALLOWLIST, "tests.fakes")
    stage.proceed.set()
    chat_prompt = ChatPromptBuilder([ChatMessage.from_user("Be kind: {{ question }}")], required_variables="*")
    answers = [ChatMessage.from_assistant("Nobody knows.")]
    pipelines = {
        "chat_prompt": answering(chat_prompt, MockChatGenerator()),
        "prompt": answering(PromptBuilder("Answer {{ query }}", required_variables="*"), MockChatGenerator()),
        "optional": answering(PromptBuilder("Answer {{ query }}"), MockChatGenerator()),
        "model": alone("llm", MockChatGenerator()),
        "fixed": alone("llm", MockChatGenerator(answers)),
        "agent": alone("agent", agent_of(MockChatGenerator(answers))),
    }
    files = {f"{name}.yaml": pipeline.dumps() for name, pipeline in pipelines.items()}
    async with served(written(tmp_path, files)) as running:
        said = {name: await answer_of(running, name) for name in pipelines}
        names = [pipeline.name for pipeline in (await listed(running)).values() if pipeline.ready]
    assert names == sorted(pipelines)
    assert said == {
        "chat_prompt": "Be kind: Why is that?",
        "prompt": "Answer Why is that?",
        "optional": "Answer Why is that?",
        "model": "Why is that?",
        "fixed": "Nobody knows.",
        "agent": "Nobody knows.",
    }


BLOCK = """
haystream:
  description: Answers in two ways.
  query: [first_prompt.topic, second_prompt.topic]
  streaming_components: [second]
  inputs: {first_prompt.tone: {enum: [kind, terse]}}
  outputs: [second.replies, first_prompt.prompt]
  timeout_seconds: 5
"""

GRAPH = [
    "flowchart TD",
    '  c0["first (MockChatGenerator)"]',
    '  c1["first_prompt (PromptBuilder)"]',
    '  c2["second (MockChatGenerator)"]',
    '  c3["second_prompt (PromptBuilder)"]',
    "  c1 --> c0",
    "  c3 --> c2",
]


def two_ways() -> Pipeline:
    """Return a pipeline of two models that are asked the same, the first in a tone that callers choose."""
    pipeline = Pipeline()
    for name, template in {"first": "{{ tone }}: {{ topic }}", "second": "Then: {{ topic }}"}.items():
        pipeline.add_component(f"{name}_prompt", PromptBuilder(template, required_variables="*"))
        pipeline.add_component(name, MockChatGenerator())
        pipeline.connect(f"{name}_prompt.prompt", f"{name}.messages")
    return pipeline


async def test_a_block_says_what_a_pipeline_is_and_what_callers_may_do(tmp_path: Path) -> None:
    """Its description, where the question goes, what streams, what may be set and what comes out; and its graph."""
    inputs = {"first_prompt": {"tone": "kind"}}
    async with served(written(tmp_path, {"ways.yml": two_ways().dumps() + BLOCK})) as running:
        seen = await described(running, "ways")
        events = await all_events(running.stub.Chat(asking("tea", inputs=inputs)))
    assert seen.pipeline.description == "Answers in two ways."
    schema = MessageToDict(seen.inputs_schema)["properties"]
    assert schema == {
        "first_prompt": {
            "type": "object",
            "properties": {"tone": {"enum": ["kind", "terse"]}},
            "required": ["tone"],
            "additionalProperties": False,
        }
    }
    assert list(seen.streaming_components) == ["second"]
    assert seen.graph.splitlines() == GRAPH
    assert (seen.cancellation, seen.haystack_version) == (chat_pb2.CANCELLATION_IMMEDIATE, version("haystack-ai"))
    assert [f"{output.component}.{output.name}" for output in seen.outputs] == ["second.replies", "first_prompt.prompt"]
    assert {event.text.component for event in events if event.HasField("text")} == {"second"}
    outputs = MessageToDict(events[-1].finished.outputs)
    assert sorted(outputs) == ["first_prompt", "second"]
    assert outputs["first_prompt"] == {"prompt": "kind: tea"}
    assert text_of(events) == "Then: tea"


TELLER = "components: {teller: {type: tests.test_yaml_pipelines.Teller, init_parameters: {}}}\n"
ASKED = "Why is that?"

# A file, and what its model says or its component is told when a caller asks.
PLACES: dict[str, tuple[str, str | dict[str, Any]]] = {
    "query": (prompted("query {{ query }}"), f"query {ASKED}"),
    "question": (prompted("question {{ question }}"), f"question {ASKED}"),
    "prompt": (prompted("prompt {{ prompt }}"), f"prompt {ASKED}"),
    "text": (prompted("text {{ text }}"), f"text {ASKED}"),
    "messages": (f"components: {{llm: {{type: {MODEL}, init_parameters: {{}}}}}}", ASKED),
    "one_variable": (prompted("city {{ city }}"), f"city {ASKED}"),
    "one_optional_variable": (prompted("city {{ city }}", variables="null"), f"city {ASKED}"),
    "question_among_variables": (prompted("{{ city }} {{ query }}", variables="[query]"), ASKED),
    "both_names": (prompted("{{ query }} {{ question }}"), f"{ASKED} {ASKED}"),
    "said": (prompted("{{ city }} {{ day }}", rest="haystream: {query: prompt_builder.day}", variables="null"), ASKED),
    "said_text": (TELLER + "haystream: {query: teller.text}", {"text": ASKED}),
    "said_two": (TELLER + "haystream: {query: [teller.text, teller.prompt]}", {"text": ASKED, "prompt": ASKED}),
    "said_messages": (
        TELLER + "haystream: {messages: teller.messages}",
        {"messages": [ChatMessage.from_user(ASKED)]},
    ),
    "said_both": (
        TELLER + "haystream: {query: teller.question, messages: teller.messages}",
        {"question": ASKED, "messages": [ChatMessage.from_user(ASKED)]},
    ),
}


async def test_the_question_goes_where_its_name_or_the_owner_says(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the names of open inputs, by a template's only variable, or by the block, in this order backwards."""
    monkeypatch.setenv(ALLOWLIST, "tests.test_yaml_pipelines")
    files = {f"{name}.yaml": text for name, (text, _) in PLACES.items()}
    found: dict[str, Any] = {}
    async with served(written(tmp_path, files)) as running:
        refused = {name: pipeline.error for name, pipeline in (await listed(running)).items() if not pipeline.ready}
        assert refused == {}
        for name in PLACES:
            stage.received.clear()
            said = await answer_of(running, name)
            found[name] = stage.received[0] if stage.received else said
    assert found == {name: expected for name, (_, expected) in PLACES.items()}


AMBIGUOUS = {
    "two_names": (prompted("{{ query }} {{ text }}"), ["prompt_builder.query", "prompt_builder.text"]),
    "two_variables": (prompted("{{ city }} {{ day }}"), ["prompt_builder.city", "prompt_builder.day"]),
    "two_templates": (
        f"""
components:
  there: {{type: {PROMPT_BUILDER}, init_parameters: {{template: "{{{{ city }}}}", required_variables: "*"}}}}
  then: {{type: {PROMPT_BUILDER}, init_parameters: {{template: "{{{{ day }}}}", required_variables: "*"}}}}
""",
        ["there.city", "then.day"],
    ),
    "missed_connection": (
        prompted("{{ query }}").partition("connections:")[0],
        ["prompt_builder.query", "llm.messages"],
    ),
}


async def test_where_the_question_could_go_to_several_the_file_is_refused_with_them_and_the_line_to_add(
    tmp_path: Path,
) -> None:
    """Nobody guesses; and the line that the message gives is all that it takes."""
    files = {f"{name}.yaml": text for name, (text, _) in AMBIGUOUS.items()}
    async with served(written(tmp_path, files)) as running:
        errors = {name: pipeline.error for name, pipeline in (await listed(running)).items()}
    for name, (text, candidates) in AMBIGUOUS.items():
        assert errors[name].startswith(
            f"{name}.yaml: it is not clear where the question goes: {', '.join(candidates)}."
        )
        line = re.findall("`([^`]*)`", errors[name])[-1]
        assert yaml.safe_load(line) == {"haystream": {"query": candidates}}
        (tmp_path / f"{name}.yaml").write_text(f"{text}\n{line}\n")
    async with served(tmp_path) as running:
        assert all(pipeline.ready for pipeline in (await listed(running)).values())
        assert await answer_of(running, "two_names") == f"{ASKED} {ASKED}"


async def test_a_component_of_the_operators_own_needs_their_word_and_says_which(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Haystack trusts what it is told to; the message names the variable."""
    files = {"own.yaml": TELLER + "haystream: {query: teller.text}", "said.yaml": prompted("{{ query }}")}
    async with served(written(tmp_path, files)) as running:
        pipelines = await listed(running)
    assert [name for name, pipeline in pipelines.items() if pipeline.ready] == ["said"]
    assert "`components.teller.type`" in pipelines["own"].error
    assert ALLOWLIST in pipelines["own"].error
    monkeypatch.setenv(ALLOWLIST, "tests.*")
    async with served(tmp_path) as running:
        await answer_of(running, "own")
    assert stage.received == [{"text": ASKED}]


def keyed(name: str, *, variable: str = "OPENAI_API_KEY") -> Any:
    """Return a model that wants a key from the environment."""
    return OpenAIChatGenerator(Secret.from_env_var(variable), model=name)


def two_keys() -> Pipeline:
    """Return a pipeline of two models, each with a key of its own, the second after the first."""
    pipeline = answering(PromptBuilder("{{ query }}", required_variables="*"), keyed("one"))
    pipeline.add_component("second", keyed("two", variable="SECOND_API_KEY"))
    pipeline.connect("llm.replies", "second.messages")
    return pipeline


KEYED: dict[str, tuple[Callable[[], Pipeline], str]] = {
    "only": (lambda: answering(PromptBuilder("{{ query }}", required_variables="*"), keyed("one")), ""),
    "agent": (lambda: alone("agent", agent_of(keyed("one"))), ""),
    "named": (two_keys, "haystream: {api_key_components: llm}"),
}


@pytest.mark.parametrize("name", KEYED)
async def test_a_callers_key_goes_to_the_only_component_that_has_one_or_to_those_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An Agent's model among them; without a key of the service's the pipeline is served to those who bring one."""
    make, block = KEYED[name]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-dumps")
    monkeypatch.setenv("SECOND_API_KEY", "sk-second")
    monkeypatch.setenv(ALLOWLIST, "tests.fakes")
    written(tmp_path, {"keyed.yaml": f"{make().dumps()}\n{block}"})
    monkeypatch.delenv("OPENAI_API_KEY")
    async with provider() as running_provider:
        monkeypatch.setenv("OPENAI_BASE_URL", running_provider.base_url)
        async with served(tmp_path) as running:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answer_of(running, "keyed")
            call = running.stub.Chat(chat_pb2.ChatRequest(query="q", api_key="sk-caller"))
            reader = aiter(call)
            while (await anext(reader)).event.text.delta != "word ":
                pass
            call.cancel()
            await running_provider.left.wait()
    assert complaint_of(caught.value).reason == "API_KEY_REQUIRED"
    assert "\r\nauthorization: bearer sk-caller\r\n" in running_provider.requests[0].lower()


async def test_of_several_components_with_a_key_none_gets_the_callers_unless_it_is_named(
    tmp_path: Path, llmock: LLMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could go to the wrong provider; such a pipeline runs on the service's own keys, and says so."""
    monkeypatch.setenv("SECOND_API_KEY", "sk-second")
    llmock.reply("one").reply("two")
    async with served(written(tmp_path, {"keys.yaml": two_keys().dumps()})) as running:
        assert await answer_of(running, "keys") == "onetwo"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer_of(running, "keys", api_key="sk-caller")
    assert list(complaint_of(caught.value).fields) == ["api_key"]
    assert [request.model for request in llmock.requests] == ["one", "two"]
