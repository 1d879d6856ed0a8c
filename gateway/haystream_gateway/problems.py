"""The one table from the service's statuses to what HTTP clients see: problem documents (RFC 9457) and error frames."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
from fastapi.responses import JSONResponse
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MEDIA_TYPE = "application/problem+json"
DOMAIN = "haystream"
DETAILS_KEY = "grpc-status-details-bin"

# A field is named as it was sent: a key of a body can be all of that.
MAX_TEXT = 240

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

# With these the service ends a reader's stream, and not the run, of which there may be more to read.
_RUN_MAY_GO_ON = frozenset({"DRAINING", "SLOW_READER"})

# The contract's names for what HTTP clients send as `messages`, and theirs.
_CONVERSATION = "conversation."
_RENAMED = {"after_seq": "after"}
_IN_MESSAGES = (
    (re.compile(r"\[(\d+)\]"), r".\1"),
    (re.compile(r"\.parts\b"), ".content"),
    (re.compile(r"\.image\b"), ".image_url"),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, as a client may know it. `retry_seconds` is set where waiting helps.

    It `is_last_word` where the service has said that so a run has ended: nothing more will come of that.
    """

    code: grpc.StatusCode
    reason: str
    message: str
    retry_seconds: float | None = None
    errors: Sequence[Mapping[str, str]] = ()
    run_id: str = ""
    last_seq: int = 0
    own_http_status: int = 0
    is_last_word: bool = False

    @property
    def http_status(self) -> int:
        """The status of an HTTP answer that says so."""
        return self.own_http_status or _HTTP_STATUS.get(self.code, 500)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an HTTP answer that says so."""
        headers = {} if self.retry_seconds is None else {"Retry-After": str(max(1, ceil(self.retry_seconds)))}
        if self.http_status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    @property
    def event_id(self) -> str:
        """The id of a frame that says so; empty where there is no run.

        A run's last word has a number of its own, the one after its last event: whoever comes back with it has all.
        What only ends this stream has the number of the event before: whoever comes back with it gets the rest.
        """
        if not self.run_id:
            return ""
        return f"{self.run_id}:{self.last_seq + self.is_last_word}"

    def response(self) -> JSONResponse:
        """Return the problem as an answer of its own."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": self.reason.replace("_", " ").capitalize(),
            "status": self.http_status,
            "detail": self.message,
            "code": self.code.name,
            "reason": self.reason,
            "retryable": self.retry_seconds is not None,
        }
        if self.errors:
            document["errors"] = list(self.errors)
        return JSONResponse(document, self.http_status, self.headers, media_type=MEDIA_TYPE)

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


# A status without Haystream's details comes from gRPC itself, and its words may hold addresses.
SERVICE_SILENT = Problem(
    Code.DEADLINE_EXCEEDED,
    "SERVICE_SILENT",
    "the Haystream service behind this gateway did not answer in time",
    retry_seconds=1.0,
)
_FOREIGN = {
    Code.UNAVAILABLE: Problem(
        Code.UNAVAILABLE,
        "SERVICE_UNREACHABLE",
        "the Haystream service behind this gateway cannot be reached",
        retry_seconds=1.0,
    ),
    Code.RESOURCE_EXHAUSTED: Problem(
        Code.RESOURCE_EXHAUSTED,
        "MESSAGE_TOO_LARGE",
        "a message is larger than gRPC takes here",
        own_http_status=413,
    ),
    Code.DEADLINE_EXCEEDED: SERVICE_SILENT,
}
DEFECT = Problem(Code.INTERNAL, "INTERNAL", "the gateway has a defect here; its log has the details")


class Rejection(Exception):
    """Ends a request, or a stream that has begun, with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def invalid(*errors: tuple[str, str]) -> Rejection:
    """Return a rejection that names the wrong fields, each with what would be right."""
    listed = [{"field": clipped(field), "message": clipped(message)} for field, message in errors]
    summary = "; ".join("{field}: {message}".format(**error) for error in listed)
    return Rejection(Problem(Code.INVALID_ARGUMENT, "INVALID_REQUEST", summary, errors=listed))


def clipped(text: str) -> str:
    """Return what of a caller's words is said back."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def problem_of(error: grpc.aio.AioRpcError) -> Problem:
    """Return what a client may know of an error of the service."""
    details = list(_details(error))
    info = next((item for item in details if isinstance(item, error_details_pb2.ErrorInfo)), None)
    if info is None or info.domain != DOMAIN:
        unknown = Problem(error.code(), "INTERNAL", "something failed behind this gateway")
        return _FOREIGN.get(error.code(), unknown)
    bad_request = next((item for item in details if isinstance(item, error_details_pb2.BadRequest)), None)
    retry = next((item for item in details if isinstance(item, error_details_pb2.RetryInfo)), None)
    last_seq = info.metadata.get("last_seq", "")
    return Problem(
        code=error.code(),
        reason=info.reason,
        message=error.details() or "",
        retry_seconds=None if retry is None else retry.retry_delay.ToTimedelta().total_seconds(),
        errors=[
            {"field": _field(violation.field), "message": violation.description}
            for violation in (bad_request.field_violations if bad_request is not None else ())
        ],
        run_id=info.metadata.get("run_id", ""),
        last_seq=int(last_seq) if last_seq.isdecimal() else 0,
        is_last_word="run_id" in info.metadata and info.reason not in _RUN_MAY_GO_ON,
    )


def _field(name: str) -> str:
    """Return a field of the contract as HTTP clients know it."""
    if not name.startswith(_CONVERSATION):
        return _RENAMED.get(name, name)
    name = name.removeprefix(_CONVERSATION)
    for form, replacement in _IN_MESSAGES:
        name = form.sub(replacement, name)
    return name


def _details(error: grpc.aio.AioRpcError) -> Iterator[Any]:
    kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    for key, value in cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            for packed in status_pb2.Status.FromString(value).details:
                for kind in kinds:
                    detail = kind()
                    if packed.Unpack(detail):
                        yield detail
