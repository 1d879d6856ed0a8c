"""Calls that wait for something before they read a run: nobody waits past the end of a drain."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from haystream_service.errors import ServiceDraining

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Waits:
    """What calls wait for. Once `are_over`, nobody waits any more."""

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()
        self.are_over = False

    @asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None]:
        """Wait in the block. Raises ServiceDraining once all is closed, there as well."""
        if self.are_over:
            raise ServiceDraining
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.remove(limit)
        except TimeoutError:
            if limit.expired():
                raise ServiceDraining from None
            raise

    def close(self) -> None:
        """End all waiting, for good."""
        self.are_over = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)
