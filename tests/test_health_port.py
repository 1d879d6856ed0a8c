"""A port for probes, which know no encryption, and what reflection tells on both."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.calls import all_events, kinds_of
from tests.conftest import served
from tests.encrypted import Certs, names_of
from tests.encrypted import certs as certs  # noqa: PLC0414 - a fixture

if TYPE_CHECKING:
    from tests.fakes import Stage

READY = health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_probes_are_answered_without_encryption_on_a_port_of_their_own(certs: Certs) -> None:
    """Kubernetes knows neither certificates nor tokens. Nothing else is there."""
    async with served(**certs.mutual, health_listen="127.0.0.1:0") as running:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.service.health_port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
            assert (await health.Check(READY)).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await names_of(channel)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_probes_are_answered_until_the_last_run_is_over(stage: Stage) -> None:
    """Through the drain the service lives, and is not ready; a watcher does not hold it up."""
    stack = AsyncExitStack()
    running = await stack.enter_async_context(
        served(health_listen="127.0.0.1:0", default_pipeline="fake", drain_seconds=20)
    )
    async with (
        grpc.aio.insecure_channel(running.address) as callers,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.service.health_port}") as probes,
    ):
        health = health_pb2_grpc.HealthStub(probes)
        call = chat_pb2_grpc.ChatServiceStub(callers).Chat(chat_pb2.ChatRequest(query="q"))
        watcher = aiter(health.Watch(READY))
        assert (await anext(watcher)).status == SERVING
        await stage.waiting.wait()
        events = asyncio.create_task(all_events(call))
        closing = asyncio.create_task(stack.aclose())
        assert (await anext(watcher)).status == NOT_SERVING
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
        assert (await health.Check(READY)).status == NOT_SERVING
        stage.proceed.set()
        assert kinds_of(await events)[-1] == "finished"
        async with asyncio.timeout(5):
            with pytest.raises(grpc.aio.AioRpcError):
                await anext(watcher)
            await closing


@pytest.mark.parametrize("has_reflection", [True, False])
async def test_the_contract_is_told_where_that_is_set(has_reflection: bool) -> None:
    """On both ports, and each tells of no more than it has."""
    async with served(health_listen="127.0.0.1:0", reflection=has_reflection) as running:
        told = [await reflected(port) for port in (running.service.port, running.service.health_port)]
    assert [b"grpc.health.v1.Health" in names for names in told] == [has_reflection, False]
    assert [b"haystream.v1.ChatService" in names for names in told] == [has_reflection, False]


async def reflected(port: int | None) -> bytes:
    """Return what reflection says that there is, as it comes; nothing where there is no reflection."""
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    list_services = b"\x3a\x01*"  # field 7: a text
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = cast("Any", channel).stream_stream(method)
        try:
            return b"".join([response async for response in ask(iter([list_services]))])
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            return b""
