"""How much metadata a call may bring, whoever calls.

gRPC has the same limit, but holds a peer to it only once that has acknowledged the settings: one that never does could
send a thousand times as much.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import grpc
import grpc.aio

from haystream_service.entrance.refusing import refuse, refusing
from haystream_service.entrance.transport import MAX_METADATA_BYTES
from haystream_service.errors import TooMuchMetadata

if TYPE_CHECKING:
    from collections.abc import Iterable

    from haystream_service.entrance.refusing import Continuation, Handler, RefusalObserver

    Metadata = Iterable[tuple[str, str | bytes]]

ENTRY_BYTES = 32  # what HTTP/2 counts for each entry beside its name and value (RFC 9113, 6.5.2)


class BoundedMetadata(grpc.aio.ServerInterceptor):
    """Refuses calls with too much metadata before anything looks at them."""

    def __init__(self, observer: RefusalObserver) -> None:
        self._observer = observer

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the handler of the call, or one that refuses it."""
        metadata = cast("Metadata", handler_call_details.invocation_metadata)
        if sum(len(name) + len(value) + ENTRY_BYTES for name, value in metadata) > MAX_METADATA_BYTES:
            return refusing(partial(refuse, self._observer, TooMuchMetadata(MAX_METADATA_BYTES)))
        return await continuation(handler_call_details)
