"""Answers from two documents, on an AsyncPipeline whose OpenAIChatGenerator runs on the loop."""

from haystack import AsyncPipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret

from tests.generations.parts import DOCUMENTS

TEMPLATE = [ChatMessage.from_user("{% for d in documents %}{{ d.content }} {% endfor %}Now: {{ query }}")]


def build(api_key: Secret | None = None) -> AsyncPipeline:
    store = InMemoryDocumentStore()
    store.write_documents(DOCUMENTS)
    pipeline = AsyncPipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store))
    pipeline.add_component("prompt_builder", ChatPromptBuilder(TEMPLATE, required_variables="*"))
    pipeline.add_component("llm", OpenAIChatGenerator(api_key or Secret.from_env_var("OPENAI_API_KEY")))
    pipeline.connect("retriever.documents", "prompt_builder.documents")
    pipeline.connect("prompt_builder.prompt", "llm.messages")
    return pipeline
