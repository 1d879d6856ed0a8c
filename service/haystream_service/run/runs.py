"""All runs of the service: who may start, what goes on, and how it all comes to an end."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from haystream_service.errors import RunExists, ServiceDraining, TooManyRuns
from haystream_service.run.ending import Drained
from haystream_service.run.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haystream_service.run.run import Budget, Work

# What a component gets to close its connections when it is cancelled, and a reader to take what is still there.
STOP_SECONDS = 1.0


class Runs:
    """All runs that are not over: at work, or still being read."""

    def __init__(self, max_runs: int) -> None:
        self._max_runs = max_runs
        self._runs: dict[str, Run] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def admit(self, run_id: str) -> None:
        """Raise ServiceDraining, TooManyRuns or RunExists where a new run has no place."""
        if self._draining:
            raise ServiceDraining
        if run_id in self._runs:
            raise RunExists(run_id)
        if len(self._runs) >= self._max_runs:
            raise TooManyRuns(self._max_runs)

    def start(self, run_id: str, pipeline: str, budget: Budget, work: Work) -> Run:
        """Start a run; an empty id gets one made up. Raises as `admit`."""
        self.admit(run_id)
        run = Run(run_id or secrets.token_hex(12), pipeline, budget, self._forget)
        self._runs[run.id] = run
        self._idle.clear()
        run.start(work)
        return run

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new runs, and wait for the others; after the grace, end first their work and then their readers."""
        self._draining = True
        if await self._is_idle_within(grace_seconds):
            return
        for run in self:
            run.stop(Drained())
        if await self._is_idle_within(STOP_SECONDS):
            return
        for run in self:
            run.dismiss_followers(Drained())
        await self._is_idle_within(STOP_SECONDS)

    async def _is_idle_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return self._idle.is_set()

    def _forget(self, run: Run) -> None:
        self._runs.pop(run.id, None)
        if not self._runs:
            self._idle.set()
