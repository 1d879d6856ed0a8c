"""What a run has delivered, for readers who come back."""

from __future__ import annotations

import sys
from bisect import bisect_right
from typing import TYPE_CHECKING

from haystream_service.run.events import Entry, Gap
from haystream_service.run.stretch import JOINED_LIMIT_BYTES, Stretch, size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class RunLog:
    """The newest entries of a run within a budget of bytes, the newest stretch on top of it.

    That one may be `Finished`, whose outputs say once more what was said: it is not to cost the text its place.

    `last_seq` is the number of the newest entry, `_dropped_seq` that of the newest one the budget has cost. `claim` is
    told of each change in size, and answers how much of it the log is to give up: its newest stretch stays even then.
    """

    def __init__(self, limit_bytes: int, claim: Callable[[int], int] | None = None) -> None:
        self._claim = claim or _uncounted
        self._limit_bytes = limit_bytes
        # The log gives up whole stretches: an eighth of what it may hold at a time.
        self._stretch_bytes = min(JOINED_LIMIT_BYTES, limit_bytes // 8)
        self._stretches: list[Stretch] = []
        self._dropped_seq = 0
        self.size_bytes = 0
        self.last_seq = 0

    def append(self, entries: Iterable[Entry]) -> None:
        """Keep entries that follow those already here, at the cost of the oldest."""
        for entry in entries:
            before = self.size_bytes
            self._append(entry)
            self._trim(self._limit_bytes)
            surplus = self._claim(self.size_bytes - before)
            if surplus > 0:
                self._give_up(surplus)

    def clear(self) -> None:
        """Give up everything. Whoever still reads is told by a Gap."""
        self._claim(-self.size_bytes)
        self._stretches.clear()
        self.size_bytes = 0
        self._dropped_seq = self.last_seq

    def detach(self) -> None:
        """Count no more: nothing is appended, and it lasts as long as its readers."""
        self._claim(-self.size_bytes)
        self._claim = _uncounted

    def after(self, seq: int, limit_bytes: int = sys.maxsize) -> list[Entry]:
        """Return what follows a sequence number, led by a Gap where the log no longer holds all of it.

        No more than the limit and one entry: who wants the rest asks again.
        """
        kept: list[Entry] = []
        size = 0
        for place in range(bisect_right(self._stretches, seq, key=_last_seq), len(self._stretches)):
            if size > limit_bytes:
                break
            kept.append(self._stretches[place].entry(seq))
            size += self._stretches[place].size_bytes
        if seq >= self._dropped_seq:
            return kept
        return [Entry(self._dropped_seq, Gap(seq + 1, self._dropped_seq)), *kept]

    def _append(self, entry: Entry) -> None:
        size = size_bytes(entry.event)
        self.last_seq = entry.seq
        if self._stretches and self._stretches[-1].take(entry.event, entry.seq, size, self._stretch_bytes):
            self.size_bytes += size
            return
        stretch = Stretch(entry.event, entry.seq, size)
        self._stretches.append(stretch)
        self.size_bytes += stretch.size_bytes

    def _give_up(self, surplus_bytes: int) -> None:
        before = self.size_bytes
        self._trim(max(0, before - self._stretches[-1].size_bytes - surplus_bytes))
        self._claim(self.size_bytes - before)

    def _trim(self, limit_bytes: int) -> None:
        """Keep the newest stretch, and of the others as many as have room."""
        surplus, newest = 0, self._stretches[-1]
        while self.size_bytes - newest.size_bytes > limit_bytes:
            self.size_bytes -= self._stretches[surplus].size_bytes
            surplus += 1
        if surplus:
            self._dropped_seq = self._stretches[surplus - 1].last_seq
            del self._stretches[:surplus]


def _uncounted(_: int) -> int:
    return 0


def _last_seq(stretch: Stretch) -> int:
    return stretch.last_seq
