"""The checker: what one reader gets of one run, held against what the run has to say. Knows no transport."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.soak.order import LETTER

if TYPE_CHECKING:
    from benchmarks.soak.order import Order

SHOWN = 30  # characters on either side of where two texts part


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as its reader has got it. `from_seq` is a gap's; `reason` that of `finished`."""

    kind: str
    seq: int = 0
    text: str = ""
    from_seq: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream has ended, in a word: a finish reason, an error's reason, or what its reader did.

    An error that is typed says more than gRPC or a broken connection would by themselves. `last_seq` is what the
    service says that it has sent.
    """

    word: str
    is_typed: bool = True
    is_retryable: bool = False
    last_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What a run has to say.

    `first_seq` is the number of its first word, where each word takes the next number; None where numbers do not tell
    the words. `letter` None stands for whichever the first word has: a pipeline's versions differ in it.
    """

    order: Order
    first_seq: int | None = 2
    letter: str | None = LETTER


@dataclass(slots=True)
class Reading:
    """One reader's events, checked one by one. `wrongs` says in words what was not as it has to be.

    `spoken` counts the characters that have come where numbers do not tell the words. `places` are the numbers that its
    reader may come back with: those of events that it has got, and no others.
    """

    known: Known
    last_seq: int = 0
    spoken: int = 0
    ending: Ending | None = None
    is_finished: bool = False
    events: int = 0
    gaps: int = 0
    places: list[int] = field(default_factory=lambda: [0])
    wrongs: list[str] = field(default_factory=list[str])
    _letter: str | None = field(init=False)

    def __post_init__(self) -> None:
        self._letter = self.known.letter

    @property
    def words(self) -> int:
        """How many words have come, or were said before where this reading begins, or are in a gap."""
        if self.known.first_seq is None:
            return len(self.known.order.text()[: self.spoken].split())
        return min(max(0, self.last_seq - self.known.first_seq + 1), self.known.order.words)

    @property
    def has_all_words(self) -> bool:
        """Whether no word is missing."""
        return self.words == self.known.order.words

    def see(self, seen: Seen) -> None:
        """Check an event."""
        self.events += 1
        if self.ending is not None or self.is_finished:
            self._complain(f"{seen.kind} {seen.seq} came after the ending")
        if seen.kind == "heartbeat":
            if seen.seq != self.last_seq:
                self._complain(f"a heartbeat of {seen.seq} after {self.last_seq}")
            return
        if seen.seq <= self.last_seq:
            self._complain(f"{seen.kind} has number {seen.seq}, and came after {self.last_seq}")
        if self.last_seq == 0 and seen.kind not in {"started", "gap"}:
            self._complain(f"the first event is {seen.kind}")
        match seen.kind:
            case "started":
                self._begin(seen)
            case "gap":
                self._skip(seen)
            case "text":
                self._hear(seen)
            case "finished":
                self._finish(seen)
            case _:
                pass
        self.last_seq = max(self.last_seq, seen.seq)
        self.places.append(seen.seq)

    def end(self, ending: Ending) -> None:
        """Note how the stream ended; it can only once."""
        if self.ending is not None:
            self._complain(f"a second ending, {ending.word} after {self.ending.word}")
        self.ending = ending
        if ending.last_seq is not None and not self._fits(ending, ending.last_seq):
            self._complain(f"the service says it has sent {ending.last_seq}, and {self.last_seq} has come")

    def close(self) -> None:
        """Note that nothing more comes."""
        if self.ending is None:
            self._complain("the stream has no ending")

    def _begin(self, seen: Seen) -> None:
        if self.last_seq or seen.seq != 1:
            self._complain(f"started has number {seen.seq}, and came after {self.last_seq}")

    def _skip(self, seen: Seen) -> None:
        self.gaps += 1
        if seen.from_seq != self.last_seq + 1 or seen.seq < seen.from_seq:
            self._complain(f"a gap from {seen.from_seq} to {seen.seq} came after {self.last_seq}")
        if self.known.first_seq is None:
            self._complain("a gap in a run that fits into the log")

    def _hear(self, seen: Seen) -> None:
        order, letter = self.known.order, self._letter_of(seen.text)
        if self.known.first_seq is None:
            expected = order.text(letter=letter)[self.spoken : self.spoken + len(seen.text)]
            self.spoken += len(seen.text)
        else:
            first = max(self.last_seq + 1 - self.known.first_seq, 0)
            end = seen.seq - self.known.first_seq + 1
            if end > order.words:
                self._complain(f"text has number {seen.seq}, and there are {order.words} words")
            expected = order.text(first, end, letter)
        if seen.text != expected:
            self._complain(f"text {seen.seq} after {self.last_seq}: {_difference(seen.text, expected)}")

    def _finish(self, seen: Seen) -> None:
        first_seq = self.known.first_seq
        if first_seq is not None and seen.seq != first_seq + self.known.order.words:
            self._complain(f"finished has number {seen.seq} after {self.known.order.words} words")
        if first_seq is not None and self.last_seq != seen.seq - 1:
            self._complain(f"finished, {seen.seq}, came after {self.last_seq}: words are missing")
        if first_seq is None and not self.has_all_words:
            self._complain(f"finished after {self.spoken} characters: words are missing")
        self.is_finished = True
        self.end(Ending(seen.reason))

    def _fits(self, ending: Ending, last_seq: int) -> bool:
        """Tell whether a last number can be. A send that was given up may have come through all the same."""
        if ending.word in {"SLOW_READER", "DRAINING"}:
            return last_seq <= self.last_seq
        return last_seq == self.last_seq

    def _letter_of(self, text: str) -> str:
        if self._letter is None:
            self._letter = text[6:7] if self.known.order.padding else LETTER
        return self._letter

    def _complain(self, wrong: str) -> None:
        self.wrongs.append(wrong)


def _difference(text: str, expected: str) -> str:
    """Say where two texts part."""
    pairs = zip(text, expected, strict=False)
    at = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(text), len(expected)))
    around = slice(max(0, at - SHOWN), at + SHOWN)
    return f"{len(text)} characters came, {len(expected)} were due; at {at}: {text[around]!r} for {expected[around]!r}"
