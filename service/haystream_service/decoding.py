"""Requests that are no message of the contract: refused in words. gRPC would tell the exception, and log all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from haystream_service.errors import MalformedMessage
from haystream_service.status import status_of_refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Context = grpc.aio.ServicerContext[Any, Any]
    Answer = Callable[[Any, Context], Awaitable[Any]]
    Handler = grpc.RpcMethodHandler[Any, Any]


class Decoding(grpc.aio.ServerInterceptor):
    """Sees to it that a call whose request cannot be read is refused as any other wrong request is.

    The RPCs whose requests are streams, as reflection's, are left as they are.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler that looks at what was read before it answers."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:  # none: gRPC says itself that there is no such method
            return handler
        return _guarded(handler)


def _guarded(handler: Handler) -> Handler:
    answer = cast("Answer", handler.unary_stream if handler.response_streaming else handler.unary_unary)
    decode = cast("Callable[[bytes], Any]", handler.request_deserializer)

    def decoded(message: bytes) -> Any:
        try:
            return decode(message)
        except DecodeError:
            return None

    async def answer_decoded(request: Any, context: Context) -> Any:
        if request is None:
            status = status_of_refusal(MalformedMessage())
            await context.abort(status.code, status.message, status.trailers({}))
        return await answer(request, context)

    make = cast(
        "Callable[..., Handler]",
        grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler,
    )
    return make(answer_decoded, decoded, handler.response_serializer)
