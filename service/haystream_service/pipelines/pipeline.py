"""A Haystack pipeline as the service sees it: its shape, and one run of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from haystack.dataclasses import StreamingChunk

from haystream_service.pipelines.chunks import events_of
from haystream_service.pipelines.inputs import data_for
from haystream_service.pipelines.outputs import finished
from haystream_service.pipelines.sockets import (
    GENERATION_KWARGS,
    STREAMING_CALLBACK,
    Socket,
    open_sockets,
    question_sockets,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from haystack import Pipeline

    from haystream_service.pipelines.call import Call
    from haystream_service.pipelines.inputs import Data
    from haystream_service.run.events import Finished
    from haystream_service.run.run import Sink


@dataclass(frozen=True, slots=True)
class Shape:
    """What a pipeline is made of, as far as callers can see it. `streaming_components` tells which are async."""

    components: Mapping[str, str]
    sockets: Mapping[tuple[str, str], Socket]
    question: list[Socket]
    streaming_components: Mapping[str, bool]
    generators: list[str]
    outputs: Mapping[str, Mapping[str, Any]]
    edges: list[tuple[str, str]]

    def inputs_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the inputs that a caller may set on top of the question."""
        settable = [socket for socket in self.sockets.values() if socket.values is not None]
        owners = dict.fromkeys(socket.component for socket in settable)
        return _object_schema(
            {
                owner: _object_schema(
                    {socket.name: socket.schema() for socket in settable if socket.component == owner},
                    [s.name for s in settable if s.component == owner and s.is_mandatory and s not in self.question],
                )
                for owner in owners
            }
        )

    def graph(self) -> str:
        """Return the pipeline as a Mermaid flowchart."""
        numbers = {name: f"c{number}" for number, name in enumerate(self.components)}
        nodes = [f'  {numbers[name]}["{name} ({kind})"]' for name, kind in self.components.items()]
        arrows = [f"  {numbers[sender]} --> {numbers[receiver]}" for sender, receiver in self.edges]
        return "\n".join(["flowchart TD", *nodes, *arrows])


def _object_schema(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def shape_of(pipeline: Pipeline) -> Shape:
    """Look at a pipeline. Raises PipelineFileError where no input takes the question."""
    edges: Iterable[tuple[str, str, str]] = cast("Any", pipeline).graph.edges
    inputs, sockets = pipeline.inputs(), open_sockets(pipeline)
    instances = dict(pipeline.walk())
    return Shape(
        components={name: type(instance).__name__ for name, instance in instances.items()},
        sockets=sockets,
        question=question_sockets(sockets),
        streaming_components={
            name: bool(getattr(instance, "__haystack_supports_async__", False))
            for name, instance in instances.items()
            if STREAMING_CALLBACK in inputs.get(name, {})
        },
        generators=[component for component, name in sockets if name == GENERATION_KWARGS],
        outputs=pipeline.outputs(),
        edges=list(dict.fromkeys((sender, receiver) for sender, receiver, *_ in edges)),
    )


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A call that fits the pipeline."""

    data: Data
    streaming_components: Mapping[str, bool]
    include_outputs_from: frozenset[str]
    wanted: Mapping[str, frozenset[str] | None]


def prepare(shape: Shape, call: Call) -> PreparedCall:
    """Fit a call to a pipeline. Raises InvalidRequest."""
    data = data_for(shape, call)
    chosen = call.streaming_components or list(shape.streaming_components)
    wanted: dict[str, frozenset[str] | None] = {
        component: frozenset(sockets) for component, sockets in shape.outputs.items()
    }
    wanted.update(dict.fromkeys(call.include_outputs_from))
    return PreparedCall(
        data=data,
        streaming_components={name: shape.streaming_components[name] for name in chosen},
        # Every generator's replies, wherever it stands: they tell the usage, and why the answer ends.
        include_outputs_from=frozenset(call.include_outputs_from) | frozenset(shape.streaming_components),
        wanted=wanted,
    )


async def run_pipeline(pipeline: Pipeline, call: PreparedCall, sink: Sink) -> Finished:
    """Run a pipeline; what it streams goes into the sink. Raises what Haystack raises."""
    data = {component: dict(values) for component, values in call.data.items()}
    for component, is_async in call.streaming_components.items():
        make = async_callback if is_async else sync_callback
        data.setdefault(component, {})[STREAMING_CALLBACK] = make(component, sink)
    outputs = await pipeline.run_async(data, include_outputs_from=set(call.include_outputs_from))
    return finished(outputs, call.wanted)


# Functions, not objects with methods: Haystack deep-copies a component's inputs, and of these only functions stay
# what they are.


def async_callback(component: str, sink: Sink) -> Callable[[StreamingChunk], Awaitable[None]]:
    """Return a callback for a component that runs on the event loop: it waits while the reader is behind."""

    async def callback(chunk: StreamingChunk) -> None:
        for event in events_of(chunk, component):
            await sink.put(event)

    return callback


def sync_callback(component: str, sink: Sink) -> Callable[[StreamingChunk], None]:
    """Return a callback for a component that runs in a thread: it blocks that thread while the reader is behind."""

    def callback(chunk: StreamingChunk) -> None:
        for event in events_of(chunk, component):
            sink.put_from_thread(event)

    return callback
