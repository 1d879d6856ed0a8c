"""One run: the pipeline's work, the queue it fills, the log of what was read, and the one ending."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from haystream_service.run.ending import Completed, DeadlineExceeded, Disconnected, Failed, Failure, FailureKind
from haystream_service.run.events import Started
from haystream_service.run.queue import CallbackQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from haystream_service.run.ending import Ending
    from haystream_service.run.events import Entry, Event, Finished, Usage
    from haystream_service.run.pace import Pace
    from haystream_service.run.store import Log, RunRecord
    from haystream_service.run.total import Total


# What a reader who comes back gets at a time: it is held while that one takes it.
READ_BYTES = 32 * 1024


class Sink(Protocol):
    """Where a pipeline's callbacks put what happens. All raise RunStopped once nobody wants it."""

    def put(self, event: Event) -> Awaitable[None]:
        """Put from the event loop; the result is to be awaited, and waits while the reader is behind."""
        ...

    def put_from_thread(self, event: Event) -> None:
        """Put from any other thread; blocks it while the reader is behind."""

    def account(self, usage: Sequence[Usage]) -> None:
        """Note what the run has used so far, in all."""


class Work(Protocol):
    """What a run does within some seconds: it fills the sink, and returns its last event, whose usage the run adds."""

    async def __call__(self, sink: Sink, seconds: float, /) -> Finished:
        """Do it."""
        ...


class Follower(Protocol):
    """Someone who reads a run. The run goes at the speed of those who `lead`, of the fastest where they are several.

    Of the fastest, since one of them may be a connection that broke, and another its caller who has come back.
    """

    @property
    def leads(self) -> bool:
        """Whether the run waits for this reader even where another one is ahead."""
        ...

    def wake(self) -> None:
        """There is something new to read, the ending perhaps."""

    def dismiss(self, ending: Ending) -> None:
        """Nobody waits for this reader any longer; it is to stop with an ending of its own."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one run may use."""

    seconds: float
    queue_bytes: int


@dataclass(frozen=True, slots=True)
class OnDisconnect:
    """What becomes of a run that nobody reads any more: it stops, or goes on, for `grace_seconds` where that is set."""

    goes_on: bool = False
    grace_seconds: float | None = None


class RunObserver(Protocol):
    """Who has to know what becomes of a run."""

    def on_ended(self, run: Run, error: BaseException | None) -> None:
        """Take note of the run's ending; the error is there where that is `Failed`."""

    def on_over(self, run: Run) -> None:
        """Take note that the work is done and nobody reads the run any more: nothing is left of it but its log."""

    def explain(self, error: BaseException, /) -> Failure:
        """Return what made the run fail."""
        ...


