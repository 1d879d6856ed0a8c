"""The queue between a pipeline's streaming callback and whoever reads the run.

Chunks enter from the event loop or from threads and leave on the loop. Knows nothing of who puts and who reads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from haystream_service.run.events import Entry, Event, size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

# An async generator that never really waits would keep the loop, and every other run, until its end. After this long
# with nothing taken out, a put lets the loop go round once.
FAIR_SLICE_SECONDS = 0.002


class RunStopped(BaseException):
    """Raised out of the streaming callback of a run that nobody wants any more, to stop the generator there."""


class CallbackQueue:
    """A queue bounded in bytes that stamps what enters with the run's next sequence number.

    Full: an async callback awaits, a sync callback blocks its thread. One entry always fits into an empty queue,
    however large it is. `on_filled` is called on the loop once per change from empty to filled, never once per chunk.

    State: `_entries` and `_size_bytes` change under `_lock`, since threads put; `_waiting` is the loop's alone.
    """

    def __init__(self, limit_bytes: int, on_filled: Callable[[], None]) -> None:
        self._limit_bytes = limit_bytes
        self._on_filled = on_filled
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._waiting: list[asyncio.Future[None]] = []
        self._entries: list[Entry] = []
        self._size_bytes = 0
        self._last_seq = 0
        self._filled_at = 0.0
        self._closed = False

    async def put(self, event: Event) -> None:
        """Put from the loop; waits while the queue is full. Raises RunStopped once it is closed."""
        size = size_bytes(event)
        while self._closed or not self._offer(event, size):
            await self._until_drained()
        if self._entries and time.monotonic() - self._filled_at > FAIR_SLICE_SECONDS:
            await asyncio.sleep(0)

    def put_from_thread(self, event: Event) -> None:
        """Put from a thread; blocks it while the queue is full. Raises RunStopped once it is closed."""
        size = size_bytes(event)
        with self._room:
            self._room.wait_for(lambda: self._closed or self._fits(size))
            if self._closed:
                raise RunStopped
            filled = self._append(event, size)
        if filled:
            self._loop.call_soon_threadsafe(self._on_filled)

    def drain(self) -> list[Entry]:
        """Take all that is there, and let everyone who waits for room go on. To be called on the loop."""
        with self._room:
            entries, self._entries = self._entries, []
            self._size_bytes = 0
            self._room.notify_all()
        self._release_waiting()
        return entries

    def close(self) -> None:
        """Take nothing more; what is there can still be drained. Whoever puts or waits to put is stopped."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._release_waiting()

    def _offer(self, event: Event, size: int) -> bool:
        with self._lock:
            if not self._fits(size):
                return False
            filled = self._append(event, size)
        if filled:
            self._on_filled()
        return True

    def _fits(self, size: int) -> bool:
        return not self._entries or self._size_bytes + size <= self._limit_bytes

    def _append(self, event: Event, size: int) -> bool:
        """Append and stamp; return whether the queue was empty before."""
        filled = not self._entries
        if filled:
            self._filled_at = time.monotonic()
        self._last_seq += 1
        self._entries.append(Entry(self._last_seq, event, size))
        self._size_bytes += size
        return filled

    async def _until_drained(self) -> None:
        if self._closed:
            # A cancellation on its way arrives here, and lets the component close its provider's stream.
            await asyncio.sleep(0)
            raise RunStopped
        drained = self._loop.create_future()
        self._waiting.append(drained)
        await drained

    def _release_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for drained in waiting:
            if not drained.done():
                drained.set_result(None)
