"""Finds documents, and then counts."""

from haystack import Document, Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore

from benchmarks.soak.components.counted import Counted

FACTS = [f"Fact {number} about words, padding and faults." for number in range(20)]


def build() -> Pipeline:
    store = InMemoryDocumentStore()
    store.write_documents([Document(content=fact) for fact in FACTS])
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=3))
    template = [
        ChatMessage.from_system("{{ documents | length }} documents"),
        ChatMessage.from_user("{{ query }}"),
    ]
    pipeline.add_component("prompt_builder", ChatPromptBuilder(template, required_variables="*"))
    pipeline.add_component("llm", Counted())
    pipeline.connect("retriever.documents", "prompt_builder.documents")
    pipeline.connect("prompt_builder.prompt", "llm.messages")
    return pipeline
