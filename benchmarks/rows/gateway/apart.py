"""The gateway's own part of what serving costs; not a number for contestants that have none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.contestants.entrant import GATEWAY_NAME
from benchmarks.contestants.lane import ServedLane

if TYPE_CHECKING:
    from benchmarks.contestants.lane import Lane
    from benchmarks.process import ServerProcess


def gateway_of(lane: Lane) -> ServerProcess | None:
    """Return the gateway's process."""
    processes = lane.processes if isinstance(lane, ServedLane) else ()
    return next((process for process in processes if process.name == GATEWAY_NAME), None)


def gateway_cpu_seconds(lane: Lane) -> float:
    """Return the processor time that the gateway has used so far."""
    process = gateway_of(lane)
    return math.nan if process is None else process.cpu_seconds()


def gateway_bytes(lane: Lane) -> float:
    """Return the memory that the gateway takes now."""
    process = gateway_of(lane)
    return math.nan if process is None else process.resident_bytes()
