"""One run: the pipeline's work, the queue it fills, the log of what was read, and the one ending."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from haystream_service.run.ending import Completed, DeadlineExceeded, Failed
from haystream_service.run.events import Started
from haystream_service.run.joining import joined
from haystream_service.run.log import RunLog
from haystream_service.run.queue import CallbackQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from haystream_service.run.ending import Ending
    from haystream_service.run.events import Entry, Event, Finished


class Sink(Protocol):
    """Where a pipeline's callbacks put what happens. Both raise RunStopped once nobody wants it."""

    async def put(self, event: Event) -> None:
        """Put from the event loop."""

    def put_from_thread(self, event: Event) -> None:
        """Put from any other thread."""


class Work(Protocol):
    """What a run does: it fills the sink, and returns its last event."""

    async def __call__(self, sink: Sink, /) -> Finished:
        """Do it."""
        ...


class Follower(Protocol):
    """Someone who reads a run."""

    def wake(self) -> None:
        """There is something new to read, the ending perhaps."""

    def dismiss(self, ending: Ending) -> None:
        """Nobody waits for this reader any longer; it is to stop with an ending of its own."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one run may use."""

    seconds: float
    queue_bytes: int
    replay_bytes: int


class Run:
    """A pipeline at work, and whoever reads it.

    `ending` is None while the run goes on, and is set once. Readers see all entries before they see the ending.
    A run is over, and `on_over` called, once its task is done and nobody reads it: until then it takes memory.
    """

    def __init__(self, run_id: str, pipeline: str, budget: Budget, on_over: Callable[[Run], None]) -> None:
        self.id = run_id
        self.pipeline = pipeline
        self.ending: Ending | None = None
        self._budget = budget
        self._queue = CallbackQueue(budget.queue_bytes, self._wake_followers)
        self._log = RunLog(budget.replay_bytes)
        self._on_over = on_over
        self._followers: set[Follower] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float:
        """How long the run may take."""
        return self._budget.seconds

    def start(self, work: Work) -> asyncio.Task[None]:
        """Begin the work; return its task, which the run itself holds."""
        self._task = asyncio.create_task(self._drive(work), name=f"run {self.id}")
        self._task.add_done_callback(self._on_task_done)
        return self._task

    def stop(self, ending: Ending) -> None:
        """End the run so, unless it has ended: an async component stops at once, a thread at its next chunk."""
        if self._end(ending) and self._task is not None:
            self._task.cancel()

    def read(self, after_seq: int) -> list[Entry]:
        """Return all entries after a sequence number that are there now."""
        if after_seq < self._log.last_seq:
            return self._log.after(after_seq)
        fresh = joined(self._queue.drain())
        self._log.append(fresh)
        return fresh

    @contextmanager
    def followed_by(self, follower: Follower) -> Generator[None]:
        """Tell a reader of all that is new while the block lasts."""
        self._followers.add(follower)
        try:
            yield
        finally:
            self._followers.discard(follower)
            self._check_over()

    def dismiss_followers(self, ending: Ending) -> None:
        """Have whoever still reads stop with an ending of their own."""
        for follower in self._followers:
            follower.dismiss(ending)

    async def _drive(self, work: Work) -> None:
        limit = asyncio.timeout(self._budget.seconds)
        try:
            async with limit:
                await self._queue.put(Started(self.id, self.pipeline))
                await self._queue.put(await work(self._queue))
            self._end(Completed())
        except BaseException as error:  # whatever it is, readers have to learn that the run is over
            self._end(DeadlineExceeded() if limit.expired() else Failed(error))
            if not isinstance(error, Exception):  # a cancellation, above all, is never swallowed
                raise

    def _end(self, ending: Ending) -> bool:
        """Set the ending if there is none yet; return whether this one counts."""
        if self.ending is not None:
            return False
        self.ending = ending
        self._queue.close()
        self._wake_followers()
        return True

    def _wake_followers(self) -> None:
        for follower in self._followers:
            follower.wake()

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen: the run's ending tells of it
        self._check_over()

    def _check_over(self) -> None:
        if self._task is not None and self._task.done() and not self._followers:
            self._on_over(self)
