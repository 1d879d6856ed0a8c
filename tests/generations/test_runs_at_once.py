"""Runs on one pipeline, at once and one after another, on every generation of Haystack: none counts for another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from haystream.v1 import chat_pb2
from tests.calls import all_events, kinds_of, text_of
from tests.generations.conversation import leave, read_until, say, say_next
from tests.generations.installed import GENERATION
from tests.generations.parts import MEET, PARTIES, STAY_BEHIND

if TYPE_CHECKING:
    from tests.conftest import Served
    from tests.generations.parts import Stage
    from tests.providers import Provider

pytestmark = [pytest.mark.filterwarnings(warning) for warning in GENERATION.warnings]
AT_ONCE = 8


async def test_runs_go_at_once(chatting: Served, talking: Provider) -> None:
    """Each of several on one pipeline has its first word before any of them is allowed to go on."""
    calls = [chatting.stub.Chat(chat_pb2.ChatRequest(query="Why?")) for _ in range(AT_ONCE)]
    await asyncio.gather(*(read_until(call, "word ") for call in calls))
    assert len(talking.requests) == AT_ONCE
    say_next(talking, AT_ONCE)
    await asyncio.gather(*(read_until(call, "word ") for call in calls))
    await leave(chatting, talking, *calls)


async def test_runs_that_overlap_do_not_count_each_others_visits(acting: Served, stage: Stage) -> None:
    """More than a component may be visited in one run are at it together, and the one that comes last gets through."""
    others = [asyncio.create_task(all_events(acting.stub.Chat(say(MEET)))) for _ in range(PARTIES - 1)]
    last = asyncio.create_task(all_events(acting.stub.Chat(say(STAY_BEHIND))))
    answers = await asyncio.gather(*others)
    stage.others_left.set()
    answers.append(await last)
    assert [text_of(events) for events in answers] == [MEET] * (PARTIES - 1) + [STAY_BEHIND]
    assert {kinds_of(events)[-1] for events in answers} == {"finished"}


async def test_runs_one_after_another_do_not_count_each_others_visits(acting: Served) -> None:
    """However many there have been."""
    for number in range(PARTIES):
        assert text_of(await all_events(acting.stub.Chat(say(f"run {number}")))) == f"run {number}"
