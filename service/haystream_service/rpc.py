"""A call as its handler sees it: how it is refused, and what every answer to it carries."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc.aio

if TYPE_CHECKING:
    from haystream_service.status import Status

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

REQUEST_ID = "x-request-id"
MAX_REQUEST_ID_LENGTH = 128

_HEADERS = {"run_id": "x-run-id", "last_seq": "x-last-seq"}


async def abort(context: Context, status: Status, metadata: dict[str, str]) -> NoReturn:
    """End a call with a status; `metadata` goes into its details, and what has a name there into the trailers."""
    await context.abort(status.code, status.message, (*headers(metadata), *status.trailers(metadata)))


def headers(metadata: dict[str, str]) -> tuple[tuple[str, str | bytes], ...]:
    """Return what an answer's headers or trailers carry of what is known about the run."""
    return tuple((_HEADERS[name], value) for name, value in metadata.items() if name in _HEADERS)


def request_id_of(context: Context) -> str:
    """Return the caller's id of the request, where it is fit to be printed, or a new one."""
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID and isinstance(value, str) and _is_fit(value):
            return value
    return secrets.token_hex(8)


def _is_fit(request_id: str) -> bool:
    return 0 < len(request_id) <= MAX_REQUEST_ID_LENGTH and request_id.isprintable()
