"""A wrapper written for hayhooks, as a Haystack component: what its `run_chat_completion` yields is streamed.

hayhooks itself is not imported here; the wrapper's own file does that. Its interface:
https://deepset-ai.github.io/hayhooks/concepts/pipeline-wrapper/
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, closing, suppress
from typing import TYPE_CHECKING, Any, cast

from haystack import component
from haystack.dataclasses import ChatMessage, StreamingChunk

from haystream_service.errors import PipelineFileError
from haystream_service.pipelines.generation import pipeline_class

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

WRAPPER_CLASS = "PipelineWrapper"
COMPONENT = "wrapper"
RUN = "run_chat_completion"
RUN_ASYNC = "run_chat_completion_async"

StreamingCallback = Callable[[StreamingChunk], Awaitable[None] | None]
log = logging.getLogger(__name__)


def build_wrapper(wrapper_class: Any, name: str) -> Any:
    """Set a wrapper up and return it as a pipeline. Raises PipelineFileError, or whatever its `setup` raises."""
    has_run, has_run_async = (_defines(wrapper_class, method) for method in (RUN, RUN_ASYNC))
    if not has_run and not has_run_async:
        raise PipelineFileError(f"the {WRAPPER_CLASS} cannot chat: give it `{RUN}` or `{RUN_ASYNC}`")
    wrapper = wrapper_class()
    wrapper.setup()
    pipeline = pipeline_class()()
    pipeline.add_component(COMPONENT, AsyncWrapper(wrapper, name) if has_run_async else Wrapper(wrapper, name))
    return pipeline


@component
class Wrapper:
    """A wrapper with `run_chat_completion`."""

    def __init__(self, wrapper: Any, name: str) -> None:
        self.wrapper = wrapper
        self.name = name

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage],
        streaming_callback: StreamingCallback | None = None,
        generation_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """Answer, and stream the answer as it comes."""
        said = Said()
        chunks = self.wrapper.run_chat_completion(**_request(self.name, messages, generation_kwargs))
        with closing(_each(chunks)) as each:
            for item in each:
                chunk = said.take(item)
                if chunk is not None and streaming_callback is not None:
                    streaming_callback(chunk)
        return said.answer()

    def close(self) -> None:
        """Close what the wrapper holds of Haystack's."""
        for close in _held(self.wrapper, "close"):
            close()


@component
class AsyncWrapper:
    """A wrapper with `run_chat_completion_async`."""

    def __init__(self, wrapper: Any, name: str) -> None:
        self.wrapper = wrapper
        self.name = name

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage],
        streaming_callback: StreamingCallback | None = None,
        generation_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """Refuse: this one runs on the event loop."""
        raise NotImplementedError(f"{RUN_ASYNC} needs a Haystack that runs components on the event loop")

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage],
        streaming_callback: StreamingCallback | None = None,
        generation_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """Answer, and stream the answer as it comes."""
        said = Said()
        chunks: Any = self.wrapper.run_chat_completion_async(**_request(self.name, messages, generation_kwargs))
        if inspect.isawaitable(chunks):
            chunks = await chunks
        async with aclosing(_each_async(chunks)) as each:
            async for item in each:
                chunk = said.take(item)
                if chunk is not None and streaming_callback is not None and (put := streaming_callback(chunk)):
                    await put
        return said.answer()

    async def close_async(self) -> None:
        """Close what the wrapper holds of Haystack's."""
        for close in _held(self.wrapper, "close_async"):
            await close()


