"""Notices callers who leave, and ends by that what is done for them.

What waits for gRPC is never cancelled for it, only the call that it waits on: grpc.aio keeps for good what comes of a
read whose awaiter was cancelled, a whole message each time (https://github.com/grpc/grpc/issues/43360).
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from haystream_gateway.problems import Rejection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from starlette.requests import Request
    from starlette.types import Receive


@asynccontextmanager
async def noticing_departure(receive: Receive, on_left: Callable[[], None]) -> AsyncGenerator[None]:
    """Call back if the caller leaves during the block. The request's body has to be read."""
    watch = asyncio.create_task(_call_back(receive, on_left), name="departure")
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.wait([watch])


@asynccontextmanager
async def while_caller_stays(request: Request, close: Callable[[], None]) -> AsyncGenerator[None]:
    """Close what the block reads from if the caller leaves. Raises ClientDisconnect for what the block raises then."""
    has_left = False

    def on_left() -> None:
        nonlocal has_left
        has_left = True
        close()

    try:
        async with noticing_departure(request.receive, on_left):
            yield
    except Rejection:
        if has_left:
            raise ClientDisconnect from None
        raise


async def _call_back(receive: Receive, on_left: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    on_left()
