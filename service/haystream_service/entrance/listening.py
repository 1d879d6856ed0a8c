"""gRPC's server, made to outlive what is no method.

grpcio 1.85.1 decodes the path of a call whose method it does not know in the very loop that takes calls. Where that is
not UTF-8 the server ends, and every stream with it: one request of anybody's would do. So no such call gets that far.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from grpc._cython import cygrpc as _cygrpc
from grpc.aio import _server as _grpc_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc.aio

UNKNOWN = ""  # in place of a method's name, which nobody needs to know

# What is not public has no types.
cygrpc: Any = _cygrpc
grpc_server: Any = _grpc_server


def listening_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor], options: Sequence[tuple[str, Any]]
) -> grpc.aio.Server:
    """Return a server, as `grpc.aio.server` does. Services have to be added as generated code adds them."""
    return cast("grpc.aio.Server", _Server(interceptors, options))


class _Server(grpc_server.Server):  # type: ignore[misc]  # has no types
    """What has a listening server inside where it would have gRPC's own."""

    def __init__(self, interceptors: Sequence[object], options: Sequence[tuple[str, Any]]) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = _Listening(self._loop, None, (), interceptors, tuple(options), None)


class _Listening(cygrpc.AioServer):  # type: ignore[misc]  # has no types
    """Answers every call of no registered method itself, with UNIMPLEMENTED, and without a look at its path."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # pyright: ignore[reportUnknownMemberType]  # has no types
        self._answers: set[asyncio.Task[None]] = set()

    async def _request_call(self) -> object:
        loop = asyncio.get_running_loop()
        nothing = cygrpc._MethodResolver([], {})  # noqa: SLF001 - nothing public is called there
        while True:
            call: object = await super()._request_call()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            answer = cygrpc._handle_rpc(UNKNOWN, nothing, (), call, loop, False)  # noqa: SLF001
            task = loop.create_task(cygrpc._schedule_rpc_coro(answer, call, loop, UNKNOWN))  # noqa: SLF001
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
