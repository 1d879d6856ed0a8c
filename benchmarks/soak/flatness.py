"""Whether what a process uses is flat, by rules that are written down."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.measures import Verdict
from haystream_service.run.threads import ORPHANS_PER_THREAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.soak.samples import Sample

GROWTH_SHARE = 0.10
GROWTH_MEBIBYTES = 8
THREADS_MORE = 4
FIFTHS = 5
FEWEST = 25  # samples: five a fifth

RULES = f"""\
- **Memory** (USS, what would be freed if the process ended) is flat where its median over the last fifth of the time is
  at most {GROWTH_SHARE:.0%} and {GROWTH_MEBIBYTES} MiB over that of the second fifth. The first fifth is left out:
  imports, pools and caches fill then. Medians, since single samples catch a run of some MiB or the collector's turn; a
  tolerance, since Python's allocator keeps partly used pages, and the mix of runs is a random one. In ten
  minutes on two cores a leak of some 7 KiB a run exceeds it.
- **Threads** are flat where, once all is settled, there are at most {THREADS_MORE} more than when all was settled
  before, and of components' threads at most {ORPHANS_PER_THREAD} more for each that there may be at work: a thread that
  nobody waits for any more is replaced until it ends, and their pool keeps what it has made once.
- **File descriptors** are flat where there are no more of them, once all is settled, than when all was settled before:
  every connection, file and watch has to be closed.
- **Open runs** and streams have to be none once all is settled, and so have logs, callers' pipelines and threads that
  nobody waits for.
- **Metrics**: the runs that a service has counted are those that it has logged since its process began, by pipeline and
  ending; nothing is active, queued or blocked any more; and whatever ending of a run a caller saw, the service has
  logged for that run.
"""


@dataclass(frozen=True, slots=True)
class Course:
    """A process that was not restarted: at rest before, at work, and at rest after."""

    name: str
    before: Sample
    at_work: Sequence[Sample]
    after: Sample

    def verdicts(self) -> list[Verdict]:
        """Judge it."""
        memory = [self._memory()] if len(self.at_work) >= FEWEST else []
        return [*memory, self._threads(), self._descriptors(), self._nothing_open()]

    def _memory(self) -> Verdict:
        second, last = (self._median_of_fifth(number) for number in (1, FIFTHS - 1))
        is_flat = last <= second * (1 + GROWTH_SHARE) + GROWTH_MEBIBYTES
        return Verdict(f"{self.name}: memory", f"{second:.1f} MiB, then {last:.1f} MiB", is_flat)

    def _threads(self) -> Verdict:
        before, after = self.before, self.after
        more_pooled = after.pooled_threads - before.pooled_threads
        is_flat = (
            after.threads - before.threads - more_pooled <= THREADS_MORE
            and more_pooled <= ORPHANS_PER_THREAD * before.pooled_threads
        )
        reached = f"{before.threads}, then {after.threads}"
        if before.pooled_threads:
            reached += f"; of components {before.pooled_threads}, then {after.pooled_threads}"
        return Verdict(f"{self.name}: threads", reached, is_flat)

    def _descriptors(self) -> Verdict:
        before, after = self.before.descriptors, self.after.descriptors
        return Verdict(f"{self.name}: file descriptors", f"{before}, then {after}", after <= before)

    def _nothing_open(self) -> Verdict:
        held = {"runs": self.after.open_runs, **self.after.held}
        held.pop("tasks", None)
        left = ", ".join(f"{count} {what}" for what, count in held.items() if count)
        return Verdict(f"{self.name}: open at the end", left or "nothing", not left)

    def _median_of_fifth(self, number: int) -> float:
        first, last = self.at_work[0].seconds, self.at_work[-1].seconds
        width = (last - first) / FIFTHS
        begins, ends = first + number * width, first + (number + 1) * width
        return median(sample.own_mebibytes for sample in self.at_work if begins <= sample.seconds <= ends)
