"""Whose pace counts where several read one run, and what those get who are behind."""

from __future__ import annotations

from haystream_service.run.ending import Cancelled, Disconnected
from haystream_service.run.events import Entry, Gap, Text
from haystream_service.run.stretch import STRETCH_BYTES
from tests.bare_runs import WORD, saying
from tests.clock import turns
from tests.house import STARTED, Follower, Speaker, house_of


async def test_the_run_waits_for_a_reader_who_leads_though_another_would_take_more() -> None:
    """The pace is that of the one who asked; the other gets the same as soon as that one has it."""
    async with house_of(queue_bytes=1) as house:
        speaker, leader, other = Speaker(), Follower(leads=True), Follower(leads=False)
        run = house.start(speaker)
        run.join(leader)
        run.join(other)
        await turns()
        assert run.read(other, 0) == []
        assert run.read(leader, 0) == [Entry(1, STARTED)]
        assert run.read(other, 0) == [Entry(1, STARTED)]
        await speaker.speak(3)
        assert run.read(other, 1) == []
        assert speaker.said == 0  # the first is in, and waits for the leader
        wakes = other.wakes
        assert run.read(leader, 1) == [Entry(2, Text("llm", 0, "<1>"))]
        assert other.wakes == wakes + 1
        assert run.read(other, 1) == [Entry(2, Text("llm", 0, "<1>"))]
        await turns()
        assert speaker.said == 1
        run.leave(other, Disconnected())
        run.leave(leader, Disconnected())


async def test_without_a_leader_the_reader_who_is_ahead_sets_the_pace() -> None:
    """Those behind read the log; those who wait for a leader are told that it has left."""
    async with house_of(queue_bytes=1) as house:
        speaker, leader = Speaker(), Follower(leads=True)
        ahead, behind = Follower(leads=False), Follower(leads=False)
        run = house.start(speaker)
        for reader in (leader, ahead, behind):
            run.join(reader)
        await turns()
        wakes = ahead.wakes
        run.leave(leader, Disconnected())
        assert ahead.wakes > wakes
        assert run.read(ahead, 0) == [Entry(1, STARTED)]
        await speaker.speak(3)
        assert run.read(behind, 0) == [Entry(1, STARTED)]
        assert speaker.said == 0
        assert run.read(ahead, 1) == [Entry(2, Text("llm", 0, "<1>"))]
        await turns()
        assert speaker.said == 1
        run.leave(ahead, Disconnected())
        run.leave(behind, Disconnected())


async def test_after_the_ending_everybody_reads_the_rest() -> None:
    """A leader who stands still holds up nobody any more."""
    async with house_of(queue_bytes=1) as house:
        run, leader, other = house.start(saying(WORD)), Follower(leads=True), Follower(leads=False)
        run.join(leader)
        run.join(other)
        await turns()
        assert run.read(other, 0) == []
        run.stop(Cancelled())
        assert run.read(other, 0) == [Entry(1, STARTED)]
        run.leave(other, Cancelled())
        run.leave(leader, Cancelled())


async def test_a_reader_who_comes_late_gets_what_was_said_before_and_then_what_comes() -> None:
    """Also in the middle of a text that goes on, and as a leader."""
    async with house_of() as house:
        speaker, first, late = Speaker(), Follower(leads=True), Follower(leads=True)
        run = house.start(speaker)
        run.join(first)
        await speaker.speak(2)
        assert run.read(first, 0)[-1] == Entry(3, Text("llm", 0, "<1><2>"))
        await speaker.speak(1)
        run.join(late)
        assert run.read(late, 0) == [Entry(1, STARTED), Entry(3, Text("llm", 0, "<1><2>"))]
        assert run.read(late, 3) == [Entry(4, Text("llm", 0, "<3>"))]
        assert run.read(first, 3) == [Entry(4, Text("llm", 0, "<3>"))]
        run.leave(first, Disconnected())
        run.leave(late, Disconnected())


async def test_a_reader_who_falls_behind_the_log_is_told_what_it_missed() -> None:
    """The run goes at the pace of the others, and memory stays within its budget."""
    async with house_of(log_bytes=4 * STRETCH_BYTES) as house:
        speaker, leader, slow = Speaker(), Follower(leads=True), Follower(leads=False)
        run = house.start(speaker)
        run.join(leader)
        run.join(slow)
        for seq in range(30):
            await speaker.speak(1)
            assert not any(isinstance(entry.event, Gap) for entry in run.read(leader, seq + 1 if seq else 0))
        gap, *rest = run.read(slow, 0)
        assert isinstance(gap.event, Gap)
        assert (gap.event.from_seq, gap.event.to_seq) == (1, gap.seq)
        text = "".join(entry.event.delta for entry in rest if isinstance(entry.event, Text))
        assert text == "".join(f"<{seq - 1}>" for seq in range(gap.seq + 1, 32))
        run.leave(leader, Disconnected())
        run.leave(slow, Disconnected())
