"""The one table from the service's statuses to what HTTP clients see: problem documents (RFC 9457) and error frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
from fastapi.responses import JSONResponse
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

DOMAIN = "haystream"
DETAILS_KEY = "grpc-status-details-bin"

Code = grpc.StatusCode

_HTTP_STATUS = {
    Code.INVALID_ARGUMENT: 422,
    Code.OUT_OF_RANGE: 422,
    Code.FAILED_PRECONDITION: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}

# A status without Haystream's details comes from gRPC itself, and its words may hold addresses.
_FOREIGN = {
    Code.UNAVAILABLE: ("SERVICE_UNREACHABLE", "the Haystream service behind this gateway cannot be reached"),
    Code.RESOURCE_EXHAUSTED: ("MESSAGE_TOO_LARGE", "the request is larger than the service takes"),
    Code.DEADLINE_EXCEEDED: ("SERVICE_SILENT", "the Haystream service behind this gateway did not answer in time"),
}
_UNKNOWN = ("INTERNAL", "something failed behind this gateway")


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, as a client may know it. `retry_seconds` is set where waiting helps."""

    code: grpc.StatusCode
    reason: str
    message: str
    retry_seconds: float | None = None
    errors: Sequence[Mapping[str, str]] = ()
    run_id: str = ""
    last_seq: int = 0
    http_status: int = 0

    def response(self) -> JSONResponse:
        """Return the problem as an answer of its own."""
        status = self.http_status or _HTTP_STATUS.get(self.code, 500)
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": self.reason.replace("_", " ").capitalize(),
            "status": status,
            "detail": self.message,
            "code": self.code.name,
            "reason": self.reason,
            "retryable": self.retry_seconds is not None,
        }
        if self.errors:
            document["errors"] = list(self.errors)
        headers = {} if self.retry_seconds is None else {"Retry-After": str(max(1, round(self.retry_seconds)))}
        return JSONResponse(document, status, headers, media_type="application/problem+json")

    def frame_data(self) -> dict[str, Any]:
        """Return the problem as the data of an `error` frame."""
        return {
            "code": self.code.name,
            "reason": self.reason,
            "message": self.message,
            "retryable": self.retry_seconds is not None,
            "run_id": self.run_id,
            "last_seq": self.last_seq,
        }


class Rejection(Exception):
    """Ends a request with a problem of the gateway's own."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def invalid(*errors: tuple[str, str]) -> Rejection:
    """Return a rejection that names the wrong fields, each with what would be right."""
    listed = [{"field": field, "message": message} for field, message in errors]
    summary = "; ".join(f"{field}: {message}" for field, message in errors)
    return Rejection(Problem(Code.INVALID_ARGUMENT, "INVALID_REQUEST", summary, errors=listed))


def problem_of(error: grpc.aio.AioRpcError) -> Problem:
    """Return what a client may know of an error of the service."""
    details = list(_details(error))
    info = next((item for item in details if isinstance(item, error_details_pb2.ErrorInfo)), None)
    if info is None or info.domain != DOMAIN:
        return _foreign_problem(error.code())
    bad_request = next((item for item in details if isinstance(item, error_details_pb2.BadRequest)), None)
    retry = next((item for item in details if isinstance(item, error_details_pb2.RetryInfo)), None)
    last_seq = info.metadata.get("last_seq", "")
    return Problem(
        code=error.code(),
        reason=info.reason,
        message=error.details() or "",
        retry_seconds=None if retry is None else retry.retry_delay.ToTimedelta().total_seconds(),
        errors=[
            {"field": violation.field, "message": violation.description}
            for violation in (bad_request.field_violations if bad_request is not None else ())
        ],
        run_id=info.metadata.get("run_id", ""),
        last_seq=int(last_seq) if last_seq.isdecimal() else 0,
    )


def _foreign_problem(code: grpc.StatusCode) -> Problem:
    reason, message = _FOREIGN.get(code, _UNKNOWN)
    return Problem(code, reason, message, retry_seconds=1.0 if code is Code.UNAVAILABLE else None)


def _details(error: grpc.aio.AioRpcError) -> Iterator[Any]:
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    for key, value in cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            for packed in status_pb2.Status.FromString(value).details:
                for kind in kinds:
                    detail = kind()
                    if packed.Unpack(detail):
                        yield detail
