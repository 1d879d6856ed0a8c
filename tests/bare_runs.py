"""One run without a network: its ledger, its readers, and what it may have to do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from haystream_service.run.ending import Disconnected, Ending, Failure, FailureKind
from haystream_service.run.events import Entry, Event, Finished, FinishReason, Text
from haystream_service.run.log import RunLog
from haystream_service.run.run import Budget, OnDisconnect, Run, Sink, Work
from haystream_service.run.store import RunRecord
from haystream_service.run.total import Total
from haystream_service.run.writer import Patience, Source, Writer

WORD = Text("llm", 0, "word")
END = Finished(FinishReason.STOP)
ROOMY = 1_000_000
FAILURE = Failure(FailureKind.COMPONENT_FAILED, "llm")


@dataclass
class Ledger:
    """Notes what becomes of runs."""

    ended: list[tuple[Ending | None, BaseException | None]] = field(
        default_factory=list[tuple[Ending | None, BaseException | None]]
    )
    over: list[Run] = field(default_factory=list[Run])

    def on_ended(self, run: Run, error: BaseException | None) -> None:
        self.ended.append((run.ending, error))

    def on_over(self, run: Run) -> None:
        self.over.append(run)

    def explain(self, error: BaseException, /) -> Failure:
        return FAILURE


class Collector:
    """A reader that keeps what it gets, and may stop taking."""

    def __init__(self, *, takes: bool = True) -> None:
        self.entries: list[Entry] = []
        self.beats: list[int] = []
        self.takes = asyncio.Event()
        self._got = asyncio.Semaphore(0)
        self._takes_one = False
        if takes:
            self.takes.set()

    async def send(self, entry: Entry) -> None:
        await self.takes.wait()
        if self._takes_one:
            self.takes.clear()
        self.entries.append(entry)
        self._got.release()

    def take_one(self) -> None:
        """Take the next entry, and then no more."""
        self._takes_one = True
        self.takes.set()

    async def has(self, count: int) -> None:
        """Wait for as many more entries."""
        for _ in range(count):
            await self._got.acquire()

    async def beat(self, seq: int) -> None:
        self.beats.append(seq)

    def why_gone(self, error: BaseException) -> Ending:
        return Disconnected()

    @property
    def events(self) -> list[Event]:
        """What it got, without the numbers."""
        return [entry.event for entry in self.entries]


def run_of(
    ledger: Ledger, *, seconds: float = 60, queue_bytes: int = ROOMY, on_disconnect: OnDisconnect | None = None
) -> Run:
    """Return a run that has not begun."""
    record = RunRecord("r", "me", "p", b"")
    budget = Budget(seconds, queue_bytes)
    return Run(record, RunLog(ROOMY), budget, Total(ROOMY), on_disconnect or OnDisconnect(), ledger)


def writer_of(source: Source, collector: Collector, *, patience_seconds: float = 60, leads: bool = True) -> Writer:
    """Return a writer for a reader."""
    return Writer(source, collector, Patience(60, patience_seconds), leads=leads)


def saying(*events: Event) -> Work:
    """Return work that puts events, and is done."""

    async def work(sink: Sink, seconds: float) -> Finished:
        for event in events:
            await sink.put(event)
        return END

    return work


async def never(sink: Sink, seconds: float) -> Finished:
    """Work that comes to no end."""
    await asyncio.Event().wait()
    return END
