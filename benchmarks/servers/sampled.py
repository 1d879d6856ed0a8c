"""Runs a module under a sampling profiler: from SIGUSR1 to SIGUSR2, and the samples into a file at the end.

A signal comes every few milliseconds of processor time, whichever thread uses it, and the main thread's stack is
noted. Time inside compiled code counts for the Python function that called it.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType, FrameType

INTERVAL_SECONDS = 0.002  # the kernel rounds it up to its own tick


class Sampler:
    """Counts stacks."""

    def __init__(self) -> None:
        self._stacks: Counter[tuple[CodeType, ...]] = Counter()

    def begin(self, *_: object) -> None:
        """Start the clock."""
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def end(self, *_: object) -> None:
        """Stop the clock: a signal after the event loop is closed would only make noise."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def take(self, _: int, frame: FrameType | None) -> None:
        """Note where the main thread is, innermost first."""
        stack: list[CodeType] = []
        while frame is not None:
            stack.append(frame.f_code)
            frame = frame.f_back
        self._stacks[tuple(stack)] += 1

    def write(self, path: Path) -> None:
        """Write all stacks."""
        stacks = [
            {"count": count, "stack": [[code.co_filename, code.co_qualname] for code in stack]}
            for stack, count in list(self._stacks.items())  # a last signal may still come
        ]
        path.write_text(json.dumps(stacks), encoding="utf-8")


def main() -> None:
    output, name, *sys.argv[1:] = sys.argv[1:]
    sampler = Sampler()
    signal.signal(signal.SIGUSR1, sampler.begin)
    signal.signal(signal.SIGUSR2, sampler.end)
    signal.signal(signal.SIGPROF, sampler.take)
    signal.siginterrupt(signal.SIGPROF, False)
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    finally:
        sampler.write(Path(output))


if __name__ == "__main__":
    main()
