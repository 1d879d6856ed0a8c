"""Every RPC from its beginning to its code, whatever form its handler has, told to those who watch."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import grpc.aio
from google.protobuf import descriptor_pool

from haystream_service.stream import is_deadline_over, time_remaining
from haystream_service.telemetry.caller import Caller, caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from haystream_service.rpc import Context

    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
    Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]
    Ended: TypeAlias = Callable[[grpc.StatusCode], None]

_CODES = {cast("int", code.value[0]): code for code in grpc.StatusCode}
_TYPES = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method that the service has. `type` is go-grpc-middleware's word for its form."""

    type: str
    service: str
    method: str


class Watcher(Protocol):
    """Who wants to know of RPCs. Called in the task that answers them."""

    def begun(self, rpc: Rpc, context: Context) -> Ended:
        """Hear that a call begins; return what is to be called with its code."""
        ...


class WatchedRpcs(grpc.aio.ServerInterceptor):
    """Tells the watchers of every call to a method of the services: others' names never come this far.

    Every handler is called as a coroutine. One that is a generator is read here, which closes it at once where its
    caller goes. A caller who went away in the middle of a write is an error of gRPC's in the handler, and ends here.
    """

    def __init__(self, services: Iterable[str], *watchers: Watcher) -> None:
        self._rpcs = {f"/{rpc.service}/{rpc.method}": rpc for rpc in rpcs_of(services)}
        self._watchers = watchers

    async def intercept_service(
        self,
        continuation: Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler, watched."""
        handler = await continuation(handler_call_details)
        rpc = self._rpcs.get(_text(handler_call_details.method))
        return handler if handler is None or rpc is None else self._watched(handler, rpc)

    def _watched(self, handler: Handler, rpc: Rpc) -> Handler:
        behaviour = _behaviour(handler)

        async def answer(request: Any, context: Context) -> Any:
            caller.set(Caller(rpc.method, context.peer()))
            ended = [watcher.begun(rpc, context) for watcher in self._watchers]
            seconds = time_remaining(context)
            code = grpc.StatusCode.UNKNOWN
            try:
                response = await _answered(behaviour, request, context)
                code = _code(context)
            except grpc.aio.AbortError:
                code = _code(context)
                raise
            except grpc.aio.BaseError:  # nobody is there any more who could be told
                code = _code_of_leaving(context, seconds)
                return None
            except asyncio.CancelledError:
                code = _code_of_leaving(context, seconds)
                raise
            finally:
                for tell in reversed(ended):
                    tell(code)
            return response

        return _handler_of(handler, answer)


def rpcs_of(services: Iterable[str]) -> list[Rpc]:
    """Return the methods of services."""
    pool = descriptor_pool.Default()
    return [
        Rpc(_TYPES[method.client_streaming, method.server_streaming], name, method.name)
        for name in services
        for method in pool.FindServiceByName(name).methods
    ]


async def _answered(behaviour: Callable[..., Any], request: Any, context: Context) -> Any:
    if not inspect.isasyncgenfunction(behaviour):
        return await behaviour(request, context)
    async with aclosing(behaviour(request, context)) as responses:
        async for response in responses:
            await context.write(response)
    return None


def _behaviour(handler: Handler) -> Callable[..., Any]:
    behaviours = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    return cast("Callable[..., Any]", next(filter(None, behaviours)))


def _handler_of(handler: Handler, behaviour: Callable[..., Any]) -> Handler:
    """Return a handler of the same form that behaves otherwise."""
    makers: dict[tuple[bool, bool], Any] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make = makers[handler.request_streaming, handler.response_streaming]
    return cast("Handler", make(behaviour, handler.request_deserializer, handler.response_serializer))


def _code(context: Context) -> grpc.StatusCode:
    """Return the code that was set; gRPC's own type for it is a number."""
    code: Any = context.code()
    return code if isinstance(code, grpc.StatusCode) else _CODES.get(code or 0, grpc.StatusCode.UNKNOWN)


def _code_of_leaving(context: Context, seconds: float | None) -> grpc.StatusCode:
    return grpc.StatusCode.DEADLINE_EXCEEDED if is_deadline_over(context, seconds) else grpc.StatusCode.CANCELLED


def _text(method: str | bytes) -> str:
    return method.decode() if isinstance(method, bytes) else method
