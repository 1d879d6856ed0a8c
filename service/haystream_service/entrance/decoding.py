"""Requests as they come: late, too long or no message, they are refused in words, before anybody looks at them.

gRPC alone would wait without end, tell a caller what its parser says, and write the whole request into the log.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio

from haystream_service.entrance.door import caller
from haystream_service.entrance.health import SERVICE_NAME
from haystream_service.entrance.places import Streams
from haystream_service.entrance.reading import Bounds, Form, Reader
from haystream_service.entrance.refusing import answer_of, guarding, streaming
from haystream_service.identity.principal import ANYONE
from haystream_service.sizes import MAX_REQUEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from haystream_service.entrance.refusing import Continuation, Handler, RefusalObserver
    from haystream_service.rpc import Context

    Sender: TypeAlias = Callable[[Context], str]


CHAT = f"/{SERVICE_NAME}/Chat"

# Few at once, so that those that share a slow way come one after the other, and not all too late: 4 MiB of each of four
# come in 30 s over 5 Mbit/s. Of a request that is read gRPC takes up to 16 MiB, so that one that is too long can be
# refused in words: four of a caller's can take 64 MiB. Of those in line it takes 64 KiB.
CHATS = Bounds(seconds=30, max_bytes=MAX_REQUEST_BYTES, at_once=4, line_seconds=60)

# All others are a few words, and come at once, those of strangers among them.
MAX_STRANGERS_BYTES = 4096
WORDS = Bounds(seconds=10, max_bytes=MAX_STRANGERS_BYTES, at_once=16, line_seconds=10)


@dataclass(frozen=True, slots=True)
class Limits:
    """What requests may take while they come, and how many streams strangers may have: on a connection, and in all.

    Whoever balances over this service watches its health, once on a connection, and proxies have others' behind theirs;
    each watch takes some 20 KB. Reflection is asked by people with a tool.
    """

    chats: Bounds = CHATS
    others: Bounds = WORDS
    watches: tuple[int, int] = (100, 5000)
    reflections: tuple[int, int] = (8, 64)


class Decoding(grpc.aio.ServerInterceptor):
    """Has each request read, and refused where it cannot be, before its handler is asked. The innermost of a server's.

    Where nobody knows who calls each connection counts as somebody, so that a stranger holds up itself alone.
    """

    def __init__(self, observer: RefusalObserver, limits: Limits | None = None) -> None:
        self._observer = observer
        limits = limits or Limits()
        self._chats = Reader(limits.chats, observer)
        self._others = Reader(limits.others, observer)
        self._strangers = Reader(limits.others, observer)
        self._watches = Streams(*limits.watches)
        self._reflections = Streams(*limits.reflections)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the handler that reads before it answers."""
        handler = await continuation(handler_call_details)
        if handler is None:  # gRPC says itself that there is no such method
            return None
        form = Form(handler_call_details.method, handler.request_deserializer)
        if form.path == CHAT:
            return self._single(handler, form, self._chats, _caller_of)
        if form.path.startswith(f"/{SERVICE_NAME}/"):
            return self._single(handler, form, self._others, _caller_of)
        if handler.request_streaming:
            return self._conversation(handler, form)
        return self._single(handler, form, self._strangers, _connection_of)

    def _single(self, handler: Handler, form: Form, reader: Reader, sender_of: Sender) -> Handler:
        """Return a handler that answers to one request; where it streams to strangers, as one of so many."""
        answer = answer_of(handler)
        streams = self._watches if handler.response_streaming and reader is self._strangers else None

        async def read_and_answer(context: Context) -> None:
            sender = sender_of(context)
            async with guarding(self._observer, context):
                with _counted(streams, sender):
                    request = await reader.only(context, sender, form)
                    response = await answer(request, context)
                    if response is not None:  # one that streams has written itself
                        await context.write(response)

        return streaming(read_and_answer, handler.response_serializer)

    def _conversation(self, handler: Handler, form: Form) -> Handler:
        """Return a handler that answers to requests for as long as the next one comes in time, as reflection's."""
        answers_of: Any = handler.stream_stream

        async def converse(context: Context) -> None:
            sender = _connection_of(context)
            async with guarding(self._observer, context):
                with self._reflections.stream(sender):
                    async with (
                        aclosing(self._strangers.each(context, sender, form)) as asked,
                        aclosing(answers_of(asked, context)) as answers,
                    ):
                        async for answer in answers:
                            await context.write(answer)

        return streaming(converse, handler.response_serializer)


def _caller_of(context: Context) -> str:
    name = caller.get().name
    return name if name != ANYONE.name else _connection_of(context)


def _connection_of(context: Context) -> str:
    return str(context.peer())


def _counted(streams: Streams | None, connection: str) -> AbstractContextManager[None]:
    return nullcontext() if streams is None else streams.stream(connection)
