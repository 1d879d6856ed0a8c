"""One run of a Haystack pipeline: a call fitted to it, and what it brings put into the sink as it comes."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haystream_service.pipelines.callbacks import as_coroutine_function, callback_for
from haystream_service.pipelines.documents import document_events
from haystream_service.pipelines.generation import partial_outputs, wants_coroutine
from haystream_service.pipelines.inputs import data_for
from haystream_service.pipelines.outputs import finished, usages
from haystream_service.pipelines.sockets import GENERATION_KWARGS, STREAMING_CALLBACK, TIMEOUT
from haystream_service.pipelines.usage import summed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haystack import Document

    from haystream_service.pipelines.call import Call
    from haystream_service.pipelines.inputs import Data
    from haystream_service.pipelines.shape import Shape
    from haystream_service.run.events import Finished, Usage
    from haystream_service.run.run import Sink

    Outputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A call that fits the pipeline. `timed_components` take a timeout in seconds; some have one of their own."""

    data: Data
    streaming_components: Sequence[str]
    timed_components: Mapping[str, float | None]
    document_sockets: Mapping[str, Sequence[str]]
    include_outputs_from: frozenset[str]
    wanted: Mapping[str, frozenset[str] | None]


def prepare(shape: Shape, call: Call) -> PreparedCall:
    """Fit a call to a pipeline. Raises InvalidRequest."""
    data = data_for(shape, call)
    streaming = call.streaming_components or list(shape.streaming_components)
    for component in streaming:
        if options := shape.usage_options.get(component):
            given: dict[str, Any] = data.setdefault(component, {}).get(GENERATION_KWARGS) or {}
            data[component][GENERATION_KWARGS] = {**options, **given}
    wanted: dict[str, frozenset[str] | None] = {
        component: frozenset(sockets) for component, sockets in shape.outputs.items()
    }
    wanted.update(dict.fromkeys(call.include_outputs_from))
    return PreparedCall(
        data=data,
        streaming_components=streaming,
        timed_components={
            component: socket.default if isinstance(socket.default, int | float) else None
            for (component, name), socket in shape.sockets.items()
            if name == TIMEOUT and name not in data.get(component, {})
        },
        document_sockets=shape.document_sockets,
        # Every generator's replies, wherever it stands: they tell the usage, and why the answer ends.
        include_outputs_from=frozenset(call.include_outputs_from).union(
            shape.streaming_components, shape.document_sockets, shape.outputs
        ),
        wanted=wanted,
    )


async def run_pipeline(pipeline: Any, call: PreparedCall, sink: Sink, seconds: float) -> Finished:
    """Run a pipeline; what it streams goes into the sink. Raises what Haystack raises."""
    data = {component: dict(values) for component, values in call.data.items()}
    for component in call.streaming_components:
        callback = callback_for(component, sink)
        if wants_coroutine(pipeline, component):
            callback = as_coroutine_function(callback)
        data.setdefault(component, {})[STREAMING_CALLBACK] = callback
    for component, own_seconds in call.timed_components.items():
        timeout = seconds if own_seconds is None else min(seconds, own_seconds)
        data.setdefault(component, {})[TIMEOUT] = timeout
    progress = Progress(sink, call.document_sockets)
    partials = partial_outputs(pipeline, data, set(call.include_outputs_from))
    async with aclosing(partials):
        async for partial in partials:
            await progress.take(partial)
    progress.finish()
    return finished(progress.outputs, call.wanted)


class Progress:
    """What the components have brought so far: the outputs of each, and at the end those of all."""

    def __init__(self, sink: Sink, document_sockets: Mapping[str, Sequence[str]]) -> None:
        self.outputs: dict[str, Outputs] = {}
        self._sink = sink
        self._document_sockets = document_sockets
        self._shown: dict[tuple[str, str], list[tuple[str, float | None]]] = {}
        self._used: list[Usage] = []
        self._newest_used: list[Usage] = []

    async def take(self, partial: Mapping[str, Outputs]) -> None:
        """Take what Haystack yields: usage is told, and documents are shown."""
        self._used += self._newest_used
        self._newest_used = [usage for component, values in partial.items() for usage in usages(component, values)]
        self._sink.account(summed([*self._used, *self._newest_used]))
        self.outputs.update(partial)
        for component, values in partial.items():
            for socket in self._document_sockets.get(component, ()):
                await self._show(component, socket, values.get(socket))

    def finish(self) -> None:
        """Take note that what came last was the repetition of all, and did not count."""
        self._sink.account(summed(self._used))

    async def _show(self, component: str, socket: str, documents: list[Document] | None) -> None:
        """Send the documents of a component's output, once: at the end they come again."""
        if documents is None:
            return
        fingerprint = [(document.id, document.score) for document in documents]
        if self._shown.get((component, socket)) == fingerprint:
            return
        self._shown[component, socket] = fingerprint
        for event in document_events(component, documents):
            await self._sink.put(event)
