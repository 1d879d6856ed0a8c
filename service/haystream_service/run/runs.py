"""All runs of the service: who may start, who may read which, what goes on, and how it all comes to an end."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from haystream_service.errors import (
    RunExists,
    RunNotFound,
    ServiceDraining,
    TooManyReaders,
    TooManyReadersOfYours,
    TooManyRuns,
    TooManyRunsAMinute,
    TooManyRunsOfYours,
)
from haystream_service.run.ending import Cancelled, Disconnected, Drained
from haystream_service.run.quota import Quota, Rates
from haystream_service.run.run import Run
from haystream_service.run.shares import Shares
from haystream_service.run.store import EndedRun
from haystream_service.run.total import Total
from haystream_service.run.waits import Waits

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator
    from contextlib import AbstractAsyncContextManager

    from haystream_service.run.ending import Failure
    from haystream_service.run.run import Budget, Follower, OnDisconnect, Work
    from haystream_service.run.store import RunKey, RunRecord, RunStore

    OnEnded: TypeAlias = Callable[[Run, BaseException | None], None]

# What a component gets to close its connections when it is cancelled, and a reader to take what is still there.
STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What all runs together may take: how many there may be, how many readers, and memory for what is not read."""

    max_runs: int
    max_readers: int
    queue_bytes: int


