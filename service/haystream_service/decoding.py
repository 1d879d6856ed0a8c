"""Requests that cannot be read are refused in words of the contract's: gRPC would send out what its parser says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio
from google.protobuf.message import DecodeError

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.errors import InvalidRequest, Violation
from haystream_service.status import status_of_refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from haystream_service.chat import ChatServicer
    from haystream_service.stream import Context

SERVICE_NAME = chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
UNREADABLE = InvalidRequest(
    Violation("request", "this is no message of the contract, or it is nested deeper than protobuf's 100 levels")
)


class _Methods:
    """Stands in for a server, and takes what the generated code would register there."""

    def __init__(self) -> None:
        self.by_name: Mapping[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Leave out the same once more, for servers that look methods up by their path."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self.by_name = handlers


def add_chat_service(servicer: ChatServicer, server: grpc.aio.Server) -> None:
    """Register a servicer with a server, which hands the bytes of requests on."""
    methods = _Methods()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(servicer, methods)  # type: ignore[arg-type]  # all that it calls
    handlers = {name: _reading(method) for name, method in methods.by_name.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
    server.add_registered_method_handlers(SERVICE_NAME, handlers)


def _reading(method: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """Return the handler of a method with its reading done by the method itself."""
    make, answer = (
        (grpc.unary_stream_rpc_method_handler, method.unary_stream)
        if method.response_streaming
        else (grpc.unary_unary_rpc_method_handler, method.unary_unary)
    )
    return make(_answering(method.request_deserializer, answer), response_serializer=method.response_serializer)


def _answering(
    read: Callable[[bytes], Any], answer: Callable[[Any, Context], Awaitable[Any]]
) -> Callable[[bytes, Context], Awaitable[Any]]:
    async def read_and_answer(data: bytes, context: Context) -> Any:
        try:
            request = read(data)
        except DecodeError:
            status = status_of_refusal(UNREADABLE)
            await context.abort(status.code, status.message, status.trailers({}))
        return await answer(request, context)

    return read_and_answer
