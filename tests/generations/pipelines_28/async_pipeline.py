"""Answers from two documents, on haystack-experimental's AsyncPipeline."""

from haystack.components.builders import PromptBuilder
from haystack.components.generators import OpenAIGenerator
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret
from haystack_experimental.core import AsyncPipeline

from tests.generations.parts import DOCUMENTS


def build(api_key: Secret | None = None) -> AsyncPipeline:
    store = InMemoryDocumentStore()
    store.write_documents(DOCUMENTS)
    pipeline = AsyncPipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store))
    pipeline.add_component(
        "prompt_builder", PromptBuilder("{% for d in documents %}{{ d.content }} {% endfor %}Now: {{ query }}")
    )
    pipeline.add_component("llm", OpenAIGenerator(api_key or Secret.from_env_var("OPENAI_API_KEY")))
    pipeline.connect("retriever.documents", "prompt_builder.documents")
    pipeline.connect("prompt_builder.prompt", "llm.prompt")
    return pipeline
