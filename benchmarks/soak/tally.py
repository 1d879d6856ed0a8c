"""What all stories come to: endings by kind, events checked, faults of restarts, failures."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from benchmarks.soak.reading import Reading, Seen

FAILURES_KEPT = 30
LINES_KEPT = 300

# What a caller may meet who calls a process while it goes or comes: each says that trying again helps, by being typed
# so, or by being a connection that is refused.
OF_RESTARTS = frozenset({"DRAINING", "PIPELINE_LOADING", "SERVICE_UNREACHABLE", "REFUSED"})


@dataclass(slots=True)
class Tally:
    """All that is counted. `story_of` finds what the servers have logged about a run.

    `seen` are the endings of runs as their callers saw them, by the runs' ids.
    """

    story_of: Callable[[str], str] = lambda _: ""
    runs: Counter[str] = field(default_factory=Counter[str])
    endings: Counter[str] = field(default_factory=Counter[str])
    restart_faults: Counter[str] = field(default_factory=Counter[str])
    seen: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    events: int = 0
    words: int = 0
    gaps: int = 0
    resumed: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list[str])

    def fail(self, text: str) -> None:
        """Count a failure, and keep the first of them in full."""
        self.failed += 1
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append(text)


class Story:
    """What was done in one scene and what came of it, told in full where something is wrong."""

    def __init__(self, tally: Tally, scene: str, number: int) -> None:
        self.tally = tally
        self.name = f"{scene}-{number}"
        self.began = time.monotonic()
        self.run_ids: list[str] = []
        self._scene = scene
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        tally.runs[scene] += 1

    def new_run(self, name: str = "") -> str:
        """Return an id for a run of this scene."""
        run_id = f"{self.name}{name}"
        self.run_ids.append(run_id)
        return run_id

    def note(self, line: str) -> None:
        """Tell what happens."""
        self._lines.append(f"{time.monotonic() - self.began:8.3f}  {line}")

    def saw(self, reader: str, seen: Seen) -> None:
        """Tell of an event."""
        length = f", {len(seen.text)} characters" if seen.text else ""
        self.note(f"{reader}: {seen.kind} {seen.seq}{length} {seen.reason}")

    def fail(self, wrong: str) -> None:
        """Have the whole story told."""
        logged = "".join(self.tally.story_of(run_id) for run_id in self.run_ids)
        self.tally.fail("\n".join([f"{self.name}: {wrong}", *self._lines, *logged.splitlines()]))

    def judge(self, reading: Reading, allowed: Collection[str], *, all_words: bool = False) -> None:
        """Count a reading that is over; fail where it is wrong, or its ending is none of those that are allowed."""
        reading.close()
        self.tally.events += reading.events
        self.tally.words += reading.words
        self.tally.gaps += reading.gaps
        word = reading.ending.word if reading.ending is not None else "none"
        self.tally.endings[word] += 1
        self.note(f"ended with {word}, after {reading.last_seq}")
        self.saw_ending(word)
        if reading.ending is not None and word not in allowed:
            self.fail(f"ended with {word}; only {', '.join(sorted(allowed))} would do")
        if all_words and not reading.has_all_words:
            self.fail(f"{reading.words} of {reading.known.order.words} words came before {word}")
        for wrong in reading.wrongs:
            self.fail(wrong)

    def saw_ending(self, word: str) -> None:
        """Note how a reader has seen the run end."""
        for run_id in self.run_ids:
            self.tally.seen[run_id].add(word)

    def judge_in_restarts(self, reading: Reading, allowed: Collection[str], *, was_restarted: bool) -> None:
        """Judge a reading of a process that is restarted now and then: what that explains is counted apart."""
        ending = reading.ending
        if ending is None or not was_restarted or ending.word not in OF_RESTARTS:
            self.judge(reading, allowed)
            return
        self.tally.restart_faults[f"{self._scene}: {ending.word}"] += 1
        if not (ending.is_typed and ending.is_retryable):
            self.fail(f"{ending.word} of a restart is not typed and retryable")
        self.judge(reading, [*allowed, ending.word])
