"""What a Haystack pipeline is made of, as far as its callers can see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args, get_origin

from haystack.dataclasses import Document

from haystream_service.errors import PipelineFileError, named
from haystream_service.pipelines.files.manifest import BLOCK
from haystream_service.pipelines.generation import components_of, every_output, runs_on_loop
from haystream_service.pipelines.question import question_sockets
from haystream_service.pipelines.sockets import GENERATION_KWARGS, STREAMING_CALLBACK, Socket, open_sockets
from haystream_service.pipelines.usage import usage_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haystream_service.pipelines.files.manifest import Manifest

    Sockets = Mapping[str, Mapping[str, Any]]


class Cancellation(Enum):
    """How a run can be stopped: at once, at a model's next chunk, or not before its end."""

    IMMEDIATE = 1
    NEXT_CHUNK = 2
    NONE = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """A pipeline's components, inputs and outputs. `outputs` are those that callers see unasked."""

    components: Mapping[str, str]
    sockets: Mapping[tuple[str, str], Socket]
    question: Sequence[Socket]
    streaming_components: Sequence[str]
    generators: Sequence[str]
    usage_options: Mapping[str, Mapping[str, Any]]
    document_sockets: Mapping[str, Sequence[str]]
    outputs: Sockets
    cancellation: Cancellation
    edges: Sequence[tuple[str, str]]

    def inputs_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the inputs that a caller may set on top of the question."""
        settable = [socket for socket in self.sockets.values() if socket.is_settable]
        owners = dict.fromkeys(socket.component for socket in settable)
        needed = [socket for socket in settable if socket.is_mandatory and socket not in self.question]
        return _object_schema(
            {
                owner: _object_schema(
                    {socket.name: socket.schema() for socket in settable if socket.component == owner},
                    [socket.name for socket in needed if socket.component == owner],
                )
                for owner in owners
            },
            list(dict.fromkeys(socket.component for socket in needed)),
        )

    def graph(self) -> str:
        """Return the pipeline as a Mermaid flowchart."""
        numbers = {name: f"c{number}" for number, name in enumerate(self.components)}
        nodes = [f'  {numbers[name]}["{name} ({kind})"]' for name, kind in self.components.items()]
        arrows = [f"  {numbers[sender]} --> {numbers[receiver]}" for sender, receiver in self.edges]
        return "\n".join(["flowchart TD", *nodes, *arrows])


def shape_of(pipeline: Any, manifest: Manifest) -> Shape:
    """Look at a pipeline, and at what its owner says. Raises PipelineFileError where the two do not go together."""
    components = components_of(pipeline)
    sockets = open_sockets(pipeline, manifest)
    question = question_sockets(sockets, components, manifest)
    _check_that_all_can_be_set(sockets, question)
    streaming = _streaming_components(pipeline, manifest)
    generators = [component for component, name in sockets if name == GENERATION_KWARGS]
    return Shape(
        components={name: type(components.get(name, pipeline)).__name__ for name in _names(pipeline, components)},
        sockets=sockets,
        question=question,
        streaming_components=streaming,
        generators=generators,
        usage_options={name: usage_options(components.get(name)) for name in generators},
        document_sockets=_document_sockets(pipeline),
        outputs=_outputs(pipeline, manifest),
        cancellation=_cancellation(pipeline, streaming, components),
        edges=_edges(pipeline),
    )


def _object_schema(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _check_that_all_can_be_set(sockets: Mapping[tuple[str, str], Socket], question: Sequence[Socket]) -> None:
    for socket in sockets.values():
        if socket.is_mandatory and not socket.is_settable and socket not in question:
            raise PipelineFileError(
                f"{socket.path} needs a value, and no caller can give it one: connect it, give it a default, or list "
                f"it under `{BLOCK}: {{inputs: …}}`"
            )


def _streaming_components(pipeline: Any, manifest: Manifest) -> list[str]:
    able = [name for name, inputs in pipeline.inputs().items() if STREAMING_CALLBACK in inputs]
    if manifest.streaming_components in (None, "all"):
        return able
    if manifest.streaming_components == "last":
        return able[-1:]
    for name in manifest.streaming_components:
        if name not in able:
            raise PipelineFileError(f"`streaming_components`: {name!r} does not stream; those that do: {named(able)}")
    return list(manifest.streaming_components)


def _names(pipeline: Any, components: Mapping[str, Any]) -> list[str]:
    """Return the components' names, from their sockets where the pipeline does not tell."""
    return list(components or dict.fromkeys([*pipeline.inputs(), *pipeline.outputs()]))


def _edges(pipeline: Any) -> list[tuple[str, str]]:
    graph = getattr(pipeline, "graph", None)
    return [] if graph is None else list(dict.fromkeys((sender, receiver) for sender, receiver, *_ in graph.edges))


def _outputs(pipeline: Any, manifest: Manifest) -> Sockets:
    """Return the outputs that callers see: those of the leaves, unless the owner says which."""
    if manifest.outputs is None:
        outputs: Sockets = pipeline.outputs()
        return outputs
    every = every_output(pipeline)
    chosen: dict[str, dict[str, Any]] = {}
    for path in manifest.outputs:
        component, _, name = path.partition(".")
        if name not in every.get(component, {}):
            known = named([f"{owner}.{socket}" for owner, names in every.items() for socket in names])
            raise PipelineFileError(f"`outputs`: there is no output {path}; this pipeline has {known}")
        chosen.setdefault(component, {})[name] = every[component][name]
    return chosen


def _document_sockets(pipeline: Any) -> dict[str, list[str]]:
    """Return the outputs that bring documents, by component."""
    found = {
        component: [name for name, details in sockets.items() if _is_documents(details["type"])]
        for component, sockets in every_output(pipeline).items()
    }
    return {component: names for component, names in found.items() if names}


def _is_documents(annotation: Any) -> bool:
    """Whether a type is a list of documents, in whichever spelling, or such a list or nothing."""
    arguments = get_args(annotation)
    if get_origin(annotation) is list:
        return arguments == (Document,)
    return any(_is_documents(argument) for argument in arguments)


def _cancellation(pipeline: Any, streaming: Sequence[str], components: Mapping[str, Any]) -> Cancellation:
    """Return how a run can be stopped: what streams is what takes long, or else everything may."""
    if runs_on_loop(pipeline) and all(_is_async(components.get(name)) for name in streaming or components):
        return Cancellation.IMMEDIATE
    return Cancellation.NEXT_CHUNK if streaming else Cancellation.NONE


def _is_async(component: Any) -> bool:
    """Whether a component runs on the event loop, its model included, such as an Agent's."""
    is_async = bool(getattr(component, "__haystack_supports_async__", False))
    model = getattr(component, "chat_generator", None)
    return is_async and (model is None or _is_async(model))
