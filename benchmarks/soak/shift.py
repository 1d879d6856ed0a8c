"""The time that everybody works: what is under way when it is over comes to its own end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, cast

from benchmarks.soak.operator import change_files, restart
from benchmarks.soak.pages import PAGES
from benchmarks.soak.scenes import SCENES
from benchmarks.soak.tally import Story

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    from benchmarks.soak.ground import Ground

    Scene: TypeAlias = Callable[[Ground, Story], Awaitable[None]]

SCENE_SECONDS = 90  # a scene that takes longer hangs
ALL = {**SCENES, **PAGES}


class Shift:
    """Callers and an operator at work."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._is_over = asyncio.Event()
        self._number = 0

    async def work(self, seconds: float, callers: int, change_seconds: float, restart_seconds: float) -> None:
        """Work for so long, and then until what is under way has ended."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(self._call())
            tasks.create_task(change_files(self._ground, self.pauses(change_seconds)))
            tasks.create_task(restart(self._ground, self.pauses(restart_seconds)))
            await asyncio.sleep(seconds)
            self._is_over.set()

    async def pauses(self, seconds: float) -> AsyncGenerator[int, None]:
        """Yield a number after each pause, until the shift is over."""
        number = 0
        while not self._is_over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), seconds)
                return
            number += 1
            yield number

    async def play_each(self) -> None:
        """Play every scene once, all at the same time."""
        async with asyncio.TaskGroup() as tasks:
            for scene in ALL:
                tasks.create_task(self._play(scene))

    async def _call(self) -> None:
        scenes, weights = list(ALL), list(ALL.values())
        while not self._is_over.is_set():
            (scene,) = self._ground.random.choices(scenes, weights)
            await self._play(scene)
            await asyncio.sleep(self._ground.random.uniform(0, 0.3))

    async def _play(self, scene: Scene) -> None:
        self._number += 1
        story = Story(self._ground.tally, scene.__name__, self._number)
        try:
            async with asyncio.timeout(SCENE_SECONDS):
                await scene(self._ground, story)
        except TimeoutError:
            story.fail(f"hangs: it goes on after {SCENE_SECONDS} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, the story of its run has to be told
            story.fail(f"{type(error).__name__}: {error}" + "".join(_inner(error)))


def _inner(error: Exception) -> Iterator[str]:
    if isinstance(error, ExceptionGroup):
        for inner in cast("ExceptionGroup[Exception]", error).exceptions:
            yield f"; {type(inner).__name__}: {inner}"
