"""Requests as they come: those that are too long or no message are refused in words, before anybody looks at them.

gRPC alone would tell a caller what its parser says, and write the whole request into the log.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError

from haystream_service.entrance.health import SERVICE_NAME
from haystream_service.entrance.refusing import answer_of, like, refuse, streaming
from haystream_service.errors import InvalidRequest, MalformedMessage, RequestIncomplete, Violation
from haystream_service.sizes import MAX_REQUEST_BYTES, largest_field

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from google.protobuf.descriptor import Descriptor

    from haystream_service.entrance.refusing import Continuation, Handler, RefusalObserver
    from haystream_service.errors import Refusal
    from haystream_service.rpc import Context

    Streamed: TypeAlias = Callable[[AsyncIterator[Any], Context], AsyncGenerator[Any]]

# Outside the door, where nobody knows who asks, a request is a few words, and comes at once.
MAX_STRANGERS_BYTES = 4096
STRANGERS_SECONDS = 10


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """What stands in the place of a request that is refused."""

    refusal: Refusal


class Decoding(grpc.aio.ServerInterceptor):
    """Sees to it that a call whose request cannot be read is refused as any other wrong request is."""

    def __init__(self, observer: RefusalObserver) -> None:
        self._observer = observer

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the handler that looks at what was read before it answers."""
        handler = await continuation(handler_call_details)
        if handler is None:  # gRPC says itself that there is no such method
            return None
        method = handler_call_details.method
        if method.startswith(f"/{SERVICE_NAME}/"):
            return self._guarded(handler, method)
        return _shortened(handler) if handler.request_streaming else self._soon(handler, method)

    def _guarded(self, handler: Handler, method: str) -> Handler:
        """Return a handler that refuses what cannot be read."""
        answer = answer_of(handler)

        async def answer_decoded(request: Any, context: Context) -> Any:
            if isinstance(request, _Unreadable):
                await refuse(self._observer, request.refusal, context)
            return await answer(request, context)

        return like(handler, answer_decoded, lambda message: _decoded(handler, method, message, MAX_REQUEST_BYTES))

    def _soon(self, handler: Handler, method: str) -> Handler:
        """Return a handler that does as well, and waits for a request no longer than it takes to send one.

        A part of a message is held for as long as its handler waits for the rest.
        """
        answer = answer_of(handler)

        async def read_and_answer(context: Context) -> None:
            try:
                async with asyncio.timeout(STRANGERS_SECONDS):
                    message = await context.read()
            except TimeoutError:
                await refuse(self._observer, RequestIncomplete(), context)
            read = _decoded(handler, method, message, MAX_STRANGERS_BYTES) if isinstance(message, bytes) else None
            if read is None or isinstance(read, _Unreadable):
                await refuse(self._observer, MalformedMessage() if read is None else read.refusal, context)
            response = await answer(read, context)
            if response is not None:  # one that streams has written itself
                await context.write(response)

        return streaming(read_and_answer, handler.response_serializer)


def _decoded(handler: Handler, method: str, message: bytes, limit_bytes: int) -> Any:
    if len(message) > limit_bytes:  # to parse it could take thirty times its memory, and keep the loop for seconds
        why = f"the request has {len(message)} bytes, most of them here; the limit is {limit_bytes}"
        return _Unreadable(InvalidRequest(Violation(largest_field(_kind_of_request(method), message), why)))
    try:
        return handler.request_deserializer(message) if handler.request_deserializer is not None else message
    except DecodeError:
        return _Unreadable(MalformedMessage())


def _kind_of_request(method: str) -> Descriptor:
    """Return what the contract says that a method is asked with; its name is as HTTP/2 has it."""
    name = method.removeprefix("/").replace("/", ".")
    return descriptor_pool.Default().FindMethodByName(name).input_type


def _shortened(handler: Handler) -> Handler:
    """Return a handler for streams of requests, as reflection's, to which one that is too long is an empty one.

    A stream whose next request does not come in time has had its last.
    """
    decode, answer = handler.request_deserializer, cast("Streamed", handler.stream_stream)
    if decode is None:
        return handler

    def shortened(message: bytes) -> Any:
        return decode(message if len(message) <= MAX_STRANGERS_BYTES else b"")

    async def answer_in_time(requests: AsyncIterator[Any], context: Context) -> AsyncGenerator[Any]:
        async with aclosing(_in_time(requests)) as asked, aclosing(answer(asked, context)) as responses:
            async for response in responses:
                yield response

    handler_for: Any = grpc.stream_stream_rpc_method_handler
    made: Handler = handler_for(answer_in_time, shortened, handler.response_serializer)
    return made


async def _in_time(requests: AsyncIterator[Any]) -> AsyncGenerator[Any]:
    """Yield requests until one is the last, or does not come."""
    with suppress(StopAsyncIteration, TimeoutError):
        while True:
            async with asyncio.timeout(STRANGERS_SECONDS):
                request = await anext(requests)
            yield request
