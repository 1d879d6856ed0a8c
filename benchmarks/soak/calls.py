"""Reading calls of gRPC: events and endings as the checker knows them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from benchmarks.soak.reading import Ending, Seen
from haystream.v1 import chat_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.soak.reading import Reading
    from benchmarks.soak.tally import Story

    EventCall: TypeAlias = (
        grpc.aio.UnaryStreamCall[chat_pb2.ChatRequest, chat_pb2.ChatResponse]
        | grpc.aio.UnaryStreamCall[chat_pb2.ResumeRequest, chat_pb2.ResumeResponse]
    )

DETAILS = "grpc-status-details-bin"
LAST_SEQ = "x-last-seq"


async def follow(  # noqa: PLR0913 - how to read is all there is
    call: EventCall,
    reading: Reading,
    story: Story,
    *,
    who: str = "chat",
    limit: int = 0,
    pause_seconds: float = 0,
    is_cut: bool = False,
) -> bool:
    """Read a call to its end, or until it has brought so many events; return whether it has ended.

    Of one whose connection is cut the last event may have come, and not its status.
    """
    try:
        async for response in call:
            seen = seen_of(response.event)
            story.saw(who, seen)
            reading.see(seen)
            if limit and reading.events >= limit:
                return False
            if pause_seconds:
                await asyncio.sleep(pause_seconds)
    except grpc.aio.AioRpcError as error:
        story.note(f"{who}: {error.code().name} {error.details()}")
        if not (is_cut and reading.is_finished):
            reading.end(ending_of(error))
        return True
    said = trailers_of(await call.trailing_metadata()).get(LAST_SEQ)
    if said != str(reading.last_seq):
        story.fail(f"{who}: {LAST_SEQ} is {said} after {reading.last_seq}")
    return True


def leave(call: EventCall, reading: Reading, story: Story, who: str = "chat") -> None:
    """Go away in the middle, unless that was the end."""
    call.cancel()
    if reading.ending is None:
        story.note(f"{who}: leaves after {reading.last_seq}")
        reading.end(Ending("left"))


def seen_of(event: chat_pb2.Event) -> Seen:
    """Return an event as the checker knows it."""
    kind = event.WhichOneof("kind") or ""
    reason = ""
    if kind == "finished":
        reason = chat_pb2.FinishReason.Name(event.finished.reason).removeprefix("FINISH_REASON_")
    if kind == "gap" and event.gap.to_seq != event.seq:
        reason = f"to {event.gap.to_seq}"
    return Seen(kind, event.seq, event.text.delta, event.gap.from_seq, reason)


def ending_of(error: grpc.aio.AioRpcError) -> Ending:
    """Return what a status says. One without Haystream's details comes from gRPC itself, and is not typed."""
    details = trailers_of(error.trailing_metadata()).get(DETAILS)
    if not isinstance(details, bytes):
        return Ending(error.code().name, is_typed=False)
    info, retry, can_retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), False
    for packed in status_pb2.Status.FromString(details).details:
        packed.Unpack(info)
        can_retry = packed.Unpack(retry) or can_retry
    last_seq = info.metadata.get("last_seq")
    return Ending(info.reason, is_retryable=can_retry, last_seq=None if last_seq is None else int(last_seq))


def trailers_of(metadata: Any) -> dict[str, Any]:
    """Return metadata by name."""
    return dict(cast("Iterable[tuple[str, Any]]", metadata or ()))
