"""Running a row: all contestants up, warm-up, then rounds in which each has its turn."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from benchmarks.process import ServerFailed
from benchmarks.provider import PROVIDER
from benchmarks.readers.stream import Incomplete
from benchmarks.rows.row import Ground

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contestants.entrant import Entrant
    from benchmarks.contestants.lane import Lane
    from benchmarks.measures import Sample
    from benchmarks.provider import Provider
    from benchmarks.rows.row import Row

FAILURES = (Incomplete, ServerFailed, TimeoutError, OSError)


class Audience(Protocol):
    """Whoever wants to know how far it is."""

    def note(self, row: Row, entrant: Entrant, text: str) -> None:
        """Say what a contestant does now."""

    def show(self, row: Row, entrant: Entrant, sample: Sample) -> None:
        """Show a contestant's figures of a round."""


@dataclass(slots=True)
class Outcome:
    """What a row brought: each contestant's rounds, and why some have none."""

    samples: dict[str, list[Sample]] = field(default_factory=dict[str, list["Sample"]])
    failures: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Contest:
    """A contestant at a row."""

    row: Row
    entrant: Entrant
    lane: Lane


@dataclass(frozen=True, slots=True)
class Runner:
    """How rows are run."""

    provider: Provider
    audience: Audience
    quick: bool

    async def run(self, row: Row, entrants: Sequence[Entrant], rounds: int) -> Outcome:
        """Run a row. A contestant that fails is out, and the others go on without it."""
        outcome = Outcome()
        async with AsyncExitStack() as stack:
            contests = await self._start(stack, row, entrants, outcome)
            for contest in contests:
                await self._warm_up(contest, outcome)
            for _ in range(rounds):
                turns = [self._take_turn(contest, outcome) for contest in contests]
                if row.takes_turns:
                    for turn in turns:
                        await turn
                else:
                    await asyncio.gather(*turns)
        return outcome

    async def _start(
        self, stack: AsyncExitStack, row: Row, entrants: Sequence[Entrant], outcome: Outcome
    ) -> list[Contest]:
        environment = {PROVIDER: self.provider.address, **row.settings}
        for entrant in entrants:
            self.audience.note(row, entrant, "starts")
        started = await asyncio.gather(
            *(stack.enter_async_context(entrant.start(environment)) for entrant in entrants), return_exceptions=True
        )
        contests: list[Contest] = []
        for entrant, lane in zip(entrants, started, strict=True):
            if not isinstance(lane, BaseException):
                contests.append(Contest(row, entrant, lane))
            elif isinstance(lane, FAILURES):
                outcome.failures[entrant.key] = str(lane)
            else:
                raise lane
        return contests

    async def _warm_up(self, contest: Contest, outcome: Outcome) -> None:
        self.audience.note(contest.row, contest.entrant, "warm-up")
        ground = Ground(self.provider, quick=True, settings=contest.row.settings)
        warm_ups = contest.row.warm_ups
        try:
            for _ in range(min(1, warm_ups) if self.quick else warm_ups):
                await contest.row.trial(contest.lane, ground)
        except FAILURES as error:
            self._exclude(contest, error, outcome)
        finally:
            contest.lane.hang_up()

    async def _take_turn(self, contest: Contest, outcome: Outcome) -> None:
        if contest.entrant.key in outcome.failures:
            return
        self.audience.note(contest.row, contest.entrant, "runs")
        ground = Ground(self.provider, quick=self.quick, settings=contest.row.settings)
        try:
            sample = await contest.row.trial(contest.lane, ground)
        except FAILURES as error:
            self._exclude(contest, error, outcome)
        else:
            outcome.samples.setdefault(contest.entrant.key, []).append(sample)
            self.audience.show(contest.row, contest.entrant, sample)
        finally:
            contest.lane.hang_up()

    def _exclude(self, contest: Contest, error: Exception, outcome: Outcome) -> None:
        """Say why a contestant is out, and forget its earlier rounds: half a figure is none."""
        why = outcome.failures[contest.entrant.key] = f"{type(error).__name__}: {error}"
        outcome.samples.pop(contest.entrant.key, None)
        self.audience.note(contest.row, contest.entrant, f"failed: {why}")
