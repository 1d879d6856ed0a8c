"""Open streams: each reads one call of the service and ends with exactly one last frame."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import grpc
import grpc.aio
from fastapi.responses import StreamingResponse

from haystream.v1 import chat_pb2
from haystream_gateway import sse
from haystream_gateway.frames import error_frame, event_frame
from haystream_gateway.problems import Problem, Rejection, problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from starlette.types import Receive, Scope, Send

ChatCall: TypeAlias = grpc.aio.UnaryStreamCall[chat_pb2.ChatRequest, chat_pb2.ChatResponse]

DRAINING = Problem(grpc.StatusCode.UNAVAILABLE, "DRAINING", "the gateway is shutting down", retry_seconds=1.0)
BROKEN_OFF = Problem(grpc.StatusCode.INTERNAL, "INTERNAL", "the service ended the stream without an ending")


class Streams:
    """All open streams of the gateway, so that they can be ended together."""

    def __init__(self) -> None:
        self._calls: set[ChatCall] = set()
        self._draining = False

    def __len__(self) -> int:
        return len(self._calls)

    def drain(self) -> None:
        """End every stream with a frame that says when to come back, and begin no new one."""
        self._draining = True
        for call in self._calls:
            call.cancel()

    async def response(self, call: ChatCall, run_id: str = "") -> EventStream:
        """Wait for a call's first event and return the stream of all. Raises Rejection where the call was refused.

        The call is cancelled when its stream ends, whichever way: the service stops the run then. `run_id` is the
        caller's own, where there is one: a call that attaches to a run may not begin with `started`.
        """
        if self._draining:
            call.cancel()
            raise Rejection(DRAINING)
        self._calls.add(call)
        try:
            first = await self._first(call)
        except BaseException:  # a cancellation included: nobody else knows the call
            self._release(call)
            raise
        return EventStream(self._frames(call, first, first.started.run_id or run_id), close=lambda: self._release(call))

    async def _first(self, call: ChatCall) -> chat_pb2.Event:
        try:
            response = await call.read()
        except grpc.aio.AioRpcError as error:
            raise Rejection(problem_of(error)) from None
        except asyncio.CancelledError:
            if _is_cancelled_itself():
                raise
            raise Rejection(DRAINING) from None
        if not isinstance(response, chat_pb2.ChatResponse):
            raise Rejection(BROKEN_OFF)
        return response.event

    async def _frames(self, call: ChatCall, event: chat_pb2.Event, run_id: str) -> AsyncGenerator[bytes, None]:
        last_seq = event.seq
        try:
            while True:
                yield event_frame(run_id, event)
                last_seq = event.seq
                if event.HasField("finished"):
                    return
                response = await call.read()
                if not isinstance(response, chat_pb2.ChatResponse):
                    yield error_frame(replace(BROKEN_OFF, run_id=run_id, last_seq=last_seq))
                    return
                event = response.event
        except grpc.aio.AioRpcError as error:
            yield error_frame(replace(problem_of(error), run_id=run_id, last_seq=last_seq))
        except asyncio.CancelledError:
            if _is_cancelled_itself():
                raise
            yield error_frame(replace(DRAINING, run_id=run_id, last_seq=last_seq))

    def _release(self, call: ChatCall) -> None:
        self._calls.discard(call)
        call.cancel()


class EventStream(StreamingResponse):
    """A stream of frames that closes its source with itself.

    Also when its reader left before the first frame, so that the generator never began, or while a send was blocked.
    """

    def __init__(self, frames: AsyncGenerator[bytes, None], close: Callable[[], None]) -> None:
        super().__init__(frames, headers=sse.HEADERS, media_type=sse.MEDIA_TYPE)
        self._frames = frames
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all frames."""
        try:
            async with aclosing(self._frames):
                await super().__call__(scope, receive, send)
        finally:
            self._close()


def _is_cancelled_itself() -> bool:
    """Whether this task was cancelled, rather than the call that it reads."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
