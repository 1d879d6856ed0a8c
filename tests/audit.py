"""What a run was given and what its readers got, noted beside it, and checked piece by piece."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from haystream_service.run.ending import Completed, Disconnected
from haystream_service.run.events import Entry, Finished, Gap, Reasoning, Started, Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haystream_service.run.ending import Ending
    from haystream_service.run.events import Event
    from haystream_service.run.run import Run
    from haystream_service.run.store import EndedRun, Log, MemoryStore, RunKey, RunRecord

PIECE = re.compile(r"<\d+>")
READ_AT_ONCE = 600  # bytes: a reader who comes back gets the log in several pieces


def pieces_of(event: Event) -> list[str]:
    """Return what an event is made of: each put has text of its own."""
    if isinstance(event, Text | Reasoning):
        pieces = PIECE.findall(event.delta)
        assert "".join(pieces) == event.delta
        return pieces
    return [type(event).__name__]


class AuditedLog:
    """A log, and beside it all that ever came into it: `pieces[n - 1]` is what has the number n."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.pieces: list[str] = []

    @property
    def last_seq(self) -> int:
        return self._log.last_seq

    def append(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        for entry in entries:
            pieces = pieces_of(entry.event)
            assert entry.seq == len(self.pieces) + len(pieces), "a number was left out, or stands for two"
            self.pieces += pieces
        self._log.append(entries)

    def after(self, seq: int, limit_bytes: int = sys.maxsize) -> list[Entry]:
        return self._log.after(seq, min(limit_bytes, READ_AT_ONCE))


class AuditingStore:
    """A store that keeps an eye on its logs."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.newest: AuditedLog | None = None

    def open(self, record: RunRecord) -> AuditedLog:
        self.newest = AuditedLog(self._store.open(record))
        return self.newest

    def keep(self, ended: EndedRun) -> None:
        self._store.keep(ended)

    def drop(self, key: RunKey) -> None:
        self._store.drop(key)

    async def find(self, key: RunKey) -> EndedRun | None:
        return await self._store.find(key)


@dataclass
class Put:
    """A piece on its way in. `before` is what was known to be in when it was put."""

    text: str
    before: frozenset[str]
    was_stopped: bool | None = None
    was_accepted: bool | None = None


@dataclass
class Told:
    """A run and what was done to it."""

    run: Run
    log: AuditedLog
    finish: asyncio.Event
    puts: list[Put] = field(default_factory=list[Put])
    seen_seqs: list[int] = field(default_factory=lambda: [0])
    endings: list[Ending | None] = field(default_factory=list["Ending | None"])


class Taker:
    """A reader that takes an entry each time it may, and checks it."""

    def __init__(self, told: Told, after_seq: int) -> None:
        self.told = told
        self._may_take = asyncio.Semaphore(0)
        self._takes_all = False
        self.seq = after_seq
        self.ending: Ending | None = None
        self.task: asyncio.Task[None] | None = None

    async def send(self, entry: Entry) -> None:
        if not self._takes_all:
            await self._may_take.acquire()
        assert entry.seq > self.seq, "numbers have to rise"
        if isinstance(entry.event, Gap):
            assert (entry.event.from_seq, entry.event.to_seq) == (self.seq + 1, entry.seq), "a gap has to be exact"
        else:
            assert pieces_of(entry.event) == self.told.log.pieces[self.seq : entry.seq], "nothing twice, nothing lost"
        self.seq = entry.seq
        self.told.seen_seqs.append(entry.seq)

    async def beat(self, seq: int) -> None:
        assert seq == self.seq

    def why_gone(self, error: BaseException) -> Ending:
        assert isinstance(error, asyncio.CancelledError), error
        return Disconnected()

    def take(self, entries: int) -> None:
        """Be ready for as many more entries."""
        for _ in range(entries):
            self._may_take.release()

    def take_all(self) -> None:
        """Be ready for whatever comes."""
        self._takes_all = True
        self.take(1)


def check_told(told: Told) -> None:
    """Check that what was accepted came in, once and in order, and that everything else was refused."""
    first, *pieces = told.log.pieces or [Started.__name__]
    assert first == Started.__name__
    if Finished.__name__ in pieces:
        pieces.remove(Finished.__name__)
    else:
        assert told.run.ending != Completed()
    assert sorted(pieces) == sorted(put.text for put in told.puts if put.was_accepted)
    places = {text: place for place, text in enumerate(pieces)}
    for put in told.puts:
        assert put.was_stopped is not None
        assert put.was_accepted or put.was_stopped
        if put.was_accepted:
            assert all(places[earlier] < places[put.text] for earlier in put.before)
    assert told.endings == [told.run.ending]
    assert told.run.ending is not None
