"""From the run's events, and from what is known of a pipeline, to the contract's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.struct_pb2 import Struct

from haystream.v1 import chat_pb2
from haystream_service.pipelines.generation import haystack_version
from haystream_service.pipelines.shape import Cancellation
from haystream_service.run import events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haystream_service.pipelines.loading import LoadedPipeline
    from haystream_service.pipelines.registry import Slot

# A stock client takes 4 MiB in one message, and breaks the stream over a larger one.
OUTPUTS_LIMIT_BYTES = 3 * 1024 * 1024

_REASONS = {
    events.FinishReason.STOP: chat_pb2.FINISH_REASON_STOP,
    events.FinishReason.LENGTH: chat_pb2.FINISH_REASON_LENGTH,
    events.FinishReason.TOOL_CALLS: chat_pb2.FINISH_REASON_TOOL_CALLS,
    events.FinishReason.CONTENT_FILTER: chat_pb2.FINISH_REASON_CONTENT_FILTER,
    events.FinishReason.INCOMPLETE: chat_pb2.FINISH_REASON_INCOMPLETE,
}

_CANCELLATIONS = {
    Cancellation.IMMEDIATE: chat_pb2.CANCELLATION_IMMEDIATE,
    Cancellation.NEXT_CHUNK: chat_pb2.CANCELLATION_NEXT_CHUNK,
    Cancellation.NONE: chat_pb2.CANCELLATION_NONE,
}


def fill_event(message: chat_pb2.Event, entry: events.Entry) -> None:
    """Write an entry of a run into the contract's event. In place: messages that are given to others are copied."""
    message.seq = entry.seq
    match entry.event:
        case events.Text(component, index, delta):
            _fill_delta(message.text, component, index, delta)
        case events.Reasoning(component, index, delta):
            _fill_delta(message.reasoning, component, index, delta)
        case events.ToolCall(component, index, call_id, name, arguments_delta):
            call = chat_pb2.ToolCallDelta(
                component=component, index=index, id=call_id, name=name, arguments_delta=arguments_delta
            )
            message.tool_call.CopyFrom(call)
        case events.ToolResult() as answer:
            message.tool_result.CopyFrom(_tool_result(answer))
        case events.Documents(component, documents):
            message.documents.CopyFrom(chat_pb2.Documents(component=component, documents=map(_document, documents)))
        case events.Started(run_id, pipeline):
            message.started.CopyFrom(chat_pb2.Started(run_id=run_id, pipeline=pipeline))
        case events.Gap(from_seq, to_seq):
            message.gap.CopyFrom(chat_pb2.Gap(from_seq=from_seq, to_seq=to_seq))
        case events.Finished() as finished:
            message.finished.CopyFrom(_finished(finished))


def fill_heartbeat(message: chat_pb2.Event, seq: int) -> None:
    """Write a heartbeat; `seq` is the number of the event before."""
    message.seq = seq
    message.heartbeat.SetInParent()


def _fill_delta(message: chat_pb2.TextDelta | chat_pb2.ReasoningDelta, component: str, index: int, delta: str) -> None:
    message.component = component
    message.index = index
    message.delta = delta
    message.SetInParent()  # also where all three have their zero values


def struct_message(values: Mapping[str, Any]) -> Struct:
    """Return JSON-safe values as a Struct."""
    struct = Struct()
    struct.update(values)
    return struct


def pipeline_message(slot: Slot) -> chat_pb2.Pipeline:
    """Return a pipeline in short."""
    description = slot.loaded.source.manifest.description if slot.loaded is not None else ""
    return chat_pb2.Pipeline(
        name=slot.file.name, description=description, ready=slot.loaded is not None, error=slot.error
    )


def description_message(slot: Slot, loaded: LoadedPipeline) -> chat_pb2.GetPipelineResponse:
    """Return a pipeline at length."""
    shape = loaded.shape
    return chat_pb2.GetPipelineResponse(
        pipeline=pipeline_message(slot),
        inputs_schema=struct_message(shape.inputs_schema()),
        streaming_components=list(shape.streaming_components),
        outputs=[
            chat_pb2.PipelineOutput(component=component, name=name, type=_type_name(details["type"]))
            for component, sockets in shape.outputs.items()
            for name, details in sockets.items()
        ],
        cancellation=_CANCELLATIONS[shape.cancellation],
        graph=shape.graph(),
        haystack_version=haystack_version(),
    )


def _tool_result(answer: events.ToolResult) -> chat_pb2.ToolResult:
    return chat_pb2.ToolResult(
        component=answer.component,
        id=answer.id,
        name=answer.name,
        result=answer.result,
        is_error=answer.is_error,
        truncated=answer.is_truncated,
    )


def _document(document: events.Document) -> chat_pb2.Document:
    return chat_pb2.Document(
        id=document.id,
        content=document.content,
        score=document.score,
        meta=struct_message(document.meta),
        truncated=document.is_truncated,
    )


def _finished(finished: events.Finished) -> chat_pb2.Finished:
    outputs, omitted = _outputs_within(OUTPUTS_LIMIT_BYTES, finished.outputs)
    return chat_pb2.Finished(
        reason=_REASONS[finished.reason],
        usage=[
            chat_pb2.Usage(
                component=usage.component,
                model=usage.model,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                total_tokens=usage.total_tokens,
            )
            for usage in finished.usage
        ],
        outputs=outputs,
        omitted_outputs=omitted,
    )


def _outputs_within(limit_bytes: int, outputs: Mapping[str, Mapping[str, Any]]) -> tuple[Struct, list[str]]:
    """Return as many components' outputs as fit, the smallest first, and the names of the others."""
    structs = {component: struct_message(values) for component, values in outputs.items()}
    kept, omitted = Struct(), list[str]()
    for component, struct in sorted(structs.items(), key=lambda item: item[1].ByteSize()):
        if kept.ByteSize() + struct.ByteSize() <= limit_bytes:
            kept.fields[component].struct_value.CopyFrom(struct)
        else:
            omitted.append(component)
    return kept, omitted


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
