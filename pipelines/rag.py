"""Finds facts about Haystream in a few documents, and has the local model answer from them."""

from haystack import Document, Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystream_service.local_model import SmolLM2ChatGenerator

FACTS = {
    "purpose": "Haystream streams the answers of Haystack pipelines to other services over gRPC.",
    "gateway": "The gateway of Haystream shows the same stream to browsers as server-sent events, on port 8000.",
    "cancelling": "When a reader leaves, Haystream stops the run and the model at once, so that nobody pays for words "
    "that nobody reads.",
    "back-pressure": "A slow reader slows the model down: the queue between them is bounded in bytes.",
    "endings": "Every stream of Haystream ends with an event named finished, or with a typed error.",
    "pipelines": "Haystream serves every pipeline that it finds in the folder HAYSTREAM_PIPELINES.",
    "bees": "A honey bee visits between fifty and one hundred flowers on one trip.",
    "tea": "Green tea and black tea come from the same plant, Camellia sinensis.",
}

TEMPLATE = [
    ChatMessage.from_system("Answer the question in one or two sentences, from these facts alone."),
    ChatMessage.from_user(
        "Facts:\n{% for document in documents %}- {{ document.content }}\n{% endfor %}\nQuestion: {{ query }}"
    ),
]


def build() -> Pipeline:
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=name, content=text, meta={"topic": name}) for name, text in FACTS.items()])
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=3))
    pipeline.add_component("prompt_builder", ChatPromptBuilder(TEMPLATE, required_variables="*"))
    pipeline.add_component("llm", SmolLM2ChatGenerator())
    pipeline.connect("retriever.documents", "prompt_builder.documents")
    pipeline.connect("prompt_builder.prompt", "llm.messages")
    return pipeline
