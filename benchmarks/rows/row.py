"""A row of the benchmark: one workload, who takes part, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.contestants.entrant import Entrant
    from benchmarks.contestants.lane import Lane
    from benchmarks.measures import Measure, Sample, Target
    from benchmarks.provider import Provider

Trial: TypeAlias = "Callable[[Lane, Ground], Awaitable[Sample]]"


@dataclass(frozen=True, slots=True)
class Ground:
    """What a trial stands on. `quick`: as small as still goes the whole way. `settings`: the row's own."""

    provider: Provider
    quick: bool
    settings: Mapping[str, str]

    def size(self, usual: int, quick: int) -> int:
        """Choose a number."""
        return quick if self.quick else usual


@dataclass(frozen=True, slots=True)
class Row:
    """One workload.

    `settings` are the service's environment. `warm_ups` counts quick trials before the first round. A row that does
    not take turns lets all contestants run at the same time: for those that mostly wait. `about` says what is done;
    `floor`, what nobody could be better than here. A row that is profiled shows where the time of what it is about
    went, the service's or the gateway's, when it misses a target.
    """

    name: str
    title: str
    about: str
    entrants: tuple[Entrant, ...]
    trial: Trial
    chart: Measure
    targets: tuple[Target, ...] = ()
    rounds: int = 5
    warm_ups: int = 5
    takes_turns: bool = True
    is_profiled: bool = True
    profiled: Literal["service", "gateway"] = "service"
    floor: str = ""
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class LongRow(Row):
    """A workload whose trial is long enough to be run once, and brings whatever warm-up it needs."""

    rounds: int = 1
    warm_ups: int = 0
    is_profiled: bool = False
