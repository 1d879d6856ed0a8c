"""What a Haystack pipeline is made of, as far as its callers can see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin

from haystack.components.agents import Agent
from haystack.dataclasses import Document

from haystream_service.pipelines.sockets import (
    GENERATION_KWARGS,
    STREAMING_CALLBACK,
    Socket,
    open_sockets,
    question_sockets,
)
from haystream_service.pipelines.usage import usage_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from haystack import Pipeline


@dataclass(frozen=True, slots=True)
class Shape:
    """A pipeline's components, inputs and outputs. `streaming_components` tells which of them are async all through."""

    components: Mapping[str, str]
    sockets: Mapping[tuple[str, str], Socket]
    question: list[Socket]
    streaming_components: Mapping[str, bool]
    generators: list[str]
    usage_options: Mapping[str, Mapping[str, Any]]
    document_sockets: Mapping[str, list[str]]
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
    generators = [component for component, name in sockets if name == GENERATION_KWARGS]
    return Shape(
        components={name: type(instance).__name__ for name, instance in instances.items()},
        sockets=sockets,
        question=question_sockets(sockets),
        streaming_components={
            name: _is_async(instance)
            for name, instance in instances.items()
            if STREAMING_CALLBACK in inputs.get(name, {})
        },
        generators=generators,
        usage_options={name: usage_options(instances[name]) for name in generators},
        document_sockets=_document_sockets(pipeline),
        outputs=pipeline.outputs(),
        edges=list(dict.fromkeys((sender, receiver) for sender, receiver, *_ in edges)),
    )


def _document_sockets(pipeline: Pipeline) -> dict[str, list[str]]:
    """Return the outputs that bring documents, by component."""
    outputs = pipeline.outputs(include_components_with_connected_outputs=True)
    found = {
        component: [name for name, details in sockets.items() if _is_documents(details["type"])]
        for component, sockets in outputs.items()
    }
    return {component: names for component, names in found.items() if names}


def _is_documents(annotation: Any) -> bool:
    """Whether a type is a list of documents, in whichever spelling, or such a list or nothing."""
    arguments = get_args(annotation)
    if get_origin(annotation) is list:
        return arguments == (Document,)
    return any(_is_documents(argument) for argument in arguments)


def _is_async(instance: Any) -> bool:
    """Whether a component runs on the event loop, its model included."""
    is_async = bool(getattr(instance, "__haystack_supports_async__", False))
    return is_async and (not isinstance(instance, Agent) or _is_async(instance.chat_generator))
