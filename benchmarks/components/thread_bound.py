"""A generator as many integrations still have it: `run` alone, which has to be given a thread."""

from typing import Any

from haystack import component
from haystack.dataclasses import ChatMessage, StreamingCallbackT


@component
class ThreadBound:
    """Hides a generator's `run_async`."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    @component.output_types(replies=list[ChatMessage])
    def run(
        self, messages: list[ChatMessage], streaming_callback: StreamingCallbackT | None = None
    ) -> dict[str, list[ChatMessage]]:
        answer: dict[str, list[ChatMessage]] = self._generator.run(messages, streaming_callback=streaming_callback)
        return answer
