"""Haystack's MockChatGenerator: as many words as the question orders, as fast as they are taken."""

from functools import cache

from haystack import Pipeline
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage

from benchmarks.components.saying import order_of


@cache
def _answer(words: int) -> str:
    return "stream " * words


def answer(messages: list[ChatMessage]) -> str:
    return _answer(order_of(messages).words)


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", MockChatGenerator(response_fn=answer))
    return pipeline
