"""How a run can end. Exactly one of these per run; the first to come stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Completed:
    """The pipeline came to its own end; `Finished` is the last event."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A component failed, or there is a defect."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The reader cancelled or went away, and nobody else wants the run."""


@dataclass(frozen=True, slots=True)
class DeadlineExceeded:
    """The caller's deadline, or the longest time that the service gives a run, is over."""


@dataclass(frozen=True, slots=True)
class ReaderTooSlow:
    """The reader took nothing for too long."""


@dataclass(frozen=True, slots=True)
class Drained:
    """The service shuts down, and the time it gave to running runs is over."""


Ending: TypeAlias = Completed | Failed | Disconnected | DeadlineExceeded | ReaderTooSlow | Drained
