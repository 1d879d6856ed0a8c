"""The gateway for browsers: what it adds to gRPC, what its readers cost it, and when it notices that one is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.rows.gateway.burst import GATEWAY_BURST_ROWS
from benchmarks.rows.gateway.delay import GATEWAY_DELAY_ROW
from benchmarks.rows.gateway.open import GATEWAY_OPEN_ROW
from benchmarks.rows.gateway.reset import GATEWAY_RESET_ROW
from benchmarks.rows.gateway.stalled import GATEWAY_STALLED_ROW

if TYPE_CHECKING:
    from benchmarks.rows.row import Row

GATEWAY_ROWS: tuple[Row, ...] = (
    *GATEWAY_BURST_ROWS,
    GATEWAY_DELAY_ROW,
    GATEWAY_OPEN_ROW,
    GATEWAY_STALLED_ROW,
    GATEWAY_RESET_ROW,
)
