"""YAML made for hayhooks serves unchanged: `inputs:`, `outputs:` and `streaming_components:` mean what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from tests.calls import all_events, text_of
from tests.conftest import served
from tests.image_hosts import answer, hosting
from tests.test_pipelines import listed
from tests.test_refusals import refused
from tests.test_yaml_pipelines import answer_of, asking, described, prompted, written

if TYPE_CHECKING:
    from pathlib import Path

    from llmock.pytest_plugin import LLMock

WEBSITE = """
components:
  fetcher:
    type: haystack.components.fetchers.link_content.LinkContentFetcher
    init_parameters: {raise_on_failure: true, retry_attempts: 2, timeout: 3}
  converter:
    type: haystack.components.converters.txt.TextFileToDocument
    init_parameters: {}
  prompt:
    type: haystack.components.builders.chat_prompt_builder.ChatPromptBuilder
    init_parameters:
      template: |
        {% message role="user" %}
        This page says: {% for document in documents %}{{ document.content }}{% endfor %}.
        Answer from it: {{ query }}
        {% endmessage %}
      required_variables: "*"
  llm:
    type: haystack.components.generators.chat.openai.OpenAIChatGenerator
    init_parameters:
      api_key: {env_vars: [OPENAI_API_KEY], strict: true, type: env_var}
      generation_kwargs: {}
      model: a-model
connections:
- {sender: fetcher.streams, receiver: converter.sources}
- {sender: converter.documents, receiver: prompt.documents}
- {sender: prompt.prompt, receiver: llm.messages}
metadata: {}
inputs:
  urls:
  - fetcher.urls
  query:
  - prompt.query
outputs:
  replies: llm.replies
"""


async def test_a_yaml_of_hayhooks_takes_its_inputs_and_gives_its_outputs(tmp_path: Path, llmock: LLMock) -> None:
    """The name that means the question takes it; the others are what callers may set, and have to."""
    llmock.tool_mode("off").reply("Bees dance.")
    page = answer(b"bees dance", "Content-Length: 10", content_type="text/plain")
    async with hosting(page) as website, served(written(tmp_path, {"website.yml": WEBSITE})) as running:
        seen = await described(running, "website")
        without = await refused(running, asking("What do bees do?"))
        inputs = {"fetcher": {"urls": [website.url]}}
        call = running.stub.Chat(asking("What do bees do?", inputs=inputs))
        events = await all_events(call)
    assert list(without.fields) == ["inputs.fetcher.urls"]
    schema = MessageToDict(seen.inputs_schema)["properties"]
    assert schema["fetcher"]["required"] == ["urls"]
    assert [(owner, list(of["properties"])) for owner, of in schema.items()] == [("fetcher", ["urls"])]
    assert [f"{output.component}.{output.name}" for output in seen.outputs] == ["llm.replies"]
    assert text_of(events) == "Bees dance."
    assert list(MessageToDict(events[-1].finished.outputs)) == ["llm"]
    [message] = llmock.last_request.body["messages"]
    assert "This page says: bees dance." in message["content"]
    assert "Answer from it: What do bees do?" in message["content"]


TWO_MODELS = """
components:
  first_prompt:
    type: haystack.components.builders.prompt_builder.PromptBuilder
    init_parameters: {template: "One: {{ topic }} ", required_variables: "*"}
  first:
    type: haystack.components.generators.chat.mock.MockChatGenerator
    init_parameters: {}
  second_prompt:
    type: haystack.components.builders.prompt_builder.PromptBuilder
    init_parameters: {template: "Two: {{ replies[0].text }}", required_variables: "*"}
  second:
    type: haystack.components.generators.chat.mock.MockChatGenerator
    init_parameters: {}
  answers:
    type: haystack.components.builders.answer_builder.AnswerBuilder
    init_parameters: {}
connections:
- {sender: first_prompt.prompt, receiver: first.messages}
- {sender: first.replies, receiver: second_prompt.replies}
- {sender: second_prompt.prompt, receiver: second.messages}
- {sender: second.replies, receiver: answers.replies}
max_runs_per_component: 100
inputs:
  NAME: [first_prompt.topic, answers.query]
outputs:
  answers: answers.answers
  replies: second.replies
"""

# A name in hayhooks' mapping, what is said beside it, and who streams.
MAPPINGS = {
    "query": ("query", "", ["second"]),  # hayhooks' default: the last that can
    "question": ("question", "streaming_components: [first]", ["first"]),
    "text": ("text", "streaming_components: all", ["first", "second"]),
    "odd": ("subject", "streaming_components: [second]", ["second"]),
}


async def test_a_mapping_of_hayhooks_may_have_any_name_for_the_question_and_lead_to_several(tmp_path: Path) -> None:
    """Where it is the only one; `streaming_components` are those of hayhooks, by name or all."""
    files = {name: f"{TWO_MODELS.replace('NAME', of)}\n{rest}\n" for name, (of, rest, _) in MAPPINGS.items()}
    async with served(written(tmp_path, {f"{name}.yml": text for name, text in files.items()})) as running:
        for name, (_, _, streaming) in MAPPINGS.items():
            seen = await described(running, name)
            call = running.stub.Chat(asking("tea", pipeline=name))
            events = await all_events(call)
            assert MessageToDict(seen.inputs_schema)["properties"] == {}
            assert list(seen.streaming_components) == streaming
            said = {"first": "One: tea ", "second": "Two: One: tea "}
            assert text_of(events) == "".join(said[component] for component in streaming)
            outputs = MessageToDict(events[-1].finished.outputs)
            assert sorted(outputs) == ["answers", "second"]
            assert outputs["answers"]["answers"][0]["query"] == "tea"


async def test_a_mapping_of_hayhooks_that_does_not_say_which_is_the_question_takes_one_line(tmp_path: Path) -> None:
    """The message lists what it could be, and the block beside the mapping says it."""
    text = prompted("{{ city }} {{ day }}", rest="inputs: {where: prompt_builder.city, when: prompt_builder.day}")
    said = text + "haystream: {query: prompt_builder.day}\n"
    async with served(written(tmp_path, {"unsaid.yml": text, "said.yml": said})) as running:
        pipelines = await listed(running)
        heard = await answer_of(running, "said", "today", inputs={"prompt_builder": {"city": "Rome"}})
    assert "which of `inputs` is the question: where, when" in pipelines["unsaid"].error
    assert "`haystream: {query: component.socket}`" in pipelines["unsaid"].error
    assert heard == "Rome today"
