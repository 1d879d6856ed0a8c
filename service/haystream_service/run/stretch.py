"""Neighbouring text of one component and index, which readers get as one event, and what events take in memory."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Collection, Mapping
from typing import Any, cast

from haystream_service.run.events import TEXTS, Documents, Entry, Event, Finished, ToolCall, ToolResult

# Enough for the cost of a write to vanish, and little enough for each of many readers who take nothing to hold one.
JOINED_LIMIT_BYTES = 32 * 1024

# On CPython: a stretch with its event and lists; a further piece's number and its places in two lists; a value.
STRETCH_BYTES = 512
PIECE_BYTES = 48
VALUE_BYTES = 64


class Stretch:
    """An event in the queue or the log: of text, as many neighbours as continue each other, each with its number."""

    __slots__ = ("_deltas", "_event", "_kind", "_seqs", "size_bytes")

    def __init__(self, event: Event, seq: int, size_bytes: int) -> None:
        self._event = event
        self._seqs = [seq]
        self._kind = type(event)
        self._deltas = [event.delta] if isinstance(event, TEXTS) else []
        self.size_bytes = size_bytes + STRETCH_BYTES

    @property
    def last_seq(self) -> int:
        """The number of the newest piece."""
        return self._seqs[-1]

    def take(self, event: Event, seq: int, size_bytes: int, limit_bytes: int = JOINED_LIMIT_BYTES) -> bool:
        """Take an event that continues the text; return False for any other, and where the stretch is full."""
        mine = self._event
        if type(event) is not self._kind or self.size_bytes >= limit_bytes:
            return False
        if not isinstance(event, TEXTS) or not isinstance(mine, TEXTS):
            return False
        if event.index != mine.index or event.component != mine.component:
            return False
        self._seqs.append(seq)
        self._deltas.append(event.delta)
        self.size_bytes += size_bytes
        return True

    def entry(self, after_seq: int = 0) -> Entry:
        """Return what follows a number as one entry."""
        event = self._event
        if len(self._seqs) == 1 or not isinstance(event, TEXTS):
            return Entry(self._seqs[-1], event)
        deltas = self._deltas[bisect_right(self._seqs, after_seq) :] if after_seq >= self._seqs[0] else self._deltas
        return Entry(self._seqs[-1], type(event)(event.component, event.index, "".join(deltas)))


def size_bytes(event: Event) -> int:
    """Return about how much memory an event takes besides its stretch."""
    if isinstance(event, TEXTS):
        return sys.getsizeof(event.delta) + PIECE_BYTES
    match event:
        case ToolCall(arguments_delta=text) | ToolResult(result=text):
            return sys.getsizeof(text)
        case Documents(documents=documents):
            return sum(sys.getsizeof(document.content) + _weight(document.meta) for document in documents)
        case Finished(outputs=outputs):
            return _weight(outputs)
        case _:
            return 0


def _weight(value: Any) -> int:
    """Return about how much memory a JSON-safe value takes."""
    if isinstance(value, str):
        return sys.getsizeof(value)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value).items()
        return VALUE_BYTES + sum(sys.getsizeof(name) + _weight(item) for name, item in pairs)
    if isinstance(value, Collection):
        return VALUE_BYTES + sum(_weight(item) for item in cast("Collection[Any]", value))
    return VALUE_BYTES
