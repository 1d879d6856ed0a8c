"""Two services behind one client are restarted one after the other, and their callers notice nothing."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.calls import all_events, kinds_of
from tests.processes import address_of, started

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from haystream.v1.chat_pb2 import Event

CALLERS = 4
WORDS = 10
# Says which process it is in.
SPEAKING = f"""
import asyncio
import os
from haystack.dataclasses import StreamingChunk
from tests.fakes import OnLoop, pipeline_of, replied


async def speak(query, streaming_callback):
    for number in range({WORDS}):
        await streaming_callback(StreamingChunk(content=str(os.getpid()), index=number))
        await asyncio.sleep(0.02)  # a model's pace, and no wait: a restart finds answers in their middle
    return replied("word")


def build():
    return pipeline_of(OnLoop(speak))
"""

# What a client needs, and what the README says of it.
SERVICE_CONFIG: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # A service that drains is left as soon as it says so, and one that starts is taken once its pipelines are warm.
    "healthCheckConfig": {"serviceName": "haystream.v1.ChatService"},
    "methodConfig": [
        {
            "name": [{"service": "haystream.v1.ChatService"}],
            "waitForReady": True,  # where one is gone and the way to the other is still being made
            "retryPolicy": {  # what was on its way as the drain began: it is refused before anything was sent
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
OPTIONS = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.initial_reconnect_backoff_ms", 100),  # and no longer than that until it is tried again, below
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.per_rpc_retry_buffer_size", 8 << 20),
]
LARGE = "q" * 300_000  # more than gRPC would keep to send it again


class Callers:
    """Ask all the time, some at once, and keep what they were answered."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = chat_pb2_grpc.ChatServiceStub(channel)
        self._enough = False
        self._answered = asyncio.Condition()
        self.answers: list[list[Event]] = []

    @asynccontextmanager
    async def asking(self) -> AsyncGenerator[None]:
        """Ask while the block lasts; raise what one of them was refused with."""
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(self._ask(LARGE if number % 2 else "q"))
            yield
            self._enough = True

    async def have_answers_of(self, process: Process, count: int) -> None:
        """Wait until a service has answered so often."""

        def is_so() -> bool:
            return sum(answer[1].text.delta == str(process.pid) for answer in self.answers) >= count

        async with self._answered:
            await self._answered.wait_for(is_so)

    async def _ask(self, query: str) -> None:
        while not self._enough:
            answer = await all_events(self._stub.Chat(chat_pb2.ChatRequest(query=query)))
            async with self._answered:
                self.answers.append(answer)
                self._answered.notify_all()


@asynccontextmanager
async def serving(
    pipelines: Path, address: str = "127.0.0.1:0"
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    """Start a service, and wait until it serves; what it logs is read on."""
    settings = {"HAYSTREAM_LISTEN": address, "HAYSTREAM_PIPELINES": str(pipelines), "HAYSTREAM_DRAIN_SECONDS": "10"}
    async with started("haystream_service", **settings) as process:
        serves_at = await address_of(process)
        assert process.stderr is not None
        reading = asyncio.create_task(process.stderr.read())
        try:
            yield process, serves_at
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            await reading


async def until_ready(address: str) -> None:
    """Wait until a service is ready."""
    async with grpc.aio.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
        )
        while (await anext(aiter(watch))).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        watch.cancel()


async def test_a_rolling_restart_loses_no_run_and_shows_no_error(tmp_path: Path) -> None:
    """One after the other goes, and comes back on its port; callers meanwhile get whole answers from the other."""
    (tmp_path / "speaking.py").write_text(SPEAKING)
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(serving(tmp_path)) for _ in range(2)]
        addresses = [address for _, address in services]
        for address in addresses:
            await until_ready(address)
        target = "ipv4:" + ",".join(addresses)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=OPTIONS))
        callers = Callers(channel)
        async with callers.asking():
            for process, address in services:
                await callers.have_answers_of(process, 3)
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
                again, _ = await stack.enter_async_context(serving(tmp_path, address))
                await callers.have_answers_of(again, 3)
        for answer in callers.answers:
            assert kinds_of(answer) == ["started", *["text"] * WORDS, "finished"]
            assert [event.seq for event in answer] == list(range(1, WORDS + 3))
        assert len(callers.answers) > 20
