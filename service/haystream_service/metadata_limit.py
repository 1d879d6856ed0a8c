"""How much metadata a call may bring, whoever calls.

gRPC has the same limit, but holds a peer to it only once that has acknowledged the settings: one that never does could
send a thousand times as much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio

from haystream_service.errors import TooMuchMetadata
from haystream_service.status import status_of_refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Handler = grpc.RpcMethodHandler[Any, Any]
    Metadata = Iterable[tuple[str, str | bytes]]

MAX_METADATA_BYTES = 16 * 1024
ENTRY_BYTES = 32  # what HTTP/2 counts for each entry beside its name and value (RFC 9113, 6.5.2)


class BoundedMetadata(grpc.aio.ServerInterceptor):
    """Refuses calls with too much metadata before anything looks at them."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of the call, or one that refuses it."""
        metadata = cast("Metadata", handler_call_details.invocation_metadata)
        if sum(len(name) + len(value) + ENTRY_BYTES for name, value in metadata) > MAX_METADATA_BYTES:
            return cast("Handler", grpc.unary_unary_rpc_method_handler(cast("Any", _refuse)))
        return await continuation(handler_call_details)


async def _refuse(_request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    status = status_of_refusal(TooMuchMetadata(MAX_METADATA_BYTES))
    await context.abort(status.code, status.message, status.trailers({}))
