"""Open streams: each reads one call of the service, and is closed with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc.aio

from haystream.v1 import chat_pb2
from haystream_gateway.problems import SERVICE_SILENT, Code, Problem, Rejection, problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from haystream_gateway.upstream import EventCall

DRAINING = Problem(Code.UNAVAILABLE, "DRAINING", "the gateway is shutting down", retry_seconds=1.0)
BROKEN_OFF = Problem(Code.INTERNAL, "INTERNAL", "the service ended the stream without an ending")

# The service names the run in the initial metadata of a stream that may have nothing to say for a while.
TAKEN = "x-run-id"
LEFT = "LEFT"
NOTHING_MORE = "NOTHING_MORE"
READER_LEFT = Problem(Code.CANCELLED, LEFT, "the reader has left")


class Streams:
    """All open streams of the gateway, so that they can be ended together.

    `on_ended` is told how each ended: by its finish reason, its error's reason, or as LEFT by its reader.
    """

    def __init__(self, silence_seconds: float, on_ended: Callable[[str], None]) -> None:
        self._silence_seconds = silence_seconds
        self._on_ended = on_ended
        self._open: set[RunStream] = set()
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_draining(self) -> bool:
        """Whether no new stream is begun any more."""
        return self._is_draining

    def drain(self) -> None:
        """End every stream with a problem that says when to come back, and begin no new one."""
        self._is_draining = True
        for stream in self._open:
            stream.end(DRAINING)

    def open(self, call: EventCall, run_id: str = "", after_seq: int = 0) -> RunStream:
        """Return the stream of a call, to be begun, and to be closed whatever happens.

        Raises Rejection where the gateway drains. `run_id` and `after_seq` are what a caller knows who comes back.
        """
        if self._is_draining:
            call.cancel()
            raise Rejection(DRAINING)
        stream = RunStream(call, run_id, after_seq, self._silence_seconds, on_closed=self._forget)
        self._open.add(stream)
        return stream

    def _forget(self, stream: RunStream) -> None:
        self._open.discard(stream)
        self._on_ended(stream.ending)


class RunStream:
    """The events of one call, which is cancelled when the stream is closed: the service learns that its reader left.

    `ending` is how it has ended, as a word; `last_seq` the number of the newest event that was read; `is_silent` tells
    that the service has taken the call, and had nothing to say yet.
    """

    def __init__(
        self,
        call: EventCall,
        run_id: str,
        last_seq: int,
        silence_seconds: float,
        on_closed: Callable[[RunStream], None],
    ) -> None:
        self.run_id = run_id
        self.last_seq = last_seq
        self.is_silent = False
        self.ending = LEFT
        self._call = call
        self._on_closed = on_closed
        self._first: chat_pb2.Event | None = None
        self._second: chat_pb2.Event | None = None
        self._failure: Rejection | None = None
        self._why_ended: Problem | None = None
        self._is_closed = False
        self._silence = Silence(silence_seconds, lambda: self.end(SERVICE_SILENT))

    @property
    def has_failed(self) -> bool:
        """Whether the first thing that the service has said is how the run has failed."""
        return self._failure is not None

    async def begin(self) -> bool:
        """Wait until the service has taken the call; return whether there is, or will be, anything to read.

        Raises Rejection where the service refuses.
        """
        self._silence.begins()
        try:
            metadata = await self._call.initial_metadata()
            self.is_silent = any(name == TAKEN for name, _ in metadata)
            if not self.is_silent:
                self._first = await self._read()
        except asyncio.CancelledError:
            self._raise_why_ended()
            raise
        except Rejection as rejection:
            if not rejection.problem.run_id:
                raise
            self._failure = rejection  # no refusal, but how the run has ended
            return True
        if self._first is not None:
            self.run_id = self._first.started.run_id or self.run_id
        elif not self.is_silent:
            self.ending = NOTHING_MORE
            return False
        return True

    async def peek(self) -> None:
        """Read on until there is more than `started`; `events` has it all the same. Raises Rejection as that does.

        A heartbeat counts: who waits for the first word is to see by then that something is there.
        """
        self._first = await self._beginning()
        self.run_id = self._first.started.run_id or self.run_id
        if self._first.HasField("started"):
            self._second = await self._next()

    async def events(self) -> AsyncGenerator[chat_pb2.Event, None]:
        """Yield all events; `finished` is the last. Raises Rejection where the stream ends in any other way."""
        try:
            event = await self._beginning()
            while True:
                self.last_seq = event.seq
                yield event
                if event.HasField("finished"):
                    self.ending = chat_pb2.FinishReason.Name(event.finished.reason).removeprefix("FINISH_REASON_")
                    return
                event = await self._next()
        except Rejection as rejection:
            raise Rejection(replace(rejection.problem, run_id=self.run_id, last_seq=self.last_seq)) from None

    def end(self, why: Problem) -> None:
        """End the stream for a reason of the gateway's own."""
        self._why_ended = why
        self._call.cancel()

    def close(self) -> None:
        """Cancel the call, which changes nothing where that has ended; a read that waits ends. May be called twice."""
        if not self._is_closed:
            self._is_closed = True
            self._silence.stop()
            self.end(READER_LEFT)
            self._on_closed(self)

    async def _beginning(self) -> chat_pb2.Event:
        if self._failure is not None:
            raise self._failure
        return self._first or await self._next()

    async def _next(self) -> chat_pb2.Event:
        held, self._second = self._second, None
        event = held or await self._read()
        if event is None:
            raise self._rejected(BROKEN_OFF)
        return event

    async def _read(self) -> chat_pb2.Event | None:
        """Return the next event, or None at the call's own end. Raises Rejection where it has failed."""
        self._silence.begins()
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._rejected(problem_of(error)) from None
        except asyncio.CancelledError:
            self._raise_why_ended()
            raise
        finally:
            self._silence.ends()
        if isinstance(response, chat_pb2.ChatResponse | chat_pb2.ResumeResponse):
            return response.event
        return None

    def _raise_why_ended(self) -> None:
        """Raise a Rejection where the call was cancelled, rather than the task that reads it."""
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise self._rejected(self._why_ended or BROKEN_OFF) from None

    def _rejected(self, problem: Problem) -> Rejection:
        self.ending = problem.reason
        return Rejection(problem)


class Silence:
    """Calls back when a wait takes longer than it may. One timer for all waits, which only moves when it fires."""

    def __init__(self, seconds: float, on_too_long: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_too_long = on_too_long
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer = self._loop.call_later(seconds, self._look)

    def begins(self) -> None:
        """Note that a wait has begun."""
        self._since = self._loop.time()

    def ends(self) -> None:
        """Note that the wait is over."""
        self._since = None

    def stop(self) -> None:
        """Stop for good."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        due = (now if self._since is None else self._since) + self._seconds
        if due <= now:
            self._on_too_long()
        else:
            self._timer = self._loop.call_at(due, self._look)
