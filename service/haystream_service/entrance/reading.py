"""A request, read by hand: within its time, from one who has not too many others to come, and not too long.

gRPC holds what has come of a message for as long as its handler waits for the rest. A handler for single requests would
wait without end, and is not asked before.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError

from haystream_service.entrance.places import Places
from haystream_service.entrance.refusing import refuse_who_stays
from haystream_service.errors import InvalidRequest, MalformedMessage, RequestIncomplete, Violation
from haystream_service.sizes import largest_field

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from google.protobuf.descriptor import Descriptor

    from haystream_service.entrance.refusing import RefusalObserver
    from haystream_service.rpc import Context

    Decode: TypeAlias = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a request may take, and its bytes; how many each may have to come, and how long one more waits."""

    seconds: float
    max_bytes: int
    at_once: int
    line_seconds: float


@dataclass(frozen=True, slots=True)
class Form:
    """What a method is asked with; its path is as HTTP/2 has it."""

    path: str
    decode: Decode | None

    @property
    def kind(self) -> Descriptor:
        """What the contract says of it."""
        name = self.path.removeprefix("/").replace("/", ".")
        return descriptor_pool.Default().FindMethodByName(name).input_type

    def decoded(self, message: bytes) -> Any:
        """Return a request. Raises MalformedMessage."""
        try:
            return message if self.decode is None else self.decode(message)
        except DecodeError:
            raise MalformedMessage from None


class Reader:
    """Reads requests within bounds."""

    def __init__(self, bounds: Bounds, observer: RefusalObserver) -> None:
        self._bounds = bounds
        self._observer = observer
        self._places = Places(bounds.at_once, bounds.line_seconds)

    async def only(self, context: Context, sender: str, form: Form) -> Any:
        """Return the one request of a call.

        Raises TooManyRequestsOfYours, RequestIncomplete, InvalidRequest, MalformedMessage.
        """
        message = await self._message(context, sender)
        if message is None:
            await refuse_who_stays(self._observer, MalformedMessage(), context)
        size, limit = len(message), self._bounds.max_bytes
        if size > limit:  # to parse it could take thirty times its memory, and keep the loop for seconds
            why = f"the request has {size} bytes, most of them here; the limit is {limit}"
            raise InvalidRequest(Violation(largest_field(form.kind, message), why))
        return form.decoded(message)

    async def each(self, context: Context, sender: str, form: Form) -> AsyncGenerator[Any]:
        """Yield requests until one is the last, or does not come in time; one that is too long is an empty one.

        Raises RequestIncomplete where there is not even the first, and MalformedMessage.
        """
        is_first = True
        while True:
            try:
                message = await self._message(context, sender)
            except RequestIncomplete:
                if is_first:
                    raise
                return
            if message is None:
                return
            is_first = False
            yield form.decoded(message if len(message) <= self._bounds.max_bytes else b"")

    async def _message(self, context: Context, sender: str) -> bytes | None:
        """Return the next bytes; None where no more come: also of who has left, or sends more than gRPC takes."""
        async with self._places.place(sender):
            try:
                async with asyncio.timeout(self._bounds.seconds):
                    message = await context.read()
            except TimeoutError:
                raise RequestIncomplete from None
        return message if isinstance(message, bytes) else None
