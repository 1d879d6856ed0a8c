"""What a benchmark orders from a pipeline. It travels as the text of the question, through every server alike."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WORD = "stream "
BLOCK = "stream " * 15 + "end. "  # as long as a line: floods measure bytes, not calls


@dataclass(frozen=True, slots=True)
class Order:
    """How much is to be said, and how fast.

    `per_second` 0 means as fast as it goes. `blocks` is how many a flood gives at a time. `words_then_stall` makes the
    provider fall silent for ever after that many words, or go on with one each `stall_seconds`. `counter` is a file in
    which the component counts what it has said, and `stopped` one in which it notes when it was stopped before its end.
    """

    words: int = 1
    per_second: float = 0
    blocks: int = 1
    words_then_stall: int = 0
    stall_seconds: float = 0
    name: str = ""
    counter: str = ""
    stopped: str = ""

    def question(self) -> str:
        """Return the order as the text of a question."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(question: str) -> Order:
        """Read a question."""
        return Order(**json.loads(question))

    def answer(self) -> str:
        """Return what a burst has to bring."""
        return WORD * self.words


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a paced word was due by its schedule, and when it was said, on the clock that all processes share."""

    due_ns: int
    said_ns: int

    def text(self) -> str:
        """Return the stamp as a word."""
        return f"{self.due_ns}:{self.said_ns} "

    @staticmethod
    def all_of(text: str) -> Iterable[Stamp]:
        """Read all stamps of a text; a joined event brings several at once."""
        for word in text.split():
            due, _, said = word.partition(":")
            yield Stamp(int(due), int(said))