class Run:
    """A pipeline at work, and whoever reads it.

    `ending` is None while the run goes on, and is set once. Readers see all entries before they see the ending.
    What enters the queue is drawn into the log by a reader: by those who lead, while there are any, so that the run
    goes at their speed; else by the one who is ahead. With no reader the run draws it itself and is not held back.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a run is made of
        self,
        record: RunRecord,
        log: Log,
        budget: Budget,
        queues: Total,
        on_disconnect: OnDisconnect,
        observer: RunObserver,
    ) -> None:
        self.record = record
        self.log = log
        self.ending: Ending | None = None
        self.usage: tuple[Usage, ...] = ()
        self._budget = budget
        self._on_disconnect = on_disconnect
        self._observer = observer
        self._queue = CallbackQueue(budget.queue_bytes, queues, self._on_filled)
        self._followers: set[Follower] = set()
        self._grace: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_done = False
        self._is_over = False

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id

    @property
    def pace(self) -> Pace:
        """How the run goes, in numbers."""
        return self._queue.pace

    @property
    def queue(self) -> CallbackQueue:
        """What is not read yet, for those who measure it."""
        return self._queue

    @property
    def has_readers(self) -> bool:
        """Whether anybody reads the run."""
        return bool(self._followers)

    @property
    def is_in_grace(self) -> bool:
        """Whether the run waits for a reader to come back before it is stopped."""
        return self._grace is not None

    def start(self, work: Work) -> asyncio.Task[None]:
        """Begin the work, and the time that it has; return its task, which the run itself holds."""
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._budget.seconds, self.stop, DeadlineExceeded())
        self._task = asyncio.create_task(self._drive(work), name=f"run {self.id}")
        self._task.add_done_callback(self._on_task_done)
        return self._task

    def stop(self, ending: Ending) -> None:
        """End the run so, unless it has ended: an async component stops at once, a thread at its next chunk."""
        if self._end(ending) and self._task is not None:
            self._task.cancel()

    def put(self, event: Event) -> Awaitable[None]:
        """Put from the event loop, as Sink."""
        return self._queue.put(event)

    def put_from_thread(self, event: Event) -> None:
        """Put from any other thread, as Sink."""
        self._queue.put_from_thread(event)

    def account(self, usage: Sequence[Usage]) -> None:
        """Note what the run has used so far, in all."""
        self.usage = tuple(usage)

    def join(self, follower: Follower) -> None:
        """Tell a reader of all that is new until it leaves."""
        self._followers.add(follower)
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def leave(self, follower: Follower, why: Ending) -> None:
        """Forget a reader; the last one may leave a run that nobody wants any more."""
        self._followers.discard(follower)
        self._wake_followers()  # one of them may be ahead now
        if not self._followers and self.ending is None:
            self._left_alone(why)
        self._check_over()

    def read(self, follower: Follower, after_seq: int) -> list[Entry]:
        """Return entries after a sequence number that are there now for this reader.

        Those of the log first: drawing more could cost the log what this reader has not had yet.
        """
        if after_seq < self.log.last_seq:
            follower.wake()
            return self.log.after(after_seq, READ_BYTES)
        if self.ending is None and not follower.leads and any(other.leads for other in self._followers):
            return []
        return self._draw(follower)

    async def _drive(self, work: Work) -> None:
        try:
            await self._queue.put(Started(self.id, self.record.pipeline))
            finished = await work(self, self._budget.seconds)
            self._queue.put_last(replace(finished, usage=self.usage))
            self._end(Completed(finished.reason))
        except BaseException as error:  # whatever it is, readers have to learn that the run is over
            if self.ending is None:
                self._end(Failed(self._observer.explain(error)), error)
            if not isinstance(error, Exception):  # a cancellation, above all, is never swallowed
                raise

    def _end(self, ending: Ending, error: BaseException | None = None) -> bool:
        """Set the ending if there is none yet; return whether this one counts."""
        if self.ending is not None:
            return False
        self.ending = ending
        self._queue.close()
        self.pace.end()
        self._wake_followers()
        self._observer.on_ended(self, error)
        return True

    def _left_alone(self, why: Ending) -> None:
        if not self._on_disconnect.goes_on:
            self.stop(why)
            return
        self._draw()
        if self._on_disconnect.grace_seconds is not None:
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(self._on_disconnect.grace_seconds, self.stop, Disconnected())

    def _draw(self, reader: Follower | None = None) -> list[Entry]:
        """Move what is in the queue into the log, and tell the other readers."""
        entries = self._queue.drain()
        if entries:
            self.log.append(entries)
            self._wake_followers(besides=reader)
        return entries

    def _on_filled(self) -> None:
        if self._followers:
            self._wake_followers()
        else:
            self._draw()

    def _wake_followers(self, besides: Follower | None = None) -> None:
        for follower in self._followers:
            if follower is not besides:
                follower.wake()

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._end(Failed(Failure(FailureKind.DEFECT)), error)  # where not even the explanation worked
        if self._deadline is not None:
            self._deadline.cancel()
        self._is_done = True  # not before: a reader may leave between the task's end and this
        self._check_over()

    def _check_over(self) -> None:
        """Tell once that nothing more comes of the run: who has found it before may still read its log."""
        if self._is_done and not self._followers and not self._is_over:
            self._is_over = True
            if self._grace is not None:
                self._grace.cancel()
            self._draw()
            self._observer.on_over(self)
