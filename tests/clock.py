"""A clock that goes when a test says so."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

TURNS = 15  # of the loop, in which whatever can happen without anybody's help does: a cancellation takes ten


class ClockedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._now

    def turn(self, seconds: float = 0) -> None:
        """Let time pass, and whatever is due then happen."""
        self.run_until_complete(self.later(seconds))

    async def later(self, seconds: float = 0) -> None:
        """Let time pass from within."""
        self._now += seconds
        await turns()


async def turns() -> None:
    """Let what is ready on the loop happen."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


@contextmanager
def clocked() -> Generator[ClockedLoop]:
    """Lend a loop; assert at the end that nothing went wrong in it unseen."""
    loop = ClockedLoop()
    try:
        yield loop
    finally:
        loop.close()
    assert not loop.errors
