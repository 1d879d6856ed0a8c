"""The threads for all that concerns pipelines' files, so that none of it waits for another that hangs."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from haystream_service.run.threads import ComponentThreads

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

AT_ONCE = 4  # of each kind; what hangs gives its place away when its time is over


class InThread(Protocol):
    """Runs a function in some thread."""

    async def __call__(self, function: Callable[..., T], /, *arguments: object) -> T:
        """Run it."""
        ...


class BuildThreads:
    """Threads for looking at the folder, for building files, for building with callers' keys, for warming, closing."""

    def __init__(self) -> None:
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="haystream-look")
        self._building = ComponentThreads(AT_ONCE, name="build")
        self._keyed = ComponentThreads(AT_ONCE, name="keyed")
        self._warming = ComponentThreads(AT_ONCE, name="warm")
        self._closing = ComponentThreads(AT_ONCE, name="close")

    async def look(self, function: Callable[..., T], /, *arguments: object) -> T:
        """Look at the folder, one look after another."""
        return await _in(self._looking, function, *arguments)

    async def run(self, function: Callable[..., T], /, *arguments: object) -> T:
        """Read a file, or build its pipeline."""
        return await _in(self._building, function, *arguments)

    async def run_for_key(self, function: Callable[..., T], /, *arguments: object) -> T:
        """Build a pipeline with a caller's key."""
        return await _in(self._keyed, function, *arguments)

    async def warm(self, function: Callable[..., T], /, *arguments: object) -> T:
        """Warm a component."""
        return await _in(self._warming, function, *arguments)

    async def close(self, function: Callable[..., T], /, *arguments: object) -> T:
        """Close a component."""
        return await _in(self._closing, function, *arguments)

    def shutdown(self) -> None:
        """Take nothing more; what hangs is left."""
        for threads in (self._looking, self._building, self._keyed, self._warming, self._closing):
            threads.shutdown(wait=False, cancel_futures=True)


async def _in(threads: Executor, function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)
