"""A response that streams frames, and closes what it reads from with itself."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastapi.responses import StreamingResponse

from haystream_gateway import sse
from haystream_gateway.departure import noticing_departure
from haystream_gateway.problems import DEFECT, Rejection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable

    from starlette.types import Receive, Scope, Send
    from structlog.typing import FilteringBoundLogger

    from haystream.v1 import chat_pb2
    from haystream_gateway.problems import Problem
    from haystream_gateway.streams import RunStream


@dataclass(frozen=True, slots=True)
class Dialect:
    """How events are told: frame by frame, and as a last frame where a stream ends with a problem."""

    frames: Callable[[str, AsyncIterable[chat_pb2.Event]], AsyncGenerator[bytes, None]]
    last_frame: Callable[[Problem], bytes]


class EventStream(StreamingResponse):
    """A run in a dialect. Its stream is closed when the frames end, or their reader leaves.

    Also where that one left before the first frame, or while a send was blocked: the server ends a send to nobody.
    """

    def __init__(
        self, stream: RunStream, dialect: Dialect, on_sent: Callable[[bytes], None], log: FilteringBoundLogger
    ) -> None:
        self._stream = stream
        self._dialect = dialect
        self._on_sent = on_sent
        self._log = log
        self._frames = self._all_frames()
        super().__init__(self._frames, headers=sse.HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all frames. Once their reader has left the stream is closed, and ends by itself."""
        try:
            async with aclosing(self._frames), noticing_departure(receive, self._stream.close):
                await self.stream_response(send)
        finally:
            self._stream.close()

    async def _all_frames(self) -> AsyncGenerator[bytes, None]:
        """Yield all frames; whatever happens the last one says how it ended."""
        stream = self._stream
        if stream.is_silent:  # first bytes at once: a proxy, too, has to see that something is there
            yield sse.KEEP_ALIVE
        try:
            async with aclosing(stream.events()) as events:
                async for frame in self._dialect.frames(stream.run_id, events):
                    self._on_sent(frame)
                    yield frame
        except Rejection as rejection:
            yield self._last_frame(rejection.problem)
        except Exception:  # noqa: BLE001 - a defect, whatever it is: the reader is to have a last frame all the same
            self._log.exception("defect", run_id=stream.run_id)
            stream.ending = DEFECT.reason
            yield self._last_frame(replace(DEFECT, run_id=stream.run_id, last_seq=stream.last_seq))

    def _last_frame(self, problem: Problem) -> bytes:
        frame = self._dialect.last_frame(problem)
        self._on_sent(frame)
        return frame
