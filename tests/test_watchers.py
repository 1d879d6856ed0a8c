"""Those who watch the service's health: they are no more than there may be, and change nothing for who asks once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream_service.entrance import health_servicer
from tests.conftest import served

if TYPE_CHECKING:
    from tests.conftest import Served

MOST = 3
SECONDS = 5  # what anything on this machine takes, and much more
READY = health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have as few watchers as a test has patience for."""
    monkeypatch.setattr(health_servicer, "MAX_WATCHERS", MOST)


async def watching(health: health_pb2_grpc.HealthStub) -> Any:
    """Watch, and know that this is so."""
    watch: Any = health.Watch(READY)
    async with asyncio.timeout(SECONDS):
        assert (await watch.read()).status == SERVING
    return watch


async def refused(health: health_pb2_grpc.HealthStub) -> None:
    """Assert that there is no place for one more."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        (await watching(health)).cancel()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "too many watch already; use Check"


async def test_one_watcher_too_many_is_refused(fake: Served) -> None:
    """Those that there are go on, and whoever asks once is answered."""
    health = health_pb2_grpc.HealthStub(fake.channel)
    watchers = [await watching(health) for _ in range(MOST)]
    for _ in range(2):
        await refused(health)
    assert not any(watch.done() for watch in watchers)
    assert (await health.Check(READY)).status == SERVING
    for watch in watchers:
        watch.cancel()


async def test_a_watcher_who_leaves_makes_place_for_another(fake: Served) -> None:
    """As do those who were refused, who never had one."""
    health = health_pb2_grpc.HealthStub(fake.channel)
    watchers = [await watching(health) for _ in range(MOST)]
    await refused(health)
    watchers.pop().cancel()
    async with asyncio.timeout(SECONDS):
        while len(watchers) < MOST:  # the service hears of it a moment later
            try:
                watchers.append(await watching(health))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0)
    await refused(health)
    for watch in watchers:
        watch.cancel()


async def test_watchers_on_both_ports_are_counted_together() -> None:
    """They cost the same memory."""
    async with served(default_pipeline="fake", health_listen="127.0.0.1:0") as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        watchers = [await watching(health) for _ in range(MOST)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.service.health_port}") as probed:
            await refused(health_pb2_grpc.HealthStub(probed))
        for watch in watchers:
            watch.cancel()
