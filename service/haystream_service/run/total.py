"""What many hold together, counted."""

from __future__ import annotations

import threading


class Total:
    """Bytes that the queues of all runs hold together, or their logs. Whoever adds to them heeds the limit itself.

    State: `on_loop_bytes` changes on the loop alone, and so without a lock, which would be a fifth of what a chunk
    costs here; `in_threads_bytes` changes under the lock. Each may be below zero: what came in by a thread leaves on
    the loop. Their sum is exact.
    """

    __slots__ = ("in_threads_bytes", "limit_bytes", "lock", "on_loop_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.on_loop_bytes = 0
        self.in_threads_bytes = 0
        self.lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """How much there is."""
        return self.on_loop_bytes + self.in_threads_bytes

    @property
    def surplus_bytes(self) -> int:
        """How much of it is too much; zero or less where it fits."""
        return self.on_loop_bytes + self.in_threads_bytes - self.limit_bytes
