"""A bound for lines that strangers can have written as often as they like."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LINES_A_SECOND = 10


@dataclass(slots=True)
class _Second:
    began: float
    lines: int = 0
    left_out: int = 0


class FloodGate:
    """Lets so many lines of a kind through in a second, and counts the others. The kinds are few and known before."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seconds: dict[str, _Second] = {}

    def left_out(self, kind: str) -> int | None:
        """Return how many lines of the kind were left out since the last; None where this one is to be left out."""
        now = self._clock()
        second = self._seconds.setdefault(kind, _Second(now))
        if now - second.began >= 1:
            second.began, second.lines = now, 0
        if second.lines == LINES_A_SECOND:
            second.left_out += 1
            return None
        second.lines += 1
        count, second.left_out = second.left_out, 0
        return count
