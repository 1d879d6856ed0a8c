"""The queue between a pipeline's streaming callback and whoever reads the run.

Chunks enter from the event loop or from threads and leave on the loop. Knows nothing of who puts and who reads.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from haystream_service.run.pace import Pace
from haystream_service.run.stretch import Stretch, size_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from haystream_service.run.events import Entry, Event
    from haystream_service.run.total import Total

# An async generator that never really waits would keep the loop, and every other run, until its end. Every so many puts
# let the loop go round once: that is about a millisecond's worth.
PUTS_PER_TURN = 64

# A cancellation passes from a run's task to its pipeline's and on to the component's, a turn of the loop for each.
CANCELLATION_TURNS = 10


class RunStopped(BaseException):
    """Raised out of the streaming callback of a run that nobody wants any more, to stop the generator there."""


class PutNotAwaited(Exception):
    """A component on the loop does not await its callback, and so cannot be held back."""

    def __init__(self) -> None:
        super().__init__("the component calls its streaming callback on the event loop and does not await the result")


class CallbackQueue:
    """A queue bounded in bytes that stamps what enters with the run's next sequence number, and joins what continues.

    Full: an async callback awaits, a sync callback blocks its thread. A queue is full over its own limit, and with
    anything in it while all queues together are over theirs: so whoever waits is always let go on by the reader of
    this queue. One event always fits into an empty queue, however large it is. `on_filled` is called on the loop once
    per change from empty to filled, never once per chunk.

    State: what is under `_lock` changes in threads, too; `_waiting` and `_owed_bytes` (what came in over the budget
    and that nobody awaits yet) are the loop's alone.
    """

    def __init__(self, limit_bytes: int, total: Total, on_filled: Callable[[], None]) -> None:
        self.pace = Pace()
        self._limit_bytes = limit_bytes
        self._total = total
        self._on_filled = on_filled
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._blocked = 0  # threads that wait for room: mostly none, and then nobody has to be told
        self._waiting: list[asyncio.Future[None]] = []
        self._owed_bytes = 0
        self._stretches: list[Stretch] = []
        self._size_bytes = 0
        self._last_seq = 0
        self._closed = False

    @property
    def size_bytes(self) -> int:
        """How much memory waits to be read."""
        return self._size_bytes

    @property
    def waiting_callbacks(self) -> int:
        """How many callbacks on the loop wait for room."""
        return len(self._waiting)

    @property
    def blocked_threads(self) -> int:
        """How many threads wait for room."""
        return self._blocked

    def put(self, event: Event) -> Awaitable[None]:
        """Put from the loop, at once; the result is to be awaited, and waits while the queue is full.

        Awaiting it raises RunStopped once the queue is closed. Raises PutNotAwaited where that is never done and the
        queue has come to twice its budget, or has taken as much as its budget while all were over theirs.
        """
        if self._closed:
            return _Stop()
        if self._owed_bytes > self._limit_bytes:
            raise PutNotAwaited
        with self._lock:
            before = self._size_bytes
            filled = self._append(event)
            grown = self._size_bytes - before
        self._total.on_loop_bytes += grown
        if filled:
            self._on_filled()
        if self._is_full():
            self._owed_bytes += grown
            return _Room(self, grown)
        return _DONE if self._last_seq % PUTS_PER_TURN else _TURN

    def put_from_thread(self, event: Event) -> None:
        """Put from a thread; blocks it while the queue is full. Raises RunStopped once it is closed."""
        with self._room:
            while not self._closed and self._is_full():
                self._blocked += 1
                self._room.wait()
                self._blocked -= 1
            if self._closed:
                raise RunStopped
            before = self._size_bytes
            filled = self._append(event)
            with self._total.lock:
                self._total.in_threads_bytes += self._size_bytes - before
        if filled:
            self._loop.call_soon_threadsafe(self._on_filled)

    def put_last(self, event: Event) -> None:
        """Put what nothing follows, whether there is room or not, and close. To be called on the loop."""
        with self._room:
            before = self._size_bytes
            filled = not self._closed and self._append(event)
            self._total.on_loop_bytes += self._size_bytes - before
            self._closed = True
            self._room.notify_all()
        self._release_waiting()
        if filled:
            self._on_filled()

    def drain(self) -> list[Entry]:
        """Take all that is there, and let everyone who waits for room go on. To be called on the loop."""
        with self._room:
            stretches, self._stretches = self._stretches, []
            self._total.on_loop_bytes -= self._size_bytes
            self._size_bytes = 0
            if self._blocked:
                self._room.notify_all()
        self._owed_bytes = 0
        if self._waiting:
            self._release_waiting()
        return [stretch.entry() for stretch in stretches]

    def close(self) -> None:
        """Take nothing more; what is there can still be drained. Whoever puts or waits to put is stopped."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._release_waiting()

    def _is_full(self) -> bool:
        total = self._total
        is_over = total.on_loop_bytes + total.in_threads_bytes > total.limit_bytes  # `surplus_bytes`, at half its cost
        return self._size_bytes > self._limit_bytes or (is_over and self._size_bytes > 0)

    def _append(self, event: Event) -> bool:
        """Append and stamp; return whether the queue was empty before."""
        self._last_seq += 1
        self.pace.add(event)
        size = size_bytes(event)
        if self._stretches and self._stretches[-1].take(event, self._last_seq, size):
            self._size_bytes += size
            return False
        stretch = Stretch(event, self._last_seq, size)
        self._size_bytes += stretch.size_bytes
        self._stretches.append(stretch)
        return len(self._stretches) == 1

    async def until_drained(self, owed_bytes: int) -> None:
        """Wait until somebody has read; the bytes no longer count as put by someone who does not wait."""
        self._owed_bytes = max(0, self._owed_bytes - owed_bytes)
        while not self._closed and self._is_full():
            drained = self._loop.create_future()
            self._waiting.append(drained)
            await drained
        if self._closed:
            await _Stop()

    def _release_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for drained in waiting:
            if not drained.done():
                drained.set_result(None)


class _Done:
    """Awaited without a wait."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class _Turn:
    """Awaited for one turn of the loop."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class _Stop:
    """Raises RunStopped, unless a cancellation comes first: that lets the component close its provider's stream."""

    def __await__(self) -> Generator[None, None, None]:
        for _ in range(CANCELLATION_TURNS):
            yield
        raise RunStopped


class _Room:
    """Awaited until there is room again."""

    def __init__(self, queue: CallbackQueue, owed_bytes: int) -> None:
        self._queue = queue
        self._owed_bytes = owed_bytes

    def __await__(self) -> Generator[None, None, None]:
        return self._queue.until_drained(self._owed_bytes).__await__()


_DONE, _TURN = _Done(), _Turn()
