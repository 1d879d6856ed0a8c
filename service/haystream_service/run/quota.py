"""How many runs and readers a principal may have at once, and how often it may begin a run. Knows no clock."""

from __future__ import annotations

from dataclasses import dataclass

# In whole nanoseconds: the last run of a minute's worth is not to be lost to the rounding of fractions.
MINUTE = 60_000_000_000
SECOND = 1_000_000_000
MILLISECOND = 1_000_000

# The caller, who comes back before its broken connection is known for it, and somebody who looks on.
READERS_PER_RUN = 4


@dataclass(frozen=True, slots=True)
class Quota:
    """What one principal may; None stands for no limit of its own. Not `is_shared`: there are no other principals."""

    max_runs: int | None = None
    runs_per_minute: int | None = None
    is_shared: bool = True

    def max_readers(self, of_all: int) -> int:
        """Return how many readers it may have, so that some of all are left to the others."""
        if self.max_runs is not None:
            return READERS_PER_RUN * self.max_runs
        return max(1, of_all // 2) if self.is_shared else of_all


class Rates:
    """How much of a minute's worth of runs each principal has left (GCRA: the generic cell rate algorithm).

    `_full_at` holds for each when it will have all of it again, in the order in which they last began a run. That is a
    minute later at most, so whoever is before the first that is not full yet is full: entries are as many as
    principals that began a run within the last minute.
    """

    def __init__(self) -> None:
        self._full_at: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def wait_seconds(self, principal: str, runs_per_minute: int, now_seconds: float) -> float:
        """Return how long it is until the next run fits; zero where it does. In whole milliseconds, as in RetryInfo."""
        now = round(now_seconds * SECOND)
        wait = self._full_after(principal, runs_per_minute, now) - now - MINUTE
        return -(-wait // MILLISECOND) / 1000 if wait > 0 else 0

    def begin(self, principal: str, runs_per_minute: int, now_seconds: float) -> None:
        """Count a run that begins."""
        now = round(now_seconds * SECOND)
        full_at = self._full_after(principal, runs_per_minute, now)
        self._full_at.pop(principal, None)
        self._full_at[principal] = full_at
        while (oldest := next(iter(self._full_at))) != principal and self._full_at[oldest] <= now:
            del self._full_at[oldest]

    def _full_after(self, principal: str, runs_per_minute: int, now: int) -> int:
        """Return when a principal that begins another run would have all of it again."""
        return max(self._full_at.get(principal, now), now) + MINUTE // runs_per_minute
