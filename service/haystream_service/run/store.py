"""Where the logs of runs are kept for those who come back. An interface, and its form in the memory of one process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from haystream_service.run.log import RunLog
from haystream_service.run.run import READ_BYTES
from haystream_service.run.total import Total

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haystream_service.run.ending import Ending
    from haystream_service.run.events import Entry, Usage
    from haystream_service.run.run import Follower


RunKey: TypeAlias = tuple[str, str]
"""A principal and the id of a run: nobody can ask for another's."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run is: its id, who may read and cancel it, what runs, and a hash of what was asked."""

    id: str
    principal: str
    pipeline: str
    request_hash: bytes

    @property
    def key(self) -> RunKey:
        """What the run is found by."""
        return self.principal, self.id


class Log(Protocol):
    """What a run has delivered. Its run alone appends."""

    @property
    def last_seq(self) -> int:
        """The number of the newest entry."""
        ...

    def append(self, entries: Iterable[Entry]) -> None:
        """Keep entries that follow those already here."""

    def after(self, seq: int, limit_bytes: int = ...) -> list[Entry]:
        """Return what follows a sequence number, led by a Gap where not all of it is there any more.

        No more than the limit and one entry: who wants the rest asks again.
        """
        ...


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that is over, and can still be read."""

    record: RunRecord
    log: Log
    ending: Ending
    usage: tuple[Usage, ...]

    def join(self, follower: Follower) -> None:
        """Nothing new will come, so nobody has to be told."""

    def leave(self, follower: Follower, why: Ending) -> None:
        """Nothing depends on its readers."""

    def read(self, follower: Follower, after_seq: int) -> list[Entry]:
        """Return entries after a sequence number."""
        return self.log.after(after_seq, READ_BYTES)


class RunStore(Protocol):
    """Keeps logs from a run's beginning to the end of its time to live."""

    def open(self, record: RunRecord) -> Log:
        """Begin a run's log."""
        ...

    def keep(self, ended: EndedRun) -> None:
        """Keep the log of a run that is over, for as long as the store keeps such logs."""

    def drop(self, key: RunKey) -> None:
        """Forget a run whose log nobody is to read."""

    async def find(self, key: RunKey) -> EndedRun | None:
        """Return a run that is over, as long as its log is kept."""
        ...


class MemoryStore:
    """Keeps the logs in memory: of runs at work, and of those that ended within `keep_seconds`.

    All together stay within `total_bytes`: the oldest that ended go first; then a run that goes on speaking gives up
    what it has said longest ago, but for its newest stretch. A log that is forgotten because its time is over stays
    with those who read it just then; one that had to make room does not. One timer, for the oldest.
    """

    def __init__(self, run_bytes: int, keep_seconds: float, total_bytes: int) -> None:
        self._run_bytes = run_bytes
        self._keep_seconds = keep_seconds
        self.held = Total(total_bytes)
        self._loop = asyncio.get_running_loop()
        self._logs: dict[RunKey, RunLog] = {}
        self._ended: OrderedDict[RunKey, tuple[float, EndedRun]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._logs)

    def open(self, record: RunRecord) -> RunLog:
        """Begin a run's log; one of the same id that ended is forgotten."""
        self._forget(record.key)
        self._logs[record.key] = RunLog(self._run_bytes, self._claim)
        return self._logs[record.key]

    def keep(self, ended: EndedRun) -> None:
        """Keep a log from now on for the time to live, unless that is all that there would be room for."""
        key = ended.record.key
        if key not in self._logs:  # closed meanwhile
            return
        self._ended[key] = (self._loop.time() + self._keep_seconds, ended)
        self._make_room()
        self._wait_for_oldest()

    def drop(self, key: RunKey) -> None:
        """Forget a run whose log nobody is to read, and what that holds."""
        log = self._forget(key)
        if log is not None:
            log.clear()

    def close(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
        for key in list(self._logs):
            self._forget(key)

    async def find(self, key: RunKey) -> EndedRun | None:
        """Return a run that is over and kept."""
        _, ended = self._ended.get(key, (0.0, None))
        return ended

    def _forget(self, key: RunKey) -> RunLog | None:
        """Let go of a log, and return it."""
        log = self._logs.pop(key, None)
        if log is not None:
            self._ended.pop(key, None)
            log.detach()
        return log

    def _claim(self, change_bytes: int) -> int:
        """Count what a log grows or shrinks by; return how much it has to give up, since nobody else can."""
        self.held.on_loop_bytes += change_bytes
        if change_bytes > 0:
            self._make_room()
        return self.held.surplus_bytes

    def _make_room(self) -> None:
        while self._ended and self.held.surplus_bytes > 0:
            self.drop(next(iter(self._ended)))

    def _wait_for_oldest(self) -> None:
        if self._timer is None and self._ended:
            until, _ = next(iter(self._ended.values()))
            self._timer = self._loop.call_at(until, self._forget_old)

    def _forget_old(self) -> None:
        self._timer = None
        while self._ended:
            key, (until, _) = next(iter(self._ended.items()))
            if until > self._loop.time():
                break
            self._forget(key)
        self._wait_for_oldest()
