"""Fewer, larger events for a reader who is behind: neighbouring text of one component and index becomes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haystream_service.run.events import Entry, Event, Reasoning, Text, size_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

# Well under the 4 MiB that a stock gRPC client takes in one message, and enough for the cost of a write to vanish.
JOINED_LIMIT_BYTES = 256 * 1024


def joined(entries: Iterable[Entry]) -> list[Entry]:
    """Join neighbours that continue each other; the joined entry carries its last part's number."""
    result: list[Entry] = []
    parts: list[Entry] = []
    size = 0
    for entry in entries:
        if parts and (size >= JOINED_LIMIT_BYTES or not _continues(parts[-1].event, entry.event)):
            result.append(_merged(parts))
            parts, size = [], 0
        parts.append(entry)
        size += entry.size_bytes
    if parts:
        result.append(_merged(parts))
    return result


def _continues(before: Event, event: Event) -> bool:
    return (
        isinstance(before, Text | Reasoning)
        and isinstance(event, Text | Reasoning)
        and type(before) is type(event)
        and (before.component, before.index) == (event.component, event.index)
    )


def _merged(parts: list[Entry]) -> Entry:
    last = parts[-1]
    if len(parts) == 1 or not isinstance(last.event, Text | Reasoning):
        return last
    delta = "".join(part.event.delta for part in parts if isinstance(part.event, Text | Reasoning))
    event = type(last.event)(last.event.component, last.event.index, delta)
    return Entry(last.seq, event, size_bytes(event))
