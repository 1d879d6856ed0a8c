"""The workloads, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.rows.burst import BURST_ROWS
from benchmarks.rows.caller_key import CALLER_KEY_ROWS
from benchmarks.rows.churn import CHURN_ROW
from benchmarks.rows.departure import DEPARTURE_ROWS
from benchmarks.rows.first_word import FIRST_WORD_ROW
from benchmarks.rows.gateway import GATEWAY_ROWS
from benchmarks.rows.idle import IDLE_ROW
from benchmarks.rows.paced import PACED_ROWS
from benchmarks.rows.safety import SAFETY_ROWS
from benchmarks.rows.slow_reader import SLOW_READER_ROW

if TYPE_CHECKING:
    from benchmarks.rows.row import Row

ROWS: tuple[Row, ...] = (
    *BURST_ROWS,
    *PACED_ROWS,
    IDLE_ROW,
    FIRST_WORD_ROW,
    SLOW_READER_ROW,
    *DEPARTURE_ROWS,
    CHURN_ROW,
    *CALLER_KEY_ROWS,
    *GATEWAY_ROWS,
    *SAFETY_ROWS,
)
