"""What a run has delivered, for readers who come back."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from haystream_service.run.events import ENTRY_OVERHEAD_BYTES, Entry, Gap

if TYPE_CHECKING:
    from collections.abc import Iterable


class RunLog:
    """The newest entries of a run within a budget of bytes; the newest one stays however large it is.

    `last_seq` is the number of the newest entry, `_dropped_seq` that of the newest one the budget has cost.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: list[Entry] = []
        self._size_bytes = 0
        self._dropped_seq = 0
        self.last_seq = 0

    def append(self, entries: Iterable[Entry]) -> None:
        """Keep entries that follow those already here, at the cost of the oldest."""
        for entry in entries:
            self._entries.append(entry)
            self._size_bytes += entry.size_bytes
            self.last_seq = entry.seq
        self._trim()

    def after(self, seq: int) -> list[Entry]:
        """Return what follows a sequence number, led by a Gap where the log no longer holds all of it."""
        kept = self._entries[bisect_right(self._entries, seq, key=lambda entry: entry.seq) :]
        if seq >= self._dropped_seq:
            return kept
        gap = Gap(seq + 1, self._dropped_seq)
        return [Entry(self._dropped_seq, gap, ENTRY_OVERHEAD_BYTES), *kept]

    def _trim(self) -> None:
        surplus = 0
        while self._size_bytes > self._limit_bytes and surplus < len(self._entries) - 1:
            self._size_bytes -= self._entries[surplus].size_bytes
            surplus += 1
        if surplus:
            self._dropped_seq = self._entries[surplus - 1].seq
            del self._entries[:surplus]
