"""HTTP connections that bound the head of a request, its size and its time, and what comes after an answer.

uvicorn bounds neither. Its keep-alive ends a connection that says nothing, and starts anew with every byte.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from haystream_gateway.problems import Code, Problem

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 30.0

# Who is answered before all of the body was sent gets to read that, and may send the rest: closing at once would make
# the system drop the answer with what nobody has read.
REST_SECONDS = 5.0

# A head that begins within a step, behind the request before it, is counted from the next step on.
STEP_BYTES = 4 * 1024

MALFORMED = Problem(Code.INVALID_ARGUMENT, "MALFORMED_REQUEST", "this is not HTTP", own_http_status=400)
HEAD_TOO_LARGE = Problem(
    Code.INVALID_ARGUMENT,
    "HEADERS_TOO_LARGE",
    f"the address and the headers may have no more than {MAX_HEAD_BYTES} bytes",
    own_http_status=431,
)


class BoundedHeads(HttpToolsProtocol):
    """A connection that is closed when the head of a request grows too large, or does not come.

    It always waits for one of three things: the head of a request, within a time; an answer; or the rest of a request
    that is answered, within a time. No byte makes these times longer.
    """

    head_seconds: ClassVar[float] = HEAD_SECONDS
    rest_seconds: ClassVar[float] = REST_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes: int | None = 0  # None while there is no head to come
        self._is_whole = True  # the newest request has come to its end
        self._timer: TimerHandle | None = None
        self._unanswered: list[RequestResponseCycle] = []

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more, and tell all requests whose answers are to come: uvicorn tells the newest alone."""
        self._wait_no_more()
        super().connection_lost(exc)
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Take what has come, step by step: the parser alone knows where a head ends, and where the next begins."""
        taken = 0
        while taken < len(data) and not self.transport.is_closing():
            step_bytes = STEP_BYTES
            if self._head_bytes is not None:
                step_bytes = min(STEP_BYTES, MAX_HEAD_BYTES - self._head_bytes)
                if step_bytes == 0:
                    self._refuse(HEAD_TOO_LARGE)
                    return
                self._head_bytes += min(step_bytes, len(data) - taken)
            step = data[taken : taken + step_bytes]
            taken += len(step)
            super().data_received(step)

    def on_message_begin(self) -> None:
        """Wait for the rest of a head."""
        super().on_message_begin()
        if self._head_bytes is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Wait no more."""
        self._wait_no_more()
        self._head_bytes = None
        self._is_whole = False
        super().on_headers_complete()
        cycles = (*self._unanswered, self.cycle)  # uvicorn's is None before the first
        self._unanswered = [cycle for cycle in cycles if cycle and not cycle.response_complete]

    def on_message_complete(self) -> None:
        """Wait for the next head, where the answer was there before."""
        super().on_message_complete()
        self._is_whole = True
        if self._is_answered:
            self._await_head()

    def on_response_complete(self) -> None:
        """Wait for what comes next: the rest of the request, or the next one."""
        super().on_response_complete()
        if not self._is_answered or self._head_bytes is not None:
            return  # the next request has come, or its beginning
        if self._is_whole:
            self._await_head()
        else:
            self._give_up_after(self.rest_seconds)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the shape of all refusals."""
        self._refuse(MALFORMED)

    @property
    def _is_answered(self) -> bool:
        return bool(self.cycle) and self.cycle.response_complete and not self.transport.is_closing()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._give_up_after(self.head_seconds)

    def _give_up_after(self, seconds: float) -> None:
        self._wait_no_more()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        response = problem.response()
        head = [f"HTTP/1.1 {response.status_code} Refused", "connection: close"]
        head += [f"{name.decode()}: {value.decode()}" for name, value in response.raw_headers]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + bytes(response.body))
        self.transport.close()
