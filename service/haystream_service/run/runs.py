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

# A component may take a moment to close its connections when it is cancelled; one that takes no notice is left behind.
STOP_SECONDS = 2.0


class Runs:
    """Owns every run and its task. A run stays in `_runs` until its task is over; a thread it left may run on."""

    def __init__(self, max_runs: int) -> None:
        self._max_runs = max_runs
        self._runs: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def start(self, run_id: str, pipeline: str, budget: Budget, work: Work) -> Run:
        """Start a run; an empty id gets one made up. Raises ServiceDraining, TooManyRuns or RunExists."""
        self._admit(run_id)
        run = Run(run_id or secrets.token_hex(12), pipeline, budget)
        task = run.start(work)
        self._runs[run.id] = run
        self._tasks.add(task)
        self._idle.clear()
        task.add_done_callback(lambda _: self._forget(run, task))
        return run

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new runs, wait for those that go on, and stop what is left after the grace."""
        self._draining = True
        if not await self._is_idle_within(grace_seconds):
            for run in self:
                run.stop(Drained())
            await self._is_idle_within(STOP_SECONDS)

    async def _is_idle_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return self._idle.is_set()

    def _admit(self, run_id: str) -> None:
        if self._draining:
            raise ServiceDraining
        if run_id in self._runs:
            raise RunExists(run_id)
        if len(self._runs) >= self._max_runs:
            raise TooManyRuns(self._max_runs)

    def _forget(self, run: Run, task: asyncio.Task[None]) -> None:
        del self._runs[run.id]
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the run's ending tells of it
        if not self._tasks:
            self._idle.set()
