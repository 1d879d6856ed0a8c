"""The issuer's keys as they are now: kept, refreshed in the background, and looked for anew where one is not known."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from anyio import to_thread

from haystream_service.errors import IdentityUnavailable
from haystream_service.identity.keys import Key, KeysNotHad, keys_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from structlog.typing import FilteringBoundLogger

    # Brings the JWKS. Raises KeysNotHad.
    Bring = Callable[[], Awaitable[bytes]]

REFRESH_SECONDS = 600.0
PAUSE_SECONDS = 30.0
KEPT_SECONDS = 24 * 3600.0  # that keys are good without news: one may have been stolen, and taken out since


class KeySet:
    """Keys by their ids. Those before stay in force for a day where new ones cannot be had.

    However many tokens of unknown keys come: the keys are brought once for all who wait, and then not again for a
    pause. `keys` is another tuple whenever they have changed.
    """

    def __init__(self, bring: Bring, log: FilteringBoundLogger) -> None:
        self._bring = bring
        self._log = log
        self._content: bytes | None = None
        self._bringing: asyncio.Task[None] | None = None
        self._begun_seconds = float("-inf")  # when, by the loop's clock, the keys were last sent for
        self._had_seconds = float("-inf")  # when, by the same clock, they were last shown
        self.keys: tuple[Key, ...] = ()
        self.complaint = ""  # why the last attempt failed

    async def __aenter__(self) -> Self:
        self._refreshing = asyncio.create_task(self._refresh_for_ever(), name="refresh keys")
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for task in (self._refreshing, self._bringing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key for a token; None where there is none, or without a `kid` more than one.

        Raises IdentityUnavailable where that cannot be told: there are no keys, or no news of them.
        """
        if not self._named(kid, algorithm) and self._may_refresh():
            await self.refresh()
        named = self._named(kid, algorithm)
        if not named and (self.complaint or not self.keys):
            raise IdentityUnavailable
        fitting = [key for key in named if algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None

    async def look_again(self) -> None:
        """Have the keys brought as they are now, which those on their way may not be."""
        if self._bringing is not None:
            await asyncio.wait([self._bringing])
        await self.refresh()

    async def refresh(self) -> None:
        """Have the keys brought, or wait until they are if they are on their way."""
        if self._bringing is None or self._bringing.done():
            self._begun_seconds = asyncio.get_running_loop().time()
            self._bringing = asyncio.create_task(self._take(), name="bring keys")
        await asyncio.wait([self._bringing])  # others wait for it as well: it outlives whoever had it begun

    def _named(self, kid: str | None, algorithm: str) -> list[Key]:
        return [key for key in self.keys if (algorithm in key.algorithms if kid is None else key.kid == kid)]

    def _may_refresh(self) -> bool:
        is_on_its_way = self._bringing is not None and not self._bringing.done()
        return is_on_its_way or asyncio.get_running_loop().time() - self._begun_seconds >= PAUSE_SECONDS

    async def _refresh_for_ever(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(PAUSE_SECONDS if self.complaint else REFRESH_SECONDS)

    async def _take(self) -> None:
        try:
            content = await self._bring()
            if content != self._content:
                self.keys = await to_thread.run_sync(keys_of, content)
                self._content = content
                self._log.info("the issuer's keys are in force as they are now", keys=len(self.keys))
        except KeysNotHad as error:
            if str(error) != self.complaint:
                kept = len(self.keys)
                self._log.warning("the issuer's keys cannot be had", complaint=str(error), keys_before=kept)
            self.complaint = str(error)
            self._let_go_of_what_is_old()
        else:
            self.complaint = ""
            self._had_seconds = asyncio.get_running_loop().time()

    def _let_go_of_what_is_old(self) -> None:
        if self.keys and asyncio.get_running_loop().time() - self._had_seconds >= KEPT_SECONDS:
            self.keys, self._content = (), None
            self._log.error("the issuer's keys are a day old, and used no longer", complaint=self.complaint)
