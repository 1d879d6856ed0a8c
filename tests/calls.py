"""What callers do with a stream, and what they read from its ending."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import grpc.aio

    from haystream.v1 import chat_pb2


@dataclass(frozen=True, slots=True)
class Complaint:
    """A status with its details unpacked."""

    code: str
    message: str
    reason: str
    metadata: dict[str, str]
    fields: dict[str, str] = field(default_factory=dict[str, str])
    retry_seconds: float | None = None
    trailers: dict[str, str] = field(default_factory=dict[str, str])


async def all_events(
    call: grpc.aio.UnaryStreamCall[Any, chat_pb2.ChatResponse] | grpc.aio.UnaryStreamCall[Any, chat_pb2.ResumeResponse],
) -> list[chat_pb2.Event]:
    """Read a stream to its end."""
    return [response.event async for response in call]


def text_of(events: Sequence[chat_pb2.Event]) -> str:
    """Join the text of a stream."""
    return "".join(event.text.delta for event in events)


def kinds_of(events: Sequence[chat_pb2.Event]) -> list[str]:
    """Name the kinds of a stream's events."""
    return [event.WhichOneof("kind") or "" for event in events]


def trailers_of(metadata: Any) -> dict[str, Any]:
    """Return trailing metadata by name."""
    return dict(cast("Iterable[tuple[str, Any]]", metadata))


def complaint_of(error: grpc.aio.AioRpcError) -> Complaint:
    """Unpack an error. Fails where it has no google.rpc.Status."""
    trailers = trailers_of(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers.pop("grpc-status-details-bin"))
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    has_retry = False
    for packed in status.details:
        packed.Unpack(info)
        packed.Unpack(bad_request)
        has_retry = packed.Unpack(retry) or has_retry
    assert info.domain == "haystream"
    return Complaint(
        code=error.code().name,
        message=status.message,
        reason=info.reason,
        metadata=dict(info.metadata),
        fields={violation.field: violation.description for violation in bad_request.field_violations},
        retry_seconds=retry.retry_delay.ToTimedelta().total_seconds() if has_retry else None,
        trailers=trailers,
    )
