"""Strangers: who reaches the gateway from elsewhere gets through to a service that asks who calls, and to no other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from haystream_gateway.problems import Code, Problem, Rejection

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from haystream_gateway.upstream import Upstream

# So long it counts that the service has asked: another may come to stand at its address.
ASKED_SECONDS = 60.0

ASKS_NOBODY = Problem(
    Code.FAILED_PRECONDITION,
    "SERVICE_ASKS_NOBODY",
    "the Haystream service behind this gateway asks nobody who they are, and others than this machine's own reach the "
    "gateway: have the service ask, or set HAYSTREAM_GATEWAY_ALLOW_UNAUTHENTICATED=true where that is meant",
    own_http_status=503,
)


class Strangers:
    """Knows whether the service asks who calls, by a call of the gateway's own that does not say so.

    That is made with the first call, and with one in a while after it; until it is refused nothing is passed on.
    """

    def __init__(self, upstream: Upstream, log: FilteringBoundLogger) -> None:
        self._upstream = upstream
        self._log = log
        self._counts_until = 0.0
        self._is_told = False

    async def check(self) -> None:
        """Raise Rejection where anybody may call the service, and grpc.aio.AioRpcError where that does not answer."""
        now = asyncio.get_running_loop().time()
        if now < self._counts_until:
            return
        if await self._upstream.asks_who_calls():
            self._counts_until = now + ASKED_SECONDS
            self._is_told = False
            return
        if not self._is_told:
            self._is_told = True
            self._log.error("nothing is passed on to a service that asks nobody who they are", cure=ASKS_NOBODY.message)
        raise Rejection(ASKS_NOBODY)
