"""From the contract's events to the frames that browsers see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from google.protobuf.json_format import MessageToDict

from haystream.v1 import chat_pb2
from haystream_gateway.sse import KEEP_ALIVE, frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable

    from google.protobuf.message import Message
    from google.protobuf.struct_pb2 import Struct

    from haystream_gateway.problems import Problem

_REASON_PREFIX = "FINISH_REASON_"


async def event_frames(
    run_id: str, events: AsyncIterable[chat_pb2.Event], *, label_components: bool = False
) -> AsyncGenerator[bytes, None]:
    """Yield events as frames. To label components a frame says whose text follows, each time that this changes."""
    speaker: tuple[str, int] | None = None
    async for event in events:
        if label_components and event.HasField("text") and (event.text.component, event.text.index) != speaker:
            speaker = event.text.component, event.text.index
            yield frame("component", {"component": event.text.component, "index": event.text.index})
        yield event_frame(run_id, event)


def event_frame(run_id: str, event: chat_pb2.Event) -> bytes:  # noqa: PLR0911 - one return per kind
    """Return an event as a frame; a heartbeat as a comment."""
    kind = event.WhichOneof("kind")
    event_id = f"{run_id}:{event.seq}"
    match kind:
        case "started":
            return frame("metadata", {"run_id": event.started.run_id, "pipeline": event.started.pipeline}, event_id)
        case "text":
            return frame("data", event.text.delta, event_id)
        case "finished":
            return frame("end", _end(event.finished), event_id)
        case "heartbeat":
            return KEEP_ALIVE
        case None:
            return b""  # a kind that is newer than this gateway
        case "documents":
            return frame("documents", documents_of(event.documents), event_id)
        case "gap":
            return frame("gap", {"from_seq": event.gap.from_seq, "to_seq": event.gap.to_seq}, event_id)
        case _:
            return frame(kind, json_of(getattr(event, kind)), event_id)


def error_frame(problem: Problem) -> bytes:
    """Return the frame that ends a stream which failed."""
    return frame("error", problem.frame_data(), problem.event_id)


def _end(finished: chat_pb2.Finished) -> dict[str, Any]:
    return {
        "reason": chat_pb2.FinishReason.Name(finished.reason).removeprefix(_REASON_PREFIX),
        "usage": [
            {
                "component": usage.component,
                "model": usage.model,
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            }
            for usage in finished.usage
        ],
        "outputs": plain(finished.outputs),
        "omitted_outputs": list(finished.omitted_outputs),
    }


def json_of(message: Message) -> dict[str, Any]:
    """Return a message as JSON values with the contract's names; zeros and empty texts included."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def documents_of(found: chat_pb2.Documents) -> dict[str, Any]:
    """Return documents as JSON values; whole numbers of their metadata are whole."""
    values = json_of(found)
    for document in values["documents"]:
        if "meta" in document:
            document["meta"] = _whole(document["meta"])
    return values


def plain(struct: Struct) -> dict[str, Any]:
    """Return a Struct as JSON values; whole numbers, which a Struct holds as floats, are whole again."""
    return {name: _whole(value) for name, value in MessageToDict(struct).items()}


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _whole(item) for name, item in cast("dict[str, Any]", value).items()}
        case list():
            return [_whole(item) for item in cast("list[Any]", value)]
        case _:
            return value
