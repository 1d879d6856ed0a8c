"""What is kept of a run: the log within its budget, and the store with its time to live."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from haystream_service.run.ending import Completed
from haystream_service.run.events import Entry, Finished, FinishReason, Gap, Reasoning, Text
from haystream_service.run.log import RunLog
from haystream_service.run.store import EndedRun, MemoryStore, RunRecord
from haystream_service.run.stretch import STRETCH_BYTES, size_bytes
from tests.audit import pieces_of
from tests.clock import ClockedLoop, clocked

ROOMY = 100_000_000


@dataclass(frozen=True, slots=True)
class Said:
    """A part of an answer as a reader drew it: so many pieces at once."""

    kind: type[Text | Reasoning]
    index: int
    pieces: int


parts = st.builds(Said, st.sampled_from([Text, Reasoning]), st.integers(0, 1), st.integers(1, 4))


def entries_of(said: list[Said]) -> list[Entry]:
    """Return the parts as entries; each piece's text is its number."""
    entries: list[Entry] = []
    seq = 0
    for part in said:
        delta = "".join(f"<{number}>" for number in range(seq + 1, seq + part.pieces + 1))
        seq += part.pieces
        entries.append(Entry(seq, part.kind("llm", part.index, delta)))
    return entries


@given(st.lists(parts, min_size=1), st.integers(0, 10_000), st.integers(1, 5), st.data())
def test_the_log_returns_all_that_follows_or_names_what_is_missing(
    said: list[Said], limit_bytes: int, at_once: int, data: st.DataObject
) -> None:
    """Within its budget, however it was filled and wherever its reader is."""
    log, entries = RunLog(limit_bytes), entries_of(said)
    for first in range(0, len(entries), at_once):
        log.append(entries[first : first + at_once])
    seq = data.draw(st.sampled_from([0, *(entry.seq for entry in entries)]))
    for entry in log.after(seq):
        if isinstance(entry.event, Gap):
            assert (entry.event.from_seq, entry.event.to_seq) == (seq + 1, entry.seq)
        else:
            assert pieces_of(entry.event) == [f"<{number}>" for number in range(seq + 1, entry.seq + 1)]
        seq = entry.seq
    assert seq == log.last_seq == entries[-1].seq
    *older, _ = [entry.event for entry in log.after(0) if not isinstance(entry.event, Gap)]
    assert sum(STRETCH_BYTES + size_bytes(event) for event in older) <= limit_bytes


def test_a_gap_names_what_the_budget_has_cost_and_comes_to_nobody_else() -> None:
    """Readers who have the oldest entries already miss nothing."""
    events = [Text("llm", number % 2, "word") for number in range(4)]
    log = RunLog(STRETCH_BYTES + size_bytes(events[0]))  # and the newest on top
    log.append(Entry(seq, event) for seq, event in enumerate(events, start=1))
    assert log.after(0) == [Entry(2, Gap(1, 2)), Entry(3, events[2]), Entry(4, events[3])]
    assert log.after(1) == [Entry(2, Gap(2, 2)), Entry(3, events[2]), Entry(4, events[3])]
    assert log.after(2) == [Entry(3, events[2]), Entry(4, events[3])]
    assert log.after(4) == []


def test_a_full_log_gives_up_a_small_part_of_itself_at_a_time() -> None:
    """An answer without a break is one long stretch, and is not to be dropped as a whole."""
    log = RunLog(80_000)
    for seq in range(1, 10_001):
        log.append([Entry(seq, Text("llm", 0, "word"))])
        assert log.size_bytes <= 80_000 * 9 // 8 + STRETCH_BYTES
    assert log.size_bytes > 80_000 * 7 // 8


def test_an_event_larger_than_the_log_costs_the_others_nothing() -> None:
    """The outputs in `finished` say once more what was said; the text stays beside them."""
    log = RunLog(10 * STRETCH_BYTES)
    outputs = {"llm": {"replies": "x" * 100_000}}
    entries = [Entry(1, Text("llm", 0, "word")), Entry(2, Finished(FinishReason.STOP, outputs=outputs))]
    log.append(entries)
    assert log.after(0) == entries


def test_a_reader_gets_from_the_log_what_joins_in_few_entries() -> None:
    """Whoever comes back is not to get a thousand words one by one."""
    log = RunLog(ROOMY)
    log.append(Entry(seq, Text("llm", 0, f"<{seq}>")) for seq in range(1, 1001))
    assert log.after(998) == [Entry(1000, Text("llm", 0, "<999><1000>"))]
    assert len(log.after(0)) <= 4


