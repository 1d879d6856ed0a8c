"""How a run can end. Exactly one of these per run; the first to come stays. All are plain values that can be kept."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from haystream_service.run.events import FinishReason


class FailureKind(enum.Enum):
    """Whose fault a failure is, and whether waiting helps."""

    PROVIDER_AUTH = enum.auto()
    PROVIDER_BUSY = enum.auto()
    PROVIDER_REJECTED = enum.auto()
    PROVIDER_TIMEOUT = enum.auto()
    PROVIDER_UNAVAILABLE = enum.auto()
    COMPONENT_FAILED = enum.auto()
    PIPELINE_BUILD_FAILED = enum.auto()
    DEFECT = enum.auto()


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure without its words. `retry_seconds` is what the provider asked to wait, if it did."""

    kind: FailureKind
    component: str = ""
    retry_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """The pipeline came to its own end; `Finished` is the last event, and gives the same reason."""

    reason: FinishReason = FinishReason.STOP


@dataclass(frozen=True, slots=True)
class Failed:
    """A component failed, or there is a defect."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The readers cancelled or went away, and nobody else wants the run."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Its caller asked for the run to be stopped."""


@dataclass(frozen=True, slots=True)
class DeadlineExceeded:
    """The caller's deadline, or the longest time that the service gives a run, is over."""


@dataclass(frozen=True, slots=True)
class ReaderTooSlow:
    """The reader took nothing for too long."""


@dataclass(frozen=True, slots=True)
class Drained:
    """The service shuts down, and the time it gave to running runs is over."""


WORTH_RETRYING = frozenset({FailureKind.PROVIDER_BUSY, FailureKind.PROVIDER_UNAVAILABLE})

Ending: TypeAlias = Completed | Failed | Disconnected | Cancelled | DeadlineExceeded | ReaderTooSlow | Drained
