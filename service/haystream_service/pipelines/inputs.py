"""From a call to the data of Haystack's `run`, with every wrong field named at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from haystack.dataclasses import ChatMessage, ChatRole

from haystream_service.errors import InvalidRequest, Violation, named
from haystream_service.pipelines.sockets import GENERATION_KWARGS, MESSAGES, STREAMING_CALLBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haystream_service.pipelines.call import Call
    from haystream_service.pipelines.shape import Shape

Data = dict[str, dict[str, Any]]


def data_for(shape: Shape, call: Call) -> Data:
    """Return the pipeline's data for a call. Raises InvalidRequest with all that is wrong."""
    violations = [*_wrong_names(shape, call), *_wrong_inputs(shape, call.inputs)]
    if violations:
        raise InvalidRequest(*violations)
    data: Data = defaultdict(dict)
    _fill_question(data, shape, call)
    _fill_generation_kwargs(data, shape, call)
    for component, values in call.inputs.items():
        data[component].update(values)
    missing = [
        Violation(socket.path, "this pipeline needs a value here")
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
    if call.generation_kwargs and not shape.generators:
        yield Violation("generation_kwargs", "no component of this pipeline takes generation settings")


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
    known = [name for owner, name in shape.sockets if owner == component]
    for name, value in values.items():
        field = f"inputs.{component}.{name}"
        socket = shape.sockets.get((component, name))
        if name == STREAMING_CALLBACK:
            yield Violation(field, "the streaming callback is the service's own and cannot be set")
        elif socket is None:
            yield Violation(field, f"there is no such open input; {component!r} has {named(known)}")
        elif complaint := socket.complaint(value):
            yield Violation(field, complaint)


def _fill_question(data: Data, shape: Shape, call: Call) -> None:
    messages = _messages(call)
    for socket in shape.question:
        if socket.name == MESSAGES:
            value: Any = messages or [ChatMessage.from_user(call.query)]
        else:
            value = _newest_question(messages) if messages else call.query
        data[socket.component][socket.name] = value


def _newest_question(messages: list[ChatMessage]) -> str:
    """Return what a pipeline that takes a question, not a conversation, is asked."""
    newest = messages[-1]
    if newest.role is not ChatRole.USER or not newest.text or newest.images:
        cure = "this pipeline takes one question: the newest message has to be the user's, and plain text"
        raise InvalidRequest(Violation("conversation.messages", cure))
    return newest.text


def _messages(call: Call) -> list[ChatMessage]:
    try:
        return [ChatMessage.from_dict(dict(message)) for message in call.messages]
    except (KeyError, TypeError, ValueError):
        raise InvalidRequest(
            Violation("conversation.messages", "a message mixes parts that do not go together in its role")
        ) from None


def _fill_generation_kwargs(data: Data, shape: Shape, call: Call) -> None:
    if call.generation_kwargs:
        for component in shape.generators:
            data[component][GENERATION_KWARGS] = dict(call.generation_kwargs)
