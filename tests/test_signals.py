"""SIGHUP has the folder looked at, and never does what a signal that nobody hears does."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import grpc.aio

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.calls import kinds_of
from tests.processes import address_of, started
from tests.test_caller_keys import until_ready

if TYPE_CHECKING:
    from pathlib import Path

SLOW = """
import asyncio
from haystack.dataclasses import StreamingChunk
from tests.fakes import OnLoop, pipeline_of, replied


async def dawdle(query, streaming_callback):
    await streaming_callback(StreamingChunk(content="word"))
    await asyncio.sleep(1)  # the time that a drain takes here
    return replied("word")


def build():
    return pipeline_of(OnLoop(dawdle))
"""


# In short pieces: the system may give a signal that follows at once to another thread, and Python hears it between two.
HOLDING = SLOW.replace(
    "    await asyncio.sleep(1)", "    print('held', file=sys.stderr)\n    while True:\n        time.sleep(0.05)"
).replace("import asyncio", "import sys, time")


async def test_a_second_signal_ends_a_service_whose_loop_is_held_up(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C again does not want to wait, least of all for a component that waits as it must not."""
    (tmp_path / "holding.py").write_text(HOLDING)
    async with started("haystream_service", HAYSTREAM_PIPELINES=str(tmp_path)) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            await until_ready(channel)
            call = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="q"))
            assert process.stderr is not None
            async for line in process.stderr:
                if b"held" in line:
                    break
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(10):
                await process.wait()
            call.cancel()
    assert process.returncode == 1


async def test_sighup_while_the_service_drains_loses_no_run(tmp_path: Path) -> None:
    """A reload that comes too late is no reason to die."""
    (tmp_path / "slow.py").write_text(SLOW)
    async with started("haystream_service", HAYSTREAM_PIPELINES=str(tmp_path), HAYSTREAM_DRAIN_SECONDS="20") as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            await until_ready(channel)
            call = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="q"))
            reader = aiter(call)
            while not (await anext(reader)).event.HasField("text"):
                pass
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            async for line in process.stderr:
                if b"draining" in line:
                    break
            process.send_signal(signal.SIGHUP)
            assert kinds_of([response.event async for response in reader]) == ["finished"]
        await process.communicate()
    assert process.returncode == 0
