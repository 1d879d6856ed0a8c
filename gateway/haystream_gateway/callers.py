"""Who calls, and what of that goes on to the service."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from haystream_gateway.problems import invalid
from haystream_gateway.upstream import AUTHORIZATION

if TYPE_CHECKING:
    from starlette.requests import Request

    from haystream_gateway.upstream import Metadata

REQUEST_ID = "x-request-id"
RUN_ID = "run_id"
MAX_CREDENTIALS = 8192  # half of what gRPC takes as metadata

_TRACE_HEADERS = {
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x20-\x7e]{0,128})?"),
    "tracestate": re.compile(r"[\x20-\x7e]{1,512}"),
}
_CREDENTIALS = re.compile(r"[\x20-\x7e]*")


def metadata_of(request: Request, *, with_identity: bool = True) -> Metadata:
    """Return what the service is to know: the caller's identity, the request's id and its place in a trace.

    Raises Rejection for credentials that no header of gRPC can hold. A trace that is malformed is left out, as its
    specification wants (https://www.w3.org/TR/trace-context/).
    """
    metadata = [(REQUEST_ID, request_id_of(request))]
    for name, form in _TRACE_HEADERS.items():
        value = request.headers.get(name, "")
        if form.fullmatch(value):
            metadata.append((name, value))
    if with_identity and (credentials := credentials_of(request)):
        metadata.append((AUTHORIZATION, credentials))
    return tuple(metadata)


def request_id_of(request: Request) -> str:
    """Return the request's id: the caller's own, or the one it was given."""
    request_id: str = request.state.request_id
    return request_id


def note_run(request: Request, run_id: str) -> None:
    """Have the line that the log gets about a request name its run."""
    setattr(request.state, RUN_ID, run_id)


def credentials_of(request: Request) -> str:
    """Return the `Authorization` header; empty where there is none. Raises Rejection where it makes no sense."""
    credentials = request.headers.get("authorization", "")
    if len(credentials) > MAX_CREDENTIALS or not _CREDENTIALS.fullmatch(credentials):
        raise invalid(("Authorization", f"expected at most {MAX_CREDENTIALS} printable ASCII characters"))
    return credentials
