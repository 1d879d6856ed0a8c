"""The soak itself: a short one goes the whole way, and its checker sees what it is there for."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from benchmarks.soak.order import Order
from benchmarks.soak.reading import Ending, Known, Reading, Seen
from benchmarks.soak.tally import Story, Tally
from tests.conftest import ROOT

ORDER = Order(words=4)
WHOLE = [
    Seen("started", 1),
    Seen("text", 3, ORDER.text(0, 2)),  # two that were joined
    Seen("heartbeat", 3),
    Seen("text", 4, ORDER.text(2, 3)),
    Seen("text", 5, ORDER.text(3, 4)),
    Seen("finished", 6, reason="STOP"),
]


def judged(events: list[Seen], *, after_seq: int = 0, ending: Ending | None = None) -> tuple[Tally, str]:
    """Return what the checker makes of a stream, and its first complaint with the story of the run."""
    tally = Tally()
    reading = Reading(Known(ORDER), last_seq=after_seq)
    story = Story(tally, "doctored", 1)
    for event in events:
        story.saw("reader", event)
        reading.see(event)
    if ending is not None:
        reading.end(ending)
    story.judge(reading, {"STOP"})
    return tally, next(iter(tally.failures), "")


@pytest.mark.parametrize(
    ("events", "after_seq"),
    [
        pytest.param(WHOLE, 0, id="whole"),
        pytest.param(WHOLE[3:], 3, id="resumed"),
        pytest.param([Seen("gap", 3, from_seq=1), *WHOLE[3:]], 0, id="with a gap that names all that is missing"),
    ],
)
def test_a_stream_that_brings_every_word_is_right(events: list[Seen], after_seq: int) -> None:
    """From the beginning, from the middle, and where replay no longer holds the beginning."""
    tally, complaint = judged(events, after_seq=after_seq)
    assert complaint == ""
    assert tally.endings == {"STOP": 1}


@pytest.mark.parametrize(
    ("events", "after_seq", "wrong"),
    [
        pytest.param([*WHOLE[:3], *WHOLE[4:]], 0, "text 5 after 3: ", id="a lost event"),
        pytest.param([*WHOLE[:4], WHOLE[5]], 0, "words are missing", id="a lost last word"),
        pytest.param(
            [WHOLE[0], Seen("text", 3, ORDER.text(0, 1)), *WHOLE[2:]], 0, "text 3 after 1", id="a word lost in a join"
        ),
        pytest.param([*WHOLE[:4], WHOLE[3], *WHOLE[4:]], 0, "text has number 4", id="a doubled event"),
        pytest.param(
            [WHOLE[0], Seen("text", 3, ORDER.text(0, 2) + ORDER.text(1, 2)), *WHOLE[2:]],
            0,
            "text 3 after 1",
            id="a word doubled in a join",
        ),
        pytest.param(
            [Seen("text", 4, ORDER.text(1, 3)), *WHOLE[4:]], 3, "text 4 after 3", id="a word doubled by a resume"
        ),
        pytest.param([Seen("gap", 2, from_seq=1), *WHOLE[3:]], 0, "text 4 after 2", id="a gap that hides too little"),
        pytest.param([Seen("gap", 3, from_seq=2), *WHOLE[3:]], 0, "a gap from 2 to 3", id="a gap that begins too late"),
        pytest.param(WHOLE[:-1], 0, "the stream has no ending", id="no ending"),
        pytest.param([*WHOLE, WHOLE[5]], 0, "finished 6 came after the ending", id="two endings"),
        pytest.param([*WHOLE, Seen("heartbeat", 6)], 0, "heartbeat 6 came after the ending", id="something after it"),
        pytest.param(WHOLE[1:], 0, "the first event is text", id="no beginning"),
        pytest.param([*WHOLE[:-1], Seen("finished", 6, reason="LENGTH")], 0, "ended with LENGTH", id="a wrong ending"),
    ],
)
def test_what_is_wrong_with_a_stream_is_told_with_its_story(events: list[Seen], after_seq: int, wrong: str) -> None:
    """A lost word, a doubled one, a wrong or missing ending: each is a failure that shows all that has come."""
    tally, complaint = judged(events, after_seq=after_seq)
    assert tally.failed
    assert any(wrong in failure.splitlines()[0] for failure in tally.failures), complaint
    assert complaint.count("reader: ") == len(events)


def test_an_error_that_counts_other_events_than_have_come_is_a_failure() -> None:
    """What the service has sent, and its reader has not got, is lost."""
    tally, complaint = judged(WHOLE[:4], ending=Ending("STOP", last_seq=5))
    assert tally.failed
    assert "sent 5, and 4 has come" in complaint


@pytest.mark.parametrize(
    ("ending", "failed"),
    [
        (Ending("DRAINING", is_retryable=True), 0),
        (Ending("DRAINING", is_retryable=False), 1),
        (Ending("UNAVAILABLE", is_typed=False), 1),
    ],
)
def test_an_ending_by_a_restart_has_to_be_typed_and_retryable(ending: Ending, failed: int) -> None:
    """It is counted apart, and no other is excused by a restart."""
    tally, reading = Tally(), Reading(Known(ORDER))
    reading.end(ending)
    Story(tally, "doctored", 1).judge_in_restarts(reading, {"STOP"}, was_restarted=True)
    assert tally.failed == failed


@pytest.mark.timeout(180)  # two services and two gateways have to start on whatever there is
async def test_a_short_soak_holds() -> None:
    """Every scene is played, one service is restarted, and nothing is lost, doubled, or left open."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.soak", "--seconds", "2", "--callers", "6"),
        cwd=ROOT,
        env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "false"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "no failure" in output.decode()
    assert "`rolling service restarted`" in output.decode()
