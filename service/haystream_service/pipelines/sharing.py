"""Built pipelines that runs share: closed once nobody is to get them any more and the last run has given them back."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from haystream_service.pipelines.generation import close, components_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from structlog.typing import FilteringBoundLogger

    from haystream_service.pipelines.build_threads import InThread

CLOSE_SECONDS = 2.0  # for a component to close its connections
COLLECT_AFTER = 16  # pipelines closed: a megabyte each, and some 30 ms to collect them all, which stop everything
BEGIN_SECONDS = 1.0  # within which a run that was let in has borrowed the pipeline that it was promised


class Closings:
    """The pipelines that are being closed, or soon will be."""

    def __init__(self, in_thread: InThread, log: FilteringBoundLogger) -> None:
        self._in_thread = in_thread
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        self._soon: dict[SharedPipeline, asyncio.TimerHandle] = {}
        self._uncollected = 0

    def retire_soon(self, shared: SharedPipeline) -> None:
        """Retire a pipeline as soon as those who were promised it must have begun."""
        self._soon[shared] = asyncio.get_running_loop().call_later(BEGIN_SECONDS, self._retire, shared)

    def begin(self, building: asyncio.Future[Any], on_closed: Callable[[], None]) -> None:
        """Close a pipeline, or see to it that it never comes to be."""
        task = asyncio.create_task(self._close(building, on_closed), name="close a pipeline")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait until all are closed."""
        for shared, timer in list(self._soon.items()):
            timer.cancel()
            self._retire(shared)
        await asyncio.gather(*self._tasks)

    def _retire(self, shared: SharedPipeline) -> None:
        del self._soon[shared]
        shared.retire()

    async def _close(self, building: asyncio.Future[Any], on_closed: Callable[[], None]) -> None:
        try:
            if not building.done():
                building.cancel()
            elif not building.cancelled() and building.exception() is None:
                for name, component in components_of(building.result()).items():
                    await self._close_component(name, component)
        finally:
            on_closed()
            self._collect()

    async def _close_component(self, name: str, component: Any) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await close(component, self._in_thread)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the operator's own may raise anything
            self._log.warning("a component did not close cleanly", component=name, exc_info=error)

    def _collect(self) -> None:
        """Free what was closed. A provider's client is a cycle that holds the certificates of TLS.

        Python would wait until there are many objects more, and these are few and large.
        """
        self._uncollected += 1
        if self._uncollected >= COLLECT_AFTER:
            self._uncollected = 0
            asyncio.get_running_loop().call_soon(gc.collect)  # when this task no longer holds the last one


class SharedPipeline:
    """A pipeline, or the building of one, that several runs use at once."""

    def __init__(
        self, building: asyncio.Future[Any], closings: Closings, on_closed: Callable[[], None] = lambda: None
    ) -> None:
        self._building = building
        self._closings = closings
        self._on_closed = on_closed
        self._is_retired = False
        self._is_closed = False
        self.users = 0
        self.returned_at = asyncio.get_running_loop().time()

    @asynccontextmanager
    async def lent(self) -> AsyncGenerator[Any]:
        """Lend the pipeline as soon as it is built. Raises what its building raises."""
        self.users += 1
        try:
            yield await asyncio.shield(self._building)  # who else waits for it may not have gone
        finally:
            self.users -= 1
            self.returned_at = asyncio.get_running_loop().time()
            self._close_if_unwanted()

    def retire(self) -> None:
        """Close the pipeline when the last of its users has given it back."""
        self._is_retired = True
        self._close_if_unwanted()

    def _close_if_unwanted(self) -> None:
        if self._is_retired and not self._is_closed and not self.users:
            self._is_closed = True
            self._closings.begin(self._building, self._on_closed)
