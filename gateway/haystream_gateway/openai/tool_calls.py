"""Numbers the tool calls of a whole completion: a run's own numbers begin anew with each turn of an Agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haystream.v1 import chat_pb2


@dataclass(frozen=True, slots=True)
class NumberedCall:
    """A call of a completion."""

    index: int
    id: str
    name: str


class ToolCalls:
    """Tells to which call a piece belongs.

    A component's calls are told apart by the piece's index, until a piece of the same index opens another one: by an
    id of its own, or where the provider gives none by a name, which only first pieces have.
    """

    def __init__(self) -> None:
        self._count = 0
        self._open: dict[tuple[str, int], NumberedCall] = {}

    def take(self, piece: chat_pb2.ToolCallDelta) -> tuple[NumberedCall, bool]:
        """Return the call that a piece belongs to, and whether it opens it."""
        key = piece.component, piece.index
        call = self._open.get(key)
        if call is not None and not _opens_another(piece, call):
            return call, False
        call = NumberedCall(self._count, piece.id or f"call_{self._count}", piece.name)
        self._count += 1
        self._open[key] = call
        return call, True

    def close(self, result: chat_pb2.ToolResult) -> list[NumberedCall]:
        """Return the call that a result answers. Whatever comes with its index from now on is another one."""
        closed = [
            key
            for key, call in self._open.items()
            if key[0] == result.component and (call.id == result.id or (not result.id and call.name == result.name))
        ]
        return [self._open.pop(key) for key in closed]


def _opens_another(piece: chat_pb2.ToolCallDelta, call: NumberedCall) -> bool:
    return piece.id != call.id if piece.id else bool(piece.name)
