"""What rows measure, and what they are to reach. Knows no contestant and no server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity: its name, its unit, and how many decimals people want."""

    name: str
    unit: str
    decimals: int = 0

    def text(self, value: float) -> str:
        """Return a value for people."""
        return "-" if math.isnan(value) else f"{value:,.{self.decimals}f}"


Sample: TypeAlias = "Mapping[Measure, float]"
"""One contestant's figures of one round."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A contestant's values of one measure over all rounds."""

    values: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def least(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def most(self) -> float:
        """The largest."""
        return max(self.values)


Figures: TypeAlias = "Mapping[str, Mapping[Measure, Figure]]"
"""All figures of a row, by the contestants' keys."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a target is met. `reached` is what it came to, in words."""

    aim: str
    reached: str
    is_met: bool


class Target(Protocol):
    """Something to reach, and which contestant is to reach it."""

    @property
    def aim(self) -> str:
        """The target in words."""
        ...

    @property
    def of(self) -> str:
        """The contestant's key."""
        ...

    def judge(self, figures: Figures) -> Verdict | None:
        """Return the verdict; None where a contestant that it needs did not run, or before this was measured."""
        ...


@dataclass(frozen=True, slots=True)
class Ratio:
    """A contestant's median over another's. One of the limits is set."""

    aim: str
    measure: Measure
    of: str
    to: str
    at_least: float = -math.inf
    at_most: float = math.inf

    def judge(self, figures: Figures) -> Verdict | None:
        """Compare the medians of the same run."""
        if not are_known(figures, self.measure, self.of, self.to):
            return None
        ratio = figures[self.of][self.measure].middle / (figures[self.to][self.measure].middle or math.nan)
        return Verdict(self.aim, f"{ratio:.2f} x", self.at_least <= ratio <= self.at_most)


@dataclass(frozen=True, slots=True)
class Excess:
    """How far a contestant's median is over another's."""

    aim: str
    measure: Measure
    of: str
    to: str
    at_most: float

    def judge(self, figures: Figures) -> Verdict | None:
        """Compare the medians of the same run."""
        if not are_known(figures, self.measure, self.of, self.to):
            return None
        excess = figures[self.of][self.measure].middle - figures[self.to][self.measure].middle
        return Verdict(self.aim, f"{self.measure.text(excess)} {self.measure.unit}", excess <= self.at_most)


@dataclass(frozen=True, slots=True)
class RoundRatio:
    """A contestant's value over another's of the same round, in the median: for differences below a machine's moods."""

    aim: str
    measure: Measure
    of: str
    to: str
    at_most: float

    def judge(self, figures: Figures) -> Verdict | None:
        """Compare round by round."""
        if not are_known(figures, self.measure, self.of, self.to):
            return None
        pairs = zip(figures[self.of][self.measure].values, figures[self.to][self.measure].values, strict=True)
        ratio = median(one / (other or math.nan) for one, other in pairs)
        return Verdict(self.aim, f"{ratio:.2f} x, by rounds", ratio <= self.at_most)


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on a contestant's median. One of the limits is set."""

    aim: str
    measure: Measure
    of: str
    at_most: float = math.inf
    at_least: float = -math.inf

    def judge(self, figures: Figures) -> Verdict | None:
        """Compare the median with the bound."""
        if not are_known(figures, self.measure, self.of):
            return None
        value = figures[self.of][self.measure].middle
        is_within = self.at_least <= value <= self.at_most
        return Verdict(self.aim, f"{self.measure.text(value)} {self.measure.unit}", is_within)


def are_known(figures: Figures, measure: Measure, *keys: str) -> bool:
    """Whether there is a figure of each contestant's: a record may be older than the measure."""
    return all(measure in figures.get(key, {}) for key in keys)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all does not exceed; not a number where there are none."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]