class Said:
    """What a wrapper has said so far."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._meta: dict[str, Any] = {"finish_reason": "stop"}  # which text alone cannot tell otherwise
        self._has_chunks = False
        self._ignored: set[str] = set()

    def take(self, item: Any) -> StreamingChunk | None:
        """Return what is to be streamed of what a wrapper yields; its events for user interfaces are not."""
        if isinstance(item, str):
            chunk = StreamingChunk(content=item)
        elif isinstance(item, StreamingChunk):
            chunk = item
            self._note(chunk)
        elif isinstance(item, ChatMessage):
            chunk = StreamingChunk(content=item.text or "", meta=item.meta)
        elif isinstance(item, Mapping) or hasattr(item, "to_event_dict"):
            self._ignore(type(cast("Any", item)).__name__)
            return None
        else:
            raise TypeError(f"a wrapper's answer is text, StreamingChunks or a ChatMessage, not {type(item).__name__}")
        self._text.append(chunk.content)
        return chunk

    def answer(self) -> dict[str, list[ChatMessage]]:
        """Return the whole answer as a generator's output."""
        return {"replies": [ChatMessage.from_assistant("".join(self._text), meta=self._meta)]}

    def _note(self, chunk: StreamingChunk) -> None:
        """Keep why the model stopped, and what it used; a model that never says why may have been cut short."""
        reason = getattr(chunk, "finish_reason", None) or chunk.meta.get("finish_reason")
        if reason or not self._has_chunks:
            self._meta["finish_reason"] = reason
        self._has_chunks = True
        self._meta.update({name: value for name in ("model", "usage") if (value := chunk.meta.get(name))})

    def _ignore(self, kind: str) -> None:
        if kind not in self._ignored:
            self._ignored.add(kind)
            log.warning("a hayhooks wrapper yields %s: only text and StreamingChunks are streamed", kind)


def _defines(wrapper_class: Any, method: str) -> bool:
    """Whether a wrapper has a method of its own: hayhooks' base class has all of them, and they raise."""
    owner = next((kind for kind in wrapper_class.__mro__ if method in vars(kind)), None)
    return owner is not None and owner.__name__ != "BasePipelineWrapper"


def _held(wrapper: Any, method: str) -> list[Callable[[], Any]]:
    """Return a method of each pipeline and component that a wrapper holds, whatever it calls them: an Agent is one."""
    held = cast("dict[str, Any]", vars(wrapper))
    parts = [part for part in held.values() if hasattr(part, "__haystack_input__") or hasattr(part, "walk")]
    return [found for part in parts if callable(found := getattr(part, method, None))]


def _request(name: str, messages: list[ChatMessage], generation_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of a wrapper's method: those of an OpenAI client's request."""
    spoken = [_openai_form(message) for message in messages]
    body = {**(generation_kwargs or {}), "model": name, "messages": spoken, "stream": True}
    return {"model": name, "messages": spoken, "body": body}


def _openai_form(message: ChatMessage) -> dict[str, Any]:
    convert = getattr(message, "to_openai_dict_format", None)
    return convert(require_tool_call_ids=False) if convert else {"role": message.role.value, "content": message.text}


def _each(chunks: Any) -> Generator[Any]:
    if isinstance(chunks, str | Mapping) or not isinstance(chunks, Iterable):
        yield chunks
        return
    items = cast("Iterable[Any]", chunks)
    try:
        yield from items
    finally:
        if inspect.isgenerator(items):
            items.close()


async def _each_in_thread(chunks: Any) -> AsyncGenerator[Any]:
    """Yield what blocks, such as hayhooks' `streaming_generator`, without holding up the event loop."""
    each, end = _each(chunks), object()
    try:
        while (chunk := await asyncio.to_thread(next, each, end)) is not end:
            yield chunk
    finally:
        with suppress(ValueError):  # it is still at its next chunk, in the thread, and will be collected after that
            each.close()


async def _each_async(chunks: Any) -> AsyncGenerator[Any]:
    if not isinstance(chunks, AsyncIterable):
        async for chunk in _each_in_thread(chunks):
            yield chunk
        return
    items = cast("AsyncIterable[Any]", chunks)
    try:
        async for chunk in items:
            yield chunk
    finally:
        if inspect.isasyncgen(items):
            await items.aclose()
