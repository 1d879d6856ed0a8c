"""The writer: brings one reader what a run says, as fast as the reader takes it. Knows no transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from haystream_service.run.ending import ReaderTooSlow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from haystream_service.run.ending import Ending
    from haystream_service.run.events import Entry
    from haystream_service.run.run import Run


class Reader(Protocol):
    """The far end of a stream. Both wait for as long as the transport's flow control says."""

    async def send(self, entry: Entry) -> None:
        """Send an event."""

    async def beat(self, seq: int) -> None:
        """Say that the run is alive; `seq` is the number of the event before."""


class Writer:
    """Follows one run for one reader.

    A heartbeat fills each silence of `heartbeat_seconds`. A reader that takes nothing for `slow_reader_seconds` while
    there is something for it is given up.
    """

    def __init__(self, run: Run, reader: Reader, *, heartbeat_seconds: float, slow_reader_seconds: float) -> None:
        self._run = run
        self._reader = reader
        self._heartbeat_seconds = heartbeat_seconds
        self._slow_reader_seconds = slow_reader_seconds
        self._something_new = asyncio.Event()
        self._patience: asyncio.Timeout | None = None  # while a send waits
        self._dismissal: Ending | None = None
        self.delivered_seq = 0

    def wake(self) -> None:
        """Look for something new to read."""
        self._something_new.set()

    def dismiss(self, ending: Ending) -> None:
        """Stop, also where a send waits for the reader."""
        self._dismissal = ending
        self._something_new.set()
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def follow(self) -> Ending:
        """Write until the run has ended and the reader has all of it; return how it ended for this reader."""
        pulse = Pulse(self._heartbeat_seconds, self.wake)
        try:
            with self._run.followed_by(self):
                return await self._follow(pulse)
        except TimeoutError:
            return self._dismissal or ReaderTooSlow()
        finally:
            pulse.stop()

    async def _follow(self, pulse: Pulse) -> Ending:
        while self._dismissal is None:
            self._something_new.clear()
            ending = self._run.ending  # before the read: what comes between the two is read next time
            entries = self._run.read(self.delivered_seq)
            if entries:
                await self._send(entries)
                pulse.reset()
            elif ending is not None:
                return ending
            elif pulse.is_due():
                await self._within_patience(self._reader.beat(self.delivered_seq))
                pulse.reset()
            else:
                await self._something_new.wait()
        return self._dismissal

    async def _send(self, entries: list[Entry]) -> None:
        for entry in entries:
            await self._within_patience(self._reader.send(entry))
            self.delivered_seq = entry.seq

    async def _within_patience(self, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._slow_reader_seconds) as self._patience:
                await sending
        finally:
            self._patience = None


class Pulse:
    """Calls back after a silence. One timer, re-armed only when it fires: a busy stream costs nothing."""

    def __init__(self, seconds: float, on_silence: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_silence = on_silence
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._due, self._fire)

    def reset(self) -> None:
        """Say that something was heard now."""
        self._due = self._loop.time() + self._seconds

    def is_due(self) -> bool:
        """Tell whether the silence has lasted."""
        return self._loop.time() >= self._due

    def stop(self) -> None:
        """Stop for good."""
        self._timer.cancel()

    def _fire(self) -> None:
        if self.is_due():
            self._on_silence()
            self._timer = self._loop.call_later(self._seconds, self._fire)
        else:
            self._timer = self._loop.call_at(self._due, self._fire)
