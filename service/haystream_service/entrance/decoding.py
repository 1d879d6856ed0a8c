"""Requests that are no message of the contract: refused in words. gRPC would tell the exception, and log all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from haystream_service.entrance.refusing import answer_of, like, refuse
from haystream_service.errors import MalformedMessage

if TYPE_CHECKING:
    from haystream_service.entrance.refusing import Continuation, Handler, RefusalObserver
    from haystream_service.rpc import Context


class Decoding(grpc.aio.ServerInterceptor):
    """Sees to it that a call whose request cannot be read is refused as any other wrong request is.

    The RPCs whose requests are streams, as reflection's, are left as they are.
    """

    def __init__(self, observer: RefusalObserver) -> None:
        self._observer = observer

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the handler that looks at what was read before it answers."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:  # none: gRPC says itself that there is no such method
            return handler
        return self._guarded(handler)

    def _guarded(self, handler: Handler) -> Handler:
        answer, decode = answer_of(handler), handler.request_deserializer

        def decoded(message: bytes) -> Any:
            try:
                return decode(message) if decode is not None else message
            except DecodeError:
                return None

        async def answer_decoded(request: Any, context: Context) -> Any:
            if request is None:
                await refuse(self._observer, MalformedMessage(), context)
            return await answer(request, context)

        return like(handler, answer_decoded, decoded)
