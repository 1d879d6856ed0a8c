"""How a run goes: when its first chunk came, how many there were, how large, and how far apart. Knows no metrics."""

from __future__ import annotations

from bisect import bisect_left
from time import monotonic
from typing import TYPE_CHECKING

from haystream_service.run.events import TEXTS, ToolCall

if TYPE_CHECKING:
    from haystream_service.run.events import Event

# Seconds between two chunks: a fast model has one every few milliseconds, and over a second it visibly stutters.
GAP_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Pace:
    """The measures of one run. Chunks are what a model says: text, reasoning and tool calls.

    The queue adds under its lock, from the loop and from threads, and each chunk pays for it: one look at the clock,
    one search among a few bounds. Whoever reads gets each number whole, and not all of the same moment.
    `gap_counts` has one place for each of GAP_BOUNDS, and one more for what is over them.
    """

    __slots__ = ("_first", "_last", "began", "chunk_bytes", "ended", "gap_counts")

    def __init__(self) -> None:
        self.began = monotonic()
        self.ended = 0.0
        self.chunk_bytes = 0
        self.gap_counts = [0] * (len(GAP_BOUNDS) + 1)
        self._first = 0.0
        self._last = 0.0

    @property
    def chunks(self) -> int:
        """How many there were: one more than there are gaps."""
        return sum(self.gap_counts) + 1 if self._last else 0

    @property
    def first_chunk_seconds(self) -> float | None:
        """From the run's beginning to its first chunk; None as long as there is none."""
        return self._first - self.began if self._last else None

    @property
    def gap_seconds(self) -> float:
        """All time between two chunks, in sum."""
        return self._last - self._first

    @property
    def seconds(self) -> float:
        """From the run's beginning to its end, or until now."""
        return (self.ended or monotonic()) - self.began

    def add(self, event: Event) -> None:
        """Take note of an event that enters the queue, in the order in which they do."""
        if isinstance(event, TEXTS):
            words = event.delta
        elif isinstance(event, ToolCall):
            words = event.arguments_delta
        else:
            return
        now = monotonic()
        if self._last:
            self.gap_counts[bisect_left(GAP_BOUNDS, now - self._last)] += 1
        else:
            self._first = now
        self._last = now
        self.chunk_bytes += len(words) if words.isascii() else len(words.encode("utf-8", "surrogatepass"))

    def end(self) -> None:
        """Take note that the run has ended."""
        self.ended = monotonic()
