"""Connections that have become old: their callers are asked to open others, and what goes on there goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psutil
import pytest

from haystream.v1 import chat_pb2
from haystream_service.entrance.transport import options_of
from haystream_service.settings import Settings
from tests.attacks.wire import chat, wired
from tests.calls import all_events, kinds_of
from tests.conftest import served

if TYPE_CHECKING:
    from tests.attacks.wire import Wire
    from tests.conftest import Served
    from tests.fakes import Stage

AGE_SECONDS = 0.5
NO_ERROR = bytes(4)
OK = "0"
SECONDS = 10  # what anything on this machine takes, and much more
AGE = "grpc.max_connection_age_ms"


async def read_on(wire: Wire) -> None:
    """Read until the service has hung up."""
    async with asyncio.timeout(SECONDS):
        assert (await asyncio.to_thread(wire.read)).is_closed


async def test_a_connection_that_is_old_is_told_to_go_and_its_streams_go_on(stage: Stage) -> None:
    """To their end, however long that takes; then it is closed."""
    stage.chunks = stage.more = 1
    async with served(default_pipeline="fake", connection_age_seconds=AGE_SECONDS) as running:
        with wired(running.address) as wire:
            wire.send(chat(1, "q"))
            await stage.waiting.wait()
            answers = await asyncio.to_thread(wire.read_farewell)
            assert answers.farewell is not None
            assert answers.farewell[:4] == NO_ERROR
            await asyncio.sleep(3 * AGE_SECONDS)  # no event tells that nothing happens
            assert not stage.cancelled.is_set()
            assert len(running.runs) == 1
            stage.proceed.set()
            await read_on(wire)
            assert answers.statuses == {1: OK}
            assert answers.trailers[1]["x-last-seq"] == "4"


async def test_a_caller_on_a_connection_that_is_old_notices_nothing(stage: Stage) -> None:
    """Its stream goes on where it is, and its next call takes another connection by itself."""
    async with served(default_pipeline="fake", connection_age_seconds=AGE_SECONDS) as running:
        old = running.stub.Chat(chat_pb2.ChatRequest(query="q"))
        await stage.waiting.wait()
        before = callers_of(running)
        with wired(running.address) as wire:
            await asyncio.to_thread(wire.read_farewell)
        await asyncio.sleep(AGE_SECONDS)  # each has an age of its own, a tenth more or less
        await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
        assert len(before) == 1
        assert len(callers_of(running) - before) == 1
        assert before < callers_of(running)
        stage.proceed.set()
        assert kinds_of(await all_events(old))[-1] == "finished"


def callers_of(running: Served) -> set[int]:
    """Return the ports from which the service is called."""
    connections = psutil.Process().net_connections("tcp")
    established = [one for one in connections if one.status == psutil.CONN_ESTABLISHED]
    return {one.raddr.port for one in established if one.laddr.port == running.service.port}


@pytest.mark.parametrize(
    ("settings", "milliseconds"), [(Settings(), 3_600_000), (Settings(connection_age_seconds=0.5), 500)]
)
def test_it_is_an_hour_unless_said(settings: Settings, milliseconds: int) -> None:
    """By default gRPC lets a connection get as old as it likes."""
    assert dict(options_of(settings))[AGE] == milliseconds
