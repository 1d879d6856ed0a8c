"""Ends what is done for a caller as soon as that one leaves, while nothing is sent that could fail for it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request


@asynccontextmanager
async def while_caller_stays(request: Request) -> AsyncGenerator[None]:
    """Cancel the block when the caller leaves. Raises ClientDisconnect then. The request's body has to be read."""
    stay = asyncio.timeout(None)
    try:
        async with stay:
            watch = asyncio.create_task(_end_with_departure(request, stay), name="departure")
            try:
                yield
            finally:
                watch.cancel()
                await asyncio.wait([watch])
    except TimeoutError:
        if stay.expired():
            raise ClientDisconnect from None
        raise


async def _end_with_departure(request: Request, stay: asyncio.Timeout) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    stay.reschedule(asyncio.get_running_loop().time())
