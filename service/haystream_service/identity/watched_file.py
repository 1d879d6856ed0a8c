"""A file that is read again when something changes in its folder, or when somebody who needs it sees that it has.

The kernel tells of a change at once, but only in the folder that is watched: not where a link leads out of it, nor on
a network's disk. So whoever goes by the file has a glance at it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio import to_thread
from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]  # of an option that is not used here

from haystream_service.files import fingerprint_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

# Several changes in a row are one: an editor's, a copy's, a Secret's.
QUIET_MILLISECONDS = 50
LONGEST_MILLISECONDS = 500

GLANCE_SECONDS = 1.0  # between two glances
PATIENCE_SECONDS = 1.0  # that somebody waits for a glance, and for the reading that it leads to


class WatchedFile:
    """A file, and what has to be done when it is another one."""

    def __init__(
        self,
        file: Path,
        seen: tuple[int, ...],
        look_again: Callable[[], Awaitable[None]],
        log: FilteringBoundLogger,
    ) -> None:
        self._file = file
        self._seen = seen
        self._look_again = look_again
        self._log = log
        self._next_glance_seconds = float("-inf")
        self._patience_ends_seconds = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    def has_to_be_waited_for(self) -> bool:
        """Begin a glance where it is time for one; tell whether to wait for one."""
        now_seconds = asyncio.get_running_loop().time()
        if now_seconds >= self._next_glance_seconds:
            self._next_glance_seconds = now_seconds + GLANCE_SECONDS
            self._begin_glance(now_seconds)
        return self._patience_ends_seconds > now_seconds and self._is_looking()

    async def glance(self) -> None:
        """See whether the file has changed since it was read, and if so wait until it is read again, but not long.

        Who has just been taken out of the file is not let in by the call that finds it out.
        """
        if self.has_to_be_waited_for() and self._looking is not None:
            now_seconds = asyncio.get_running_loop().time()
            await asyncio.wait([self._looking], timeout=self._patience_ends_seconds - now_seconds)

    async def watch(self) -> None:
        """Watch the folder: editors replace a file, and Kubernetes a link that the file's own leads through."""
        try:
            async for _ in awatch(
                self._file.parent,
                watch_filter=None,
                step=QUIET_MILLISECONDS,
                debounce=LONGEST_MILLISECONDS,
                recursive=False,
            ):
                self._seen = await _fingerprint_of(self._file)
                await self._look()
        except (OSError, RuntimeError) as error:  # the folder is gone, or the machine has no more watches to give
            self._log.warning("a file of who may call is not watched any longer", file=str(self._file), exc_info=error)

    async def stop_looking(self) -> None:
        """End what a glance has begun."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def _begin_glance(self, now_seconds: float) -> None:
        if not self._is_looking():
            self._patience_ends_seconds = now_seconds + PATIENCE_SECONDS
            self._looking = asyncio.create_task(self._look_if_changed(), name=f"look at {self._file.name}")

    def _is_looking(self) -> bool:
        return self._looking is not None and not self._looking.done()

    async def _look_if_changed(self) -> None:
        if (fingerprint := await _fingerprint_of(self._file)) != self._seen:
            self._seen = fingerprint
            await self._look()

    async def _look(self) -> None:
        try:
            await self._look_again()
        except Exception as error:  # noqa: BLE001 - a defect in one reading must not hide what changes after it
            # Its words and its story could have what is in the file.
            name = type(error).__name__
            self._log.error("a file of who may call could not be taken", file=str(self._file), error=name)


@asynccontextmanager
async def watched(
    file: Path, look_again: Callable[[], Awaitable[None]], log: FilteringBoundLogger
) -> AsyncGenerator[WatchedFile]:
    """Have a file looked at while the block lasts. What is read within the block misses no change after it."""
    it = WatchedFile(file, await _fingerprint_of(file), look_again, log)
    task = asyncio.create_task(it.watch(), name=f"watch {file.name}")
    await asyncio.sleep(0)  # the task's first turn, in which the kernel begins to watch
    try:
        yield it
    finally:
        task.cancel()
        await asyncio.wait([task])
        await it.stop_looking()


async def _fingerprint_of(file: Path) -> tuple[int, ...]:
    """Look in a thread: on a network's disk that may take as long as it likes."""
    return await to_thread.run_sync(fingerprint_of, file)
