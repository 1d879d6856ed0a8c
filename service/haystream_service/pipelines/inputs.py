"""From a call to the data of Haystack's `run`, with every wrong field named at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from haystack.dataclasses import ChatMessage

from haystream_service.errors import InvalidRequest, Violation, named, told
from haystream_service.pipelines.messages import FIELD, chat_messages, newest_question
from haystream_service.pipelines.sockets import GENERATION_KWARGS, STREAMING_CALLBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haystream_service.pipelines.call import Call
    from haystream_service.pipelines.shape import Shape
    from haystream_service.pipelines.sockets import Socket

Data = dict[str, dict[str, Any]]


def data_for(shape: Shape, call: Call) -> Data:
    """Return the pipeline's data for a call. Raises InvalidRequest with what is wrong."""
    violations = told(
        chain(
            _wrong_names(shape, call), _wrong_inputs(shape, call.inputs), _wrong_settings(shape, call.generation_kwargs)
        )
    )
    data: Data = defaultdict(dict)
    try:
        _fill_question(data, shape, call)
    except InvalidRequest as refused:
        violations += refused.violations
    if violations:
        raise InvalidRequest(*violations)
    for socket in _generation_sockets(shape) if call.generation_kwargs else ():
        data[socket.component][socket.name] = dict(call.generation_kwargs)
    for component, values in call.inputs.items():
        data[component].update(values)
    missing = [
        Violation(f"inputs.{socket.path}", "this pipeline needs a value here")
        for (component, name), socket in shape.sockets.items()
        if socket.is_mandatory and name not in data[component]
    ]
    if missing:
        raise InvalidRequest(*missing)
    return dict(data)


def _wrong_names(shape: Shape, call: Call) -> Iterator[Violation]:
    streaming = shape.streaming_components
    for index, name in enumerate(call.streaming_components):
        if name not in streaming:
            why = "does not stream" if name in shape.components else "is not in this pipeline"
            yield Violation(
                f"streaming_components[{index}]", f"{name!r} {why}; those that stream: {named(list(streaming))}"
            )
    for index, name in enumerate(call.include_outputs_from):
        if name not in shape.components:
            yield Violation(
                f"include_outputs_from[{index}]",
                f"{name!r} is not in this pipeline; it has {named(list(shape.components))}",
            )


def _wrong_settings(shape: Shape, settings: Mapping[str, Any]) -> Iterator[Violation]:
    if not settings:
        return
    sockets = _generation_sockets(shape)
    if not sockets:
        yield Violation(GENERATION_KWARGS, "no component of this pipeline takes generation settings from callers")
    for complaint in dict.fromkeys(socket.complaint(settings) for socket in sockets):
        if complaint:
            yield Violation(GENERATION_KWARGS, complaint)


def _generation_sockets(shape: Shape) -> list[Socket]:
    sockets = [shape.sockets[component, GENERATION_KWARGS] for component in shape.generators]
    return [socket for socket in sockets if socket.is_settable]


def _wrong_inputs(shape: Shape, inputs: Mapping[str, Any]) -> Iterator[Violation]:
    for component, values in inputs.items():
        if component not in shape.components:
            yield Violation(
                f"inputs.{component}", f"there is no such component; this pipeline has {named(list(shape.components))}"
            )
        elif not isinstance(values, Mapping):
            yield Violation(f"inputs.{component}", "expected an object of input names and values")
        else:
            yield from _wrong_values(shape, component, cast("Mapping[str, Any]", values))


def _wrong_values(shape: Shape, component: str, values: Mapping[str, Any]) -> Iterator[Violation]:
    known = [name for (owner, name), socket in shape.sockets.items() if owner == component and socket.is_settable]
    for name, value in values.items():
        field = f"inputs.{component}.{name}"
        socket = shape.sockets.get((component, name))
        if name == STREAMING_CALLBACK:
            yield Violation(field, "the streaming callback is the service's own and cannot be set")
        elif socket is None:
            yield Violation(field, f"there is no such open input; of {component!r} callers may set {named(known)}")
        elif complaint := socket.complaint(value):
            yield Violation(field, complaint)


def _fill_question(data: Data, shape: Shape, call: Call) -> None:
    messages = chat_messages(call.messages)
    for socket in shape.question:
        if socket.takes_messages:
            value: Any = messages or [ChatMessage.from_user(call.query)]
        else:
            value = newest_question(call)
        if isinstance(value, str) and (complaint := socket.complaint_about_limits(value)):
            raise InvalidRequest(Violation(FIELD if call.messages else "query", complaint))
        data[socket.component][socket.name] = value
