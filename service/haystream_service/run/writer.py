"""The writer: brings one reader what a run says, as fast as the reader takes it. Knows no transport."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from haystream_service.run.ending import Disconnected, ReaderTooSlow

if TYPE_CHECKING:
    from collections.abc import Callable

    from haystream_service.run.ending import Ending
    from haystream_service.run.events import Entry
    from haystream_service.run.run import Follower


class Reader(Protocol):
    """The far end of a stream. Both ways of sending wait for as long as the transport's flow control says."""

    async def send(self, entry: Entry) -> None:
        """Send an event."""

    async def beat(self, seq: int) -> None:
        """Say that the run is alive; `seq` is the number of the event before."""

    def why_gone(self, error: BaseException) -> Ending:
        """Tell what an error means that came out of sending, or out of a wait."""
        ...


class Source(Protocol):
    """A run as its readers see it: at work, over, or somewhere else."""

    @property
    def ending(self) -> Ending | None:
        """How the run has ended, once it has."""
        ...

    def join(self, follower: Follower) -> None:
        """Tell a follower of all that is new."""

    def leave(self, follower: Follower, why: Ending) -> None:
        """Forget a follower."""

    def read(self, follower: Follower, after_seq: int) -> list[Entry]:
        """Return what there is now for a follower; where that is not all, wake it to come again."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """The silence that a heartbeat fills, and for how long a reader may take nothing while there is something."""

    heartbeat_seconds: float
    slow_reader_seconds: float


class Writer:
    """Follows one run for one reader, from after `after_seq` on. For one that `leads` the run waits."""

    def __init__(self, source: Source, reader: Reader, patience: Patience, *, leads: bool, after_seq: int = 0) -> None:
        self.leads = leads
        self.delivered_seq = after_seq
        self._source = source
        self._reader = reader
        self._patience = patience
        self._something_new = asyncio.Event()
        self._limit = asyncio.timeout(None)
        self._is_sending = False
        self._dismissal: Ending | None = None

    def wake(self) -> None:
        """Look for something new to read."""
        self._something_new.set()

    def dismiss(self, ending: Ending) -> None:
        """Stop, also where a send waits for the reader."""
        self._dismissal = ending
        self._something_new.set()
        self._give_up()

    async def follow(self) -> Ending:
        """Write until the run has ended and the reader has all of it; return how it ended for this reader.

        Raises what sending raises, and CancelledError where the reader's call is cancelled.
        """
        silence = Alarm(self._patience.heartbeat_seconds, self.wake)
        standstill = Alarm(self._patience.slow_reader_seconds, self._give_up)
        why: Ending = Disconnected()
        self._source.join(self)
        try:
            async with self._limit:
                why = await self._follow(silence, standstill)
        except TimeoutError:
            why = self._dismissal or ReaderTooSlow()
        except BaseException as error:
            why = self._reader.why_gone(error)
            raise
        finally:
            silence.stop()
            standstill.stop()
            self._source.leave(self, why)
        return why

    async def _follow(self, silence: Alarm, standstill: Alarm) -> Ending:
        self._something_new.set()
        while self._dismissal is None:
            await self._something_new.wait()
            self._something_new.clear()
            ending = self._source.ending  # before the read: what comes between the two is read next time
            entries = self._source.read(self, self.delivered_seq)
            if entries:
                await self._send(entries, standstill)
                silence.reset()
                if ending is not None:
                    self._something_new.set()
            elif ending is not None:
                return ending
            elif silence.is_due():
                await self._beat(standstill)
                silence.reset()
        return self._dismissal

    async def _send(self, entries: list[Entry], standstill: Alarm) -> None:
        self._is_sending = True
        for entry in entries:
            standstill.reset()
            await self._reader.send(entry)
            self.delivered_seq = entry.seq
        self._is_sending = False

    async def _beat(self, standstill: Alarm) -> None:
        self._is_sending = True
        standstill.reset()
        await self._reader.beat(self.delivered_seq)
        self._is_sending = False

    def _give_up(self) -> None:
        if self._is_sending:
            self._is_sending = False
            self._limit.reschedule(asyncio.get_running_loop().time())


class Alarm:
    """Calls back each time that long has passed since the last reset. One timer, which only moves when it fires."""

    def __init__(self, seconds: float, on_due: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._due, self._fire)

    def reset(self) -> None:
        """Begin anew."""
        self._due = self._loop.time() + self._seconds

    def is_due(self) -> bool:
        """Tell whether that long has passed."""
        return self._loop.time() >= self._due

    def stop(self) -> None:
        """Stop for good."""
        self._timer.cancel()

    def _fire(self) -> None:
        if self.is_due():
            self._on_due()
            self._timer = self._loop.call_later(self._seconds, self._fire)
        else:
            self._timer = self._loop.call_at(self._due, self._fire)
