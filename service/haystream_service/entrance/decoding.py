"""Requests as they come: late, too long or no message, they are refused in words, before anybody looks at them.

gRPC alone would wait without end, tell a caller what its parser says, and write the whole request into the log.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio

from haystream_service.entrance.door import caller
from haystream_service.entrance.health import SERVICE_NAME
from haystream_service.entrance.places import Streams
from haystream_service.entrance.reading import Bounds, Reader
from haystream_service.entrance.refusing import answer_of, guarding, streaming
from haystream_service.sizes import MAX_REQUEST_BYTES, largest_field

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from haystream_service.entrance.refusing import Continuation, Handler, RefusalObserver
    from haystream_service.rpc import Context

    Sender: TypeAlias = Callable[[Context], str]

# Of each caller 16 requests, of 16 MiB before gRPC itself refuses them, are held in part: those of one that keeps them
# back. 4 MiB come in 30 s over a line of 1.2 Mbit/s.
CHATS = Bounds(seconds=30, max_bytes=MAX_REQUEST_BYTES, at_once=16)
# All other requests are a few words, and come at once: callers', beside their chats, and on each connection strangers'.
WORDS = Bounds(seconds=10, max_bytes=4096, at_once=16)

# Whoever balances over this service watches its health, once on a connection; proxies have others' behind theirs.
# Anybody may, and each takes some 20 KB.
WATCHES_ON_A_CONNECTION, WATCHES = 100, 5000
# Reflection is asked by people with a tool, who are few.
REFLECTIONS_ON_A_CONNECTION, REFLECTIONS = 8, 64


class Decoding(grpc.aio.ServerInterceptor):
    """Has each request read, and refused where it cannot be, before its handler is asked. The innermost of a server's.

    Outside of the door nobody knows who calls: there each connection counts as somebody.
    """

    def __init__(self, observer: RefusalObserver, chats: Bounds = CHATS, words: Bounds = WORDS) -> None:
        self._observer = observer
        self._chats = Reader(chats, observer, largest_field)
        self._others = Reader(words, observer, _whole)
        self._strangers = Reader(words, observer, _whole)
        self._watches = Streams(WATCHES_ON_A_CONNECTION, WATCHES)
        self._reflections = Streams(REFLECTIONS_ON_A_CONNECTION, REFLECTIONS)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the handler that reads before it answers."""
        handler = await continuation(handler_call_details)
        if handler is None:  # gRPC says itself that there is no such method
            return None
        _, service, rpc = handler_call_details.method.split("/")
        if service == SERVICE_NAME:
            return self._single(handler, self._chats if rpc == "Chat" else self._others, _principal_of)
        if handler.request_streaming:
            return self._conversation(handler)
        return self._single(handler, self._strangers, _connection_of, self._watches)

    def _single(self, handler: Handler, reader: Reader, sender_of: Sender, streams: Streams | None = None) -> Handler:
        """Return a handler that answers to one request; where it streams, as one of so many."""
        answer = answer_of(handler)
        limited = streams if handler.response_streaming else None

        async def read_and_answer(context: Context) -> None:
            sender = sender_of(context)
            async with guarding(self._observer, context):
                with _counted(limited, sender):
                    request = await reader.only(context, sender, handler.request_deserializer)
                    response = await answer(request, context)
                    if response is not None:  # one that streams has written itself
                        await context.write(response)

        return streaming(read_and_answer, handler.response_serializer)

    def _conversation(self, handler: Handler) -> Handler:
        """Return a handler that answers to requests for as long as the next one comes in time, as reflection's."""
        answers_of: Any = handler.stream_stream

        async def requests(context: Context, sender: str) -> AsyncGenerator[Any]:
            while (request := await self._strangers.next(context, sender, handler.request_deserializer)) is not None:
                yield request

        async def converse(context: Context) -> None:
            sender = _connection_of(context)
            async with guarding(self._observer, context):
                with self._reflections.stream(sender):
                    async with (
                        aclosing(requests(context, sender)) as asked,
                        aclosing(answers_of(asked, context)) as answers,
                    ):
                        async for answer in answers:
                            await context.write(answer)

        return streaming(converse, handler.response_serializer)


def _principal_of(_: Context) -> str:
    return caller.get().name


def _connection_of(context: Context) -> str:
    return str(context.peer())


def _counted(streams: Streams | None, connection: str) -> AbstractContextManager[None]:
    return nullcontext() if streams is None else streams.stream(connection)


def _whole(_: bytes) -> str:
    return "request"
