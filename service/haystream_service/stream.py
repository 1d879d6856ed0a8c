"""The caller of a streaming RPC as the writer sees it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import grpc.aio

from haystream_service.responses import fill_event, fill_heartbeat
from haystream_service.run.ending import DeadlineExceeded, Disconnected, Failed, Failure, FailureKind

if TYPE_CHECKING:
    from haystream.v1 import chat_pb2
    from haystream_service.rpc import Context
    from haystream_service.run.ending import Ending
    from haystream_service.run.events import Entry

    Response: TypeAlias = type[chat_pb2.ChatResponse | chat_pb2.ResumeResponse]

# The header that carries a deadline rounds it up by as much as a per cent, so the caller's own clock is the first.
DEADLINE_SLACK = 0.02


@dataclass(slots=True)
class StreamReader:
    """A caller that reads a run. A write waits for as long as HTTP/2's flow control says."""

    context: Context
    response: Response
    _seconds: float | None = field(init=False)

    def __post_init__(self) -> None:
        self._seconds = time_remaining(self.context)

    async def send(self, entry: Entry) -> None:
        """Send an event."""
        response = self.response()
        fill_event(response.event, entry)
        await self.context.write(response)

    async def beat(self, seq: int) -> None:
        """Send a heartbeat."""
        response = self.response()
        fill_heartbeat(response.event, seq)
        await self.context.write(response)

    def why_gone(self, error: BaseException) -> Ending:
        """Tell why the caller is gone: `context.cancelled()` is False in every case, but a deadline leaves no time."""
        if not isinstance(error, asyncio.CancelledError | grpc.aio.BaseError):
            return Failed(Failure(FailureKind.DEFECT))
        return DeadlineExceeded() if is_deadline_over(self.context, self._seconds) else Disconnected()


def time_remaining(context: Context) -> float | None:
    """Return the seconds until the caller's deadline; None where there is none, which the stubs do not know."""
    return context.time_remaining()


def is_deadline_over(context: Context, seconds: float | None) -> bool:
    """Tell whether a deadline that began with so many seconds is over, and not the caller's patience before it."""
    remaining = time_remaining(context)
    return seconds is not None and remaining is not None and remaining <= DEADLINE_SLACK * seconds
