"""How much of something each principal has."""

from __future__ import annotations

from collections import Counter


class Shares:
    """A count for each principal that has any; the others are forgotten."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def total(self) -> int:
        """What all have together."""
        return self._counts.total()

    def of(self, principal: str) -> int:
        """Return how much a principal has."""
        return self._counts[principal]

    def take(self, principal: str) -> None:
        """Let a principal have one more."""
        self._counts[principal] += 1

    def give_back(self, principal: str) -> None:
        """Take note that a principal has one less."""
        self._counts[principal] -= 1
        if not self._counts[principal]:
            del self._counts[principal]
