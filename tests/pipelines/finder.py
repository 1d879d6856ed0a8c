"""A retriever in front of a generator."""

from haystack import Pipeline
from haystack.components.builders import PromptBuilder

from tests.fakes import AsyncFake, Finder


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("finder", Finder())
    pipeline.add_component("prompt", PromptBuilder("{{ documents | length }} found", required_variables="*"))
    pipeline.add_component("llm", AsyncFake())
    pipeline.connect("finder.documents", "prompt.documents")
    pipeline.connect("prompt.prompt", "llm.query")
    return pipeline
