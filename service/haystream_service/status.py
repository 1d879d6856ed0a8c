"""The one table from what went wrong to what a gRPC caller sees: code, reason, details, and never foreign words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from haystream_service import errors
from haystream_service.run import ending as endings
from haystream_service.run.ending import WORTH_RETRYING, FailureKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

DOMAIN = "haystream"
RETRY_SECONDS = 1.0
DETAILS_KEY = "grpc-status-details-bin"

MAX_TEXT_BYTES = 240  # of each text, for the same reason as there are few violations

Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class Status:
    """What a caller sees of an error."""

    code: grpc.StatusCode
    reason: str
    message: str
    retry_seconds: float | None = None
    violations: Sequence[errors.Violation] = ()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    def trailers(self, metadata: Mapping[str, str]) -> tuple[tuple[str, str | bytes], ...]:
        """Return the trailer that carries the details, with more metadata for the ErrorInfo."""
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata={**self.metadata, **metadata})
        details: list[Message] = [info]
        if self.violations:
            details.append(_bad_request(self.violations))
        if self.retry_seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_seconds * 1000))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=map(_packed, details))
        return ((DETAILS_KEY, status.SerializeToString()),)


DEFECT = Status(Code.INTERNAL, "INTERNAL", "the service has a defect here; its log has the details")

_FAILURES = {
    FailureKind.PROVIDER_AUTH: (Code.FAILED_PRECONDITION, "the model's provider refused the key"),
    FailureKind.PROVIDER_BUSY: (Code.RESOURCE_EXHAUSTED, "the model's provider has no room for more just now"),
    FailureKind.PROVIDER_REJECTED: (Code.INVALID_ARGUMENT, "the model's provider refused the request as it is"),
    FailureKind.PROVIDER_TIMEOUT: (Code.DEADLINE_EXCEEDED, "the model's provider did not answer in time"),
    FailureKind.PROVIDER_UNAVAILABLE: (Code.UNAVAILABLE, "the model's provider cannot be reached or is failing"),
    FailureKind.COMPONENT_FAILED: (
        Code.INTERNAL,
        "a component of the pipeline failed; the service's log has the details",
    ),
    FailureKind.PIPELINE_BUILD_FAILED: (
        Code.FAILED_PRECONDITION,
        "the pipeline could not be built with the key in `api_key`; the service's log has the details",
    ),
}


def status_of_refusal(refusal: errors.Refusal) -> Status:  # noqa: C901, PLR0911, PLR0912 - the table
    """Return what a caller sees of a request that was refused."""
    text = _clipped(str(refusal))
    match refusal:
        case errors.InvalidRequest():
            return Status(Code.INVALID_ARGUMENT, "INVALID_REQUEST", text, violations=refusal.violations)
        case errors.MalformedMessage():
            return Status(Code.INVALID_ARGUMENT, "MALFORMED_MESSAGE", text)
        case errors.RequestIncomplete():
            return Status(Code.DEADLINE_EXCEEDED, "REQUEST_INCOMPLETE", text)
        # To gRPC's clients, who watch health, any other code says that nobody is healthy here.
        case errors.TooManyStreams():
            return Status(Code.UNIMPLEMENTED, "TOO_MANY_STREAMS", text)
        case errors.TooManyStreamsOfYours():
            return Status(Code.UNIMPLEMENTED, "TOO_MANY_STREAMS_OF_YOURS", text)
        case errors.TooManyRequestsOfYours():
            return Status(Code.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS_OF_YOURS", text, RETRY_SECONDS)
        case errors.TooMuchMetadata():
            return Status(Code.RESOURCE_EXHAUSTED, "METADATA_TOO_LARGE", text)
        case errors.NotAuthenticated(reason=reason):
            return Status(Code.UNAUTHENTICATED, reason, text)
        case errors.IdentityUnavailable():
            return Status(Code.UNAVAILABLE, "IDENTITY_UNAVAILABLE", text, RETRY_SECONDS)
        case errors.PipelineForbidden():
            return Status(Code.PERMISSION_DENIED, "PIPELINE_FORBIDDEN", text)
        case errors.ApiKeyForbidden():
            return Status(Code.PERMISSION_DENIED, "API_KEY_FORBIDDEN", text)
        case errors.PipelineNotFound():
            violation = errors.Violation("pipeline", text)
            return Status(Code.NOT_FOUND, "PIPELINE_NOT_FOUND", text, violations=[violation])
        case errors.PipelineNotReady(loading=True):
            return Status(Code.UNAVAILABLE, "PIPELINE_LOADING", text, RETRY_SECONDS)
        case errors.PipelineNotReady():
            return Status(Code.FAILED_PRECONDITION, "PIPELINE_NOT_LOADED", text)
        case errors.ApiKeyRequired():
            return Status(Code.FAILED_PRECONDITION, "API_KEY_REQUIRED", text)
        case errors.RunExists():
            return Status(Code.ALREADY_EXISTS, "RUN_EXISTS", text)
        case errors.RunNotFound():
            return Status(Code.NOT_FOUND, "RUN_NOT_FOUND", text)
        case errors.TooManyRuns():
            return Status(Code.RESOURCE_EXHAUSTED, "TOO_MANY_RUNS", text, RETRY_SECONDS)
        case errors.TooManyRunsOfYours():
            return Status(Code.RESOURCE_EXHAUSTED, "TOO_MANY_RUNS_OF_YOURS", text, RETRY_SECONDS)
        case errors.TooManyRunsAMinute(retry_seconds=seconds):
            return Status(Code.RESOURCE_EXHAUSTED, "TOO_MANY_RUNS_A_MINUTE", text, seconds)
        case errors.TooManyReaders():
            return Status(Code.RESOURCE_EXHAUSTED, "TOO_MANY_READERS", text, RETRY_SECONDS)
        case errors.TooManyReadersOfYours():
            return Status(Code.RESOURCE_EXHAUSTED, "TOO_MANY_READERS_OF_YOURS", text, RETRY_SECONDS)
        case errors.TooManyImages():
            return Status(Code.RESOURCE_EXHAUSTED, "TOO_MANY_IMAGES", text, RETRY_SECONDS)
        case errors.ServiceDraining():
            return Status(Code.UNAVAILABLE, "DRAINING", text, RETRY_SECONDS)
        case _:
            return DEFECT


def status_of_ending(ending: endings.Ending) -> Status | None:  # noqa: PLR0911 - the table
    """Return what a caller sees of a run's ending; None stands for OK."""
    match ending:
        case endings.Completed():
            return None
        case endings.Failed(failure):
            return _status_of_failure(failure)
        case endings.Cancelled():
            return Status(Code.ABORTED, "RUN_CANCELLED", "the run was cancelled")
        case endings.DeadlineExceeded():
            return Status(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the run took longer than it may")
        case endings.ReaderTooSlow():
            return Status(Code.ABORTED, "SLOW_READER", "the reader took nothing for too long", RETRY_SECONDS)
        case endings.Drained():
            return Status(Code.UNAVAILABLE, "DRAINING", "the service is shutting down", RETRY_SECONDS)
        case endings.Disconnected():
            return Status(Code.CANCELLED, "DISCONNECTED", "the reader went away")


def _status_of_failure(failure: endings.Failure) -> Status:
    if failure.kind is FailureKind.DEFECT:
        return DEFECT
    code, message = _FAILURES[failure.kind]
    retry = failure.retry_seconds
    if retry is None and failure.kind in WORTH_RETRYING:
        retry = RETRY_SECONDS
    metadata = {"component": failure.component} if failure.component else {}
    return Status(code, failure.kind.name, message, retry, metadata=metadata)


def _bad_request(violations: Sequence[errors.Violation]) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=_clipped(violation.field), description=_clipped(violation.description)
            )
            for violation in errors.told(violations)
        ]
    )


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _clipped(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= MAX_TEXT_BYTES else encoded[: MAX_TEXT_BYTES - 3].decode(errors="ignore") + "…"
