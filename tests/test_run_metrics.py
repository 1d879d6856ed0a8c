"""What Prometheus gets to see of runs: that they are counted once, by whom they are held up, and what waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from haystream.v1 import chat_pb2
from haystream_service.run.ending import Disconnected
from tests.calls import all_events
from tests.scrape import measured, scraped

if TYPE_CHECKING:
    from haystream_service.run.ending import Ending
    from haystream_service.run.run import Run
    from tests.fakes import Stage


class Bell:
    """Follows a run to hear of its ending."""

    leads = False

    def __init__(self, run: Run, ended: asyncio.Event) -> None:
        self._run = run
        self._ended = ended

    def wake(self) -> None:
        """Look."""
        if self._run.ending is not None and not self._ended.is_set():
            self._ended.set()
            asyncio.get_running_loop().call_soon(self._run.leave, self, Disconnected())

    def dismiss(self, ending: Ending) -> None:
        """Nothing waits for it."""


async def test_a_run_is_counted_with_its_chunks_bytes_and_tokens(stage: Stage) -> None:
    """By pipeline, and by the word that its caller sees."""
    stage.chunks, stage.text = 3, "häh "
    stage.meta = {"finish_reason": "length", "model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    stage.proceed.set()
    async with measured() as running:
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        scrape = await scraped(running.service)
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="LENGTH") == 1
    assert scrape.total("haystream_runs_total") == 1
    assert scrape.value("haystream_chunks_total", pipeline="fake") == 3
    assert scrape.value("haystream_chunk_bytes_total", pipeline="fake") == 15
    assert scrape.value("haystream_tokens_total", pipeline="fake", kind="prompt") == 5
    assert scrape.value("haystream_tokens_total", pipeline="fake", kind="completion") == 7
    assert scrape.value("haystream_first_chunk_seconds_count", pipeline="fake") == 1
    assert scrape.value("haystream_run_duration_seconds_count", pipeline="fake") == 1
    assert scrape.value("haystream_chunk_gap_seconds_count", pipeline="fake") == 2
    assert scrape.value("haystream_chunk_gap_seconds_bucket", pipeline="fake", le="+Inf") == 2
    first = scrape.value("haystream_first_chunk_seconds_sum", pipeline="fake")
    gaps = scrape.value("haystream_chunk_gap_seconds_sum", pipeline="fake")
    assert 0 < first + gaps <= scrape.value("haystream_run_duration_seconds_sum", pipeline="fake")


async def test_a_run_is_seen_while_it_goes_on_and_counted_once(stage: Stage) -> None:
    """Its chunks count at once, and not again when it has ended, nor when its last reader has left."""
    stage.chunks, stage.more = 2, 1
    async with measured() as running:
        reading = asyncio.ensure_future(all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q"))))
        await stage.waiting.wait()
        before = await scraped(running.service)
        stage.proceed.set()
        await reading
        after = await scraped(running.service)
    assert before.value("haystream_runs_active") == 1
    assert before.value("haystream_readers") == 1
    assert before.value("haystream_runs_unread") == 0
    assert before.value("haystream_chunks_total", pipeline="fake") == 2
    assert before.value("haystream_first_chunk_seconds_count", pipeline="fake") == 1
    assert before.total("haystream_runs_total") == 0
    assert after.value("haystream_runs_active") == 0
    assert after.value("haystream_chunks_total", pipeline="fake") == 3
    assert after.value("haystream_first_chunk_seconds_count", pipeline="fake") == 1
    assert after.value("haystream_replay_bytes") > 0


async def test_a_run_that_ended_and_is_still_read_counts_once(stage: Stage) -> None:
    """Its reader is behind, so it is active, and already in the sum of those that ended."""
    stage.chunks, stage.text = 100, "x" * 200_000
    stage.proceed.set()
    async with measured(queue_bytes=100_000_000, replay_bytes=1_000_000) as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q"))
        await call.read()
        [run] = running.runs
        ended = asyncio.Event()
        bell = Bell(run, ended)
        run.join(bell)
        bell.wake()
        await ended.wait()
        scrape = await scraped(running.service)
        while await call.read() is not grpc.aio.EOF:
            pass
    assert scrape.value("haystream_runs_active") == 1
    assert scrape.value("haystream_chunks_total", pipeline="fake") == 100
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="STOP") == 1


@pytest.mark.parametrize(("pipeline", "kind"), [("fake", "async"), ("threaded", "thread")])
async def test_a_reader_who_is_behind_is_seen_and_counted_when_it_is_let_go(
    stage: Stage, pipeline: str, kind: str
) -> None:
    """First by what waits for it, then as a slow reader."""
    stage.chunks, stage.text = 100_000, "x" * 10_000
    async with measured(queue_bytes=10_000, slow_reader_seconds=1.5) as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline=pipeline))
        await call.read()
        await stage.stands_still()
        scrape = await scraped(running.service)
        await stage.cancelled.wait()
        await running.runs.until_idle()
        later = await scraped(running.service)
        call.cancel()
    assert scrape.value("haystream_blocked_callbacks", kind=kind) == 1
    assert scrape.total("haystream_blocked_callbacks") == 1
    assert scrape.value("haystream_queue_bytes") > 10_000
    assert scrape.value("haystream_components_at_work") == (kind == "thread")
    assert later.value("haystream_slow_readers_total") == 1
    assert later.value("haystream_runs_total", pipeline=pipeline, ending="SLOW_READER") == 1
    assert later.value("haystream_queue_bytes") == 0


async def test_components_in_line_and_orphaned_threads_are_seen(stage: Stage) -> None:
    """One thread, taken: the next component waits; its run is stopped, and its thread goes on for nobody."""
    async with measured(max_sync_runs=1) as running:
        first = running.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline="threaded"))
        await stage.waiting.wait()
        second = running.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline="threaded"))
        await second.read()
        in_line = await scraped(running.service)
        while not in_line.value("haystream_components_waiting"):
            in_line = await scraped(running.service)
        second.cancel()
        first.cancel()
        await running.runs.until_idle()
        orphaned = await scraped(running.service)
        stage.proceed.set()
    assert in_line.value("haystream_components_at_work") == 1
    assert in_line.value("haystream_components_limit") == 1
    assert orphaned.value("haystream_orphaned_threads") == 1
    assert orphaned.value("haystream_components_at_work") == 0