def kept(store: MemoryStore, run_id: str, principal: str = "me", length: int = 1000) -> EndedRun:
    """Return a run that has ended, and that the store keeps from now on."""
    record = RunRecord(run_id, principal, "p", b"")
    log = store.open(record)
    log.append([Entry(1, Text("llm", 0, "x" * length))])
    ended = EndedRun(record, log, Completed(), ())
    store.keep(ended)
    return ended


def test_a_log_is_forgotten_when_its_time_is_over() -> None:
    """Each at its own time, though there is one timer for all."""

    async def story(loop: ClockedLoop) -> None:
        store = MemoryStore(ROOMY, keep_seconds=100, total_bytes=ROOMY)
        first = kept(store, "first")
        await loop.later(60)
        second = kept(store, "second")
        assert await store.find(("me", "first")) is first
        await loop.later(40)
        assert await store.find(("me", "first")) is None
        assert await store.find(("me", "second")) is second
        await loop.later(60)
        assert await store.find(("me", "second")) is None
        assert (len(store), store.held.size_bytes) == (0, 0)
        third = kept(store, "third")
        await loop.later(99)
        assert await store.find(("me", "third")) is third
        await loop.later(1)
        assert len(store) == 0

    with clocked() as loop:
        loop.run_until_complete(story(loop))


async def test_the_oldest_logs_make_room_for_the_newest() -> None:
    """All kept logs together stay within one budget."""
    store = MemoryStore(ROOMY, keep_seconds=60, total_bytes=5000)
    runs = [kept(store, str(number)) for number in range(10)]
    assert 0 < store.held.size_bytes <= 5000
    found = [await store.find(run.record.key) for run in runs]
    assert found == [None] * 7 + runs[7:]
    assert len(store) == 3
    store.close()


async def test_a_log_too_large_for_the_store_is_not_kept() -> None:
    """The one run costs all others; there is no other way to stay within the budget."""
    store = MemoryStore(ROOMY, keep_seconds=60, total_bytes=5000)
    kept(store, "small")
    kept(store, "large", length=10_000)
    assert (len(store), store.held.size_bytes) == (0, 0)
    store.close()


async def test_a_run_at_work_is_not_evicted() -> None:
    """It keeps its place among the runs there are, while those that are over make room for what it says."""
    store = MemoryStore(ROOMY, keep_seconds=60, total_bytes=5000)
    over = [kept(store, str(number)) for number in range(2)]
    record = RunRecord("at work", "me", "p", b"")
    log = store.open(record)
    log.append([Entry(1, Text("llm", 0, "x" * 2000))])
    assert await store.find(over[0].record.key) is None
    assert await store.find(over[1].record.key) is over[1]
    assert log.after(0) == [Entry(1, Text("llm", 0, "x" * 2000))]
    ended = EndedRun(record, log, Completed(), ())
    store.keep(ended)  # it is still there to be kept
    assert await store.find(record.key) is ended
    store.close()


async def test_a_run_that_is_dropped_leaves_nothing() -> None:
    """Neither a log nor its weight, whether it has ended or not; dropping it again changes nothing."""
    store = MemoryStore(ROOMY, keep_seconds=60, total_bytes=ROOMY)
    kept(store, "ended")
    store.open(RunRecord("at work", "me", "p", b""))
    for run_id in ("ended", "at work", "ended", "never"):
        store.drop(("me", run_id))
    assert (len(store), store.held.size_bytes) == (0, 0)
    assert await store.find(("me", "ended")) is None
    store.close()


async def test_a_run_of_the_same_id_takes_the_place_of_the_one_before() -> None:
    """What its readers have stays with them; whoever comes finds the new one only, and its weight counts alone."""
    store = MemoryStore(ROOMY, keep_seconds=60, total_bytes=ROOMY)
    before = kept(store, "same", length=9000)
    after = kept(store, "same", length=10)
    assert await store.find(("me", "same")) is after
    assert store.held.size_bytes < 9000
    assert len(before.log.after(0)) == 1
    store.close()


async def test_a_principal_does_not_find_the_run_of_another() -> None:
    """The same id is another run for everybody."""
    store = MemoryStore(ROOMY, keep_seconds=60, total_bytes=ROOMY)
    mine, yours = kept(store, "same"), kept(store, "same", principal="you")
    assert await store.find(("me", "same")) is mine
    assert await store.find(("you", "same")) is yours
    assert await store.find(("they", "same")) is None
    store.close()


async def test_a_closed_store_holds_nothing() -> None:
    """And what would have been due changes nothing any more."""
    store = MemoryStore(ROOMY, keep_seconds=0, total_bytes=ROOMY)
    kept(store, "last")
    store.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(store) == 0
    assert await store.find(("me", "last")) is None
