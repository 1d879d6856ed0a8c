"""What the soak orders from a pipeline: words that count themselves, so that a lost or doubled one is seen."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

LETTER = "x"


@dataclass(frozen=True, slots=True)
class Order:
    """Travels as the text of the question.

    Each word is its own number, `padding` letters and a blank. `per_second` 0 means as fast as they are taken. A
    provider says the words and then does what `fault` says; it wants to be called with `key`, where that is set.
    """

    words: int = 1
    padding: int = 0
    per_second: float = 0
    fault: str = ""
    key: str = ""

    def question(self) -> str:
        """Return the order as the text of a question."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(question: str) -> Order:
        """Read a question."""
        return Order(**json.loads(question))

    def word(self, number: int, letter: str = LETTER) -> str:
        """Return one word; the first is number 0."""
        return f"{number:06d}{letter * self.padding} "

    def text(self, first: int = 0, end: int | None = None, letter: str = LETTER) -> str:
        """Return the words from one number up to another."""
        padding = letter * self.padding
        return "".join(f"{number:06d}{padding} " for number in range(first, self.words if end is None else end))
