"""Waiting until a server takes questions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2

from benchmarks.process import START_SECONDS, ServerFailed
from benchmarks.readers.grpc_line import IN_THE_CLEAR, grpc_lines
from benchmarks.readers.stream import Incomplete

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.process import ServerProcess
    from benchmarks.readers.grpc_line import Way

CHECK = "/grpc.health.v1.Health/Check"
INTERVAL_SECONDS = 0.05


async def until(question: Callable[[], Awaitable[bool]], server: ServerProcess) -> None:
    """Ask until the answer is yes. Raises ServerFailed where the server ends, or is not ready in time."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await question():
                if server.process.returncode is not None:
                    raise ServerFailed(f"{server.name} ended by itself; the lines above tell why")
                await asyncio.sleep(INTERVAL_SECONDS)
    except TimeoutError:
        raise ServerFailed(f"{server.name} is not ready after {START_SECONDS} s") from None


async def is_serving(port: int, way: Way = IN_THE_CLEAR) -> bool:
    """Whether the chat service is healthy."""
    try:
        (line,) = await grpc_lines(port, 1, way=way)
    except OSError:
        return False
    try:
        call = line.call(CHECK, health_pb2.HealthCheckRequest(service="haystream.v1.ChatService"))
        await call.end()
        return any(
            health_pb2.HealthCheckResponse.FromString(message).status == health_pb2.HealthCheckResponse.SERVING
            for _, message in call.messages()
        )
    except Incomplete:
        return False
    finally:
        line.close()


async def is_open(port: int) -> bool:
    """Whether a port takes connections."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