class Runs:
    """The runs that are not over: at work, or still being read; and the way to those whose log is kept.

    `_by_key` finds the runs that can be read; one whose readers all left, and that is being stopped for it, is in
    `_runs` alone, and its id is free. Each principal has ids of its own, and runs within a quota of its own.
    """

    def __init__(self, capacity: Capacity, store: RunStore, explain: Callable[[BaseException], Failure]) -> None:
        self._capacity = capacity
        self._store = store
        self.explain = explain
        self.queues = Total(capacity.queue_bytes)
        self._run_shares, self._held_shares, self._reader_shares = Shares(), Shares(), Shares()
        self._rates = Rates()
        self._loop = asyncio.get_running_loop()
        self._runs: dict[Run, OnEnded] = {}
        self._by_key: dict[RunKey, Run] = {}
        self._readers: set[Follower] = set()
        self._draining = False
        self._waits = Waits()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs))

    @property
    def reader_count(self) -> int:
        """How many calls read a run."""
        return len(self._readers)

    @property
    def principals(self) -> int:
        """How many principals have runs."""
        return len(self._run_shares)

    def admit(self, principal: str, quota: Quota) -> None:
        """Raise where a new run, or its first reader, has no place. It costs the principal nothing.

        Raises ServiceDraining, TooManyRuns, TooManyReaders; then TooManyRunsOfYours, TooManyReadersOfYours,
        TooManyRunsAMinute.
        """
        if self._draining:
            raise ServiceDraining
        if len(self._runs) + self._held_shares.total >= self._capacity.max_runs:
            raise TooManyRuns(self._capacity.max_runs)
        self._admit_reader_to_service()
        places = self._run_shares.of(principal) + self._held_shares.of(principal)
        if quota.max_runs is not None and places >= quota.max_runs:
            raise TooManyRunsOfYours(quota.max_runs)
        self._admit_reader_of(principal, quota)
        if quota.runs_per_minute is not None:
            wait_seconds = self._rates.wait_seconds(principal, quota.runs_per_minute, self._loop.time())
            if wait_seconds:
                raise TooManyRunsAMinute(quota.runs_per_minute, wait_seconds)

    @asynccontextmanager
    async def holding(self, principal: str, quota: Quota) -> AsyncGenerator[None]:
        """Hold a run's place while its call waits in the block for what the run needs; then it is free to be taken.

        Raises as `admit`, and ServiceDraining from within the block at the end of a drain.
        """
        self.admit(principal, quota)
        self._held_shares.take(principal)
        try:
            async with self.waiting():
                yield
        finally:
            self._held_shares.give_back(principal)

    def check_not_over(self) -> None:
        """Raise ServiceDraining once the grace of a drain is over, and nobody is let in any more."""
        if self._waits.are_over:
            raise ServiceDraining

    def waiting(self) -> AbstractAsyncContextManager[None]:
        """Wait in the block for what the drain does not wait for. Raises ServiceDraining at its end, there as well."""
        return self._waits.waiting()

    def start(  # noqa: PLR0913, PLR0917 - what a run is made of
        self,
        record: RunRecord,
        quota: Quota,
        budget: Budget,
        on_disconnect: OnDisconnect,
        work: Work,
        on_ended: OnEnded,
    ) -> Run:
        """Start a run. Raises as `admit`, and RunExists where its id is taken."""
        self.admit(record.principal, quota)
        if record.key in self._by_key:
            raise RunExists(record.id)
        if quota.runs_per_minute is not None:
            self._rates.begin(record.principal, quota.runs_per_minute, self._loop.time())
        log = self._store.open(record)
        run = Run(record, log, budget, self.queues, on_disconnect, self)
        self._runs[run] = on_ended
        self._by_key[record.key] = run
        self._run_shares.take(record.principal)
        self._idle.clear()
        run.start(work)
        return run

    async def find(self, run_id: str, principal: str) -> Run | EndedRun | None:
        """Return a run of the principal's that can be read."""
        key = (principal, run_id)
        return self._by_key.get(key) or await self._store.find(key)

    async def get(self, run_id: str, principal: str) -> Run | EndedRun:
        """Return a run of the principal's that can be read. Raises RunNotFound, for another's run as well."""
        run = await self.find(run_id, principal)
        if run is None:
            raise RunNotFound(run_id)
        return run

    async def cancel(self, run_id: str, principal: str) -> None:
        """Stop a run; one that has ended stays as it is. Raises RunNotFound."""
        run = await self.get(run_id, principal)
        if isinstance(run, Run):
            run.stop(Cancelled())

    @contextmanager
    def reading(self, reader: Follower, principal: str, quota: Quota) -> Generator[None]:
        """Have the drain wait for a principal's reader while the block lasts.

        Raises TooManyReaders, TooManyReadersOfYours, and ServiceDraining where the grace of a drain is over: until
        then runs go on, and can be read nowhere else.
        """
        self.check_not_over()
        self._admit_reader_to_service()
        self._admit_reader_of(principal, quota)
        self._readers.add(reader)
        self._reader_shares.take(principal)
        self._idle.clear()
        try:
            yield
        finally:
            self._readers.discard(reader)
            self._reader_shares.give_back(principal)
            self._check_idle()

    async def until_idle(self) -> None:
        """Wait until there is no run and no reader."""
        while not self._idle.is_set():  # somebody may have come since it was
            await self._idle.wait()

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new runs, and wait for the others; after the grace, end first their work and then their readers.

        From then on there are no new readers either: whoever comes again and again holds nothing up.
        """
        self._draining = True
        is_idle = await self._is_idle_within(grace_seconds)
        self._waits.close()
        if is_idle:
            return
        for run in self:
            run.stop(Drained())
        if await self._is_idle_within(STOP_SECONDS):
            return
        for reader in self._readers:
            reader.dismiss(Drained())
        await self._is_idle_within(STOP_SECONDS)

    def on_ended(self, run: Run, error: BaseException | None) -> None:
        """Take note of a run's ending: nobody reads on what all its readers have left."""
        if isinstance(run.ending, Disconnected):
            del self._by_key[run.record.key]
            self._store.drop(run.record.key)
        self._runs[run](run, error)

    def on_over(self, run: Run) -> None:
        """Let go of a run; its log stays for its time to live."""
        del self._runs[run]
        self._run_shares.give_back(run.record.principal)
        if self._by_key.get(run.record.key) is run:
            del self._by_key[run.record.key]
            if run.ending is not None:
                self._store.keep(EndedRun(run.record, run.log, run.ending, run.usage))
        self._check_idle()

    def _admit_reader_to_service(self) -> None:
        if len(self._readers) >= self._capacity.max_readers:
            raise TooManyReaders(self._capacity.max_readers)

    def _admit_reader_of(self, principal: str, quota: Quota) -> None:
        limit = quota.max_readers(self._capacity.max_readers)
        if self._reader_shares.of(principal) >= limit:
            raise TooManyReadersOfYours(limit)

    def _check_idle(self) -> None:
        if not self._runs and not self._readers:
            self._idle.set()

    async def _is_idle_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.until_idle()
        return self._idle.is_set()


def new_run_id() -> str:
    """Return an id that nobody can guess."""
    return secrets.token_hex(12)
