"""A request, read by hand: within its time, from one who has not too many others to come, and not too long.

gRPC holds what has come of a message for as long as its handler waits for the rest. A handler for single requests would
wait without end, and is not asked before.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf.message import DecodeError

from haystream_service.entrance.places import Places
from haystream_service.entrance.refusing import refuse_who_stays
from haystream_service.errors import InvalidRequest, MalformedMessage, RequestIncomplete, Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from haystream_service.entrance.refusing import RefusalObserver
    from haystream_service.rpc import Context

    Decode: TypeAlias = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a request may take to come, its place in line included; its bytes; how many each may have to come."""

    seconds: float
    max_bytes: int
    at_once: int


class Reader:
    """Reads requests of a kind. `name_largest` tells which field of one that is too long takes most of it."""

    def __init__(self, bounds: Bounds, observer: RefusalObserver, name_largest: Callable[[bytes], str]) -> None:
        self._bounds = bounds
        self._observer = observer
        self._name_largest = name_largest
        self._places = Places(bounds.at_once)

    async def only(self, context: Context, sender: str, decode: Decode | None) -> Any:
        """Return the one request of a call. Raises RequestIncomplete, InvalidRequest, MalformedMessage."""
        message = await self._message(context, sender)
        if message is None:
            await refuse_who_stays(self._observer, MalformedMessage(), context)
        return self._decoded(message, decode)

    async def next(self, context: Context, sender: str, decode: Decode | None) -> Any:
        """Return the next request of a stream, None at its end. Raises as `only`."""
        message = await self._message(context, sender)
        return None if message is None else self._decoded(message, decode)

    async def _message(self, context: Context, sender: str) -> bytes | None:
        """Return the next bytes; None where no more come: also of who has left, or sends more than gRPC takes."""
        try:
            async with asyncio.timeout(self._bounds.seconds), self._places.place(sender):
                message = await context.read()
        except TimeoutError:
            raise RequestIncomplete from None
        return message if isinstance(message, bytes) else None

    def _decoded(self, message: bytes, decode: Decode | None) -> Any:
        limit = self._bounds.max_bytes
        if len(message) > limit:  # to parse it could take thirty times its memory, and keep the loop for seconds
            why = f"the request has {len(message)} bytes, most of them here; the limit is {limit}"
            raise InvalidRequest(Violation(self._name_largest(message), why))
        try:
            return message if decode is None else decode(message)
        except DecodeError:
            raise MalformedMessage from None
