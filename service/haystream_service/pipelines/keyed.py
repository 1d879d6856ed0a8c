"""Pipelines built with callers' own keys: one per key, kept for the next call, the least recently used closed first."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haystream_service.pipelines.sharing import SharedPipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from haystream_service.logs import Secrets
    from haystream_service.pipelines.sharing import Closings

    Build = Callable[[], Coroutine[Any, Any, Any]]


@dataclass(slots=True)
class _Kept:
    """A pipeline that waits for its key's next call; the timer looks whether it has waited too long."""

    owner: object
    shared: SharedPipeline
    timer: asyncio.TimerHandle | None = None


class KeyedPipelines:
    """At most `capacity` pipelines that wait for their key's next call, each for `seconds` after the last one.

    Keys themselves are not kept here, only hashes of them that nobody outside this process can compute. A pipeline
    whose place goes to another key while runs use it is closed after the last of those.
    """

    def __init__(self, capacity: int, seconds: float, closings: Closings, hidden: Secrets) -> None:
        self._capacity = capacity
        self._seconds = seconds
        self._closings = closings
        self._hidden = hidden
        self._hash_key = secrets.token_bytes(32)
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def shared(self, owner: object, api_key: str, build: Build) -> SharedPipeline:
        """Return the pipeline of an owner's for a key, which begins to be built where there is none yet.

        To be lent at once: between the two it could lose its place.
        """
        digest = hashlib.blake2b(f"{id(owner)} {api_key}".encode(), key=self._hash_key).digest()
        kept = self._kept.get(digest)
        if kept is None:
            kept = self._kept[digest] = self._begin(digest, owner, api_key, build)
        self._kept.move_to_end(digest)
        while len(self._kept) > self._capacity:
            self._drop(next(iter(self._kept)))
        return kept.shared

    def forget(self, owner: object) -> None:
        """Let go of all pipelines of an owner's."""
        for digest in [digest for digest, kept in self._kept.items() if kept.owner is owner]:
            self._drop(digest)

    def close(self) -> None:
        """Let go of all."""
        for digest in list(self._kept):
            self._drop(digest)

    def _begin(self, digest: bytes, owner: object, api_key: str, build: Build) -> _Kept:
        loop = asyncio.get_running_loop()
        self._hidden.add(api_key)
        building = loop.create_task(build(), name="build a pipeline for a caller's key")
        kept = _Kept(owner, SharedPipeline(building, self._closings, lambda: self._hidden.discard(api_key)))
        building.add_done_callback(lambda done: self._on_built(digest, kept, done))
        kept.timer = loop.call_later(self._seconds, self._on_time, digest, kept)
        return kept

    def _on_built(self, digest: bytes, kept: _Kept, building: asyncio.Task[Any]) -> None:
        """Keep no failure: the next call tries again."""
        if (building.cancelled() or building.exception() is not None) and self._kept.get(digest) is kept:
            self._drop(digest)

    def _on_time(self, digest: bytes, kept: _Kept) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time() if kept.shared.users else kept.shared.returned_at
        remaining = since + self._seconds - loop.time()
        if remaining > 0:
            kept.timer = loop.call_later(remaining, self._on_time, digest, kept)
        else:
            self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        kept = self._kept.pop(digest)
        if kept.timer is not None:
            kept.timer.cancel()  # or it would hold the pipeline until its time
        kept.shared.retire()
