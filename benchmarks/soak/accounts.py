"""The services' own accounts at the end: metrics and log have to agree with each other, and with what callers saw."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.measures import Verdict
from benchmarks.scraping import samples_of, scrape
from benchmarks.soak.scenes import FAULTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.soak.servers import Server

RUNS = "haystream_runs_total"
AT_REST = (
    "haystream_runs_active",
    "haystream_readers",
    "haystream_queue_bytes",
    "haystream_blocked_callbacks",
    "haystream_components_at_work",
    "haystream_components_waiting",
    "haystream_orphaned_threads",
)
ENDED = frozenset({"run ended", "run failed"})

# Endings that a caller sees and that are the run's: the others may be of this caller alone, who left or was slow.
OF_RUNS = frozenset({"STOP", "RUN_CANCELLED", *FAULTS.values()})


@dataclass(frozen=True, slots=True)
class Ended:
    """A line about a run that ended."""

    run_id: str
    pipeline: str
    ending: str


async def accounts(services: Sequence[Server], seen: Mapping[str, Collection[str]]) -> list[Verdict]:
    """Judge the metrics of services at rest. `seen` are the endings that callers saw, by the ids of their runs."""
    verdicts: list[Verdict] = []
    logged = {(line.run_id, line.ending) for service in services for line in lines_of(service.log)}
    for service in services:
        page = await scrape(service.metrics_port)
        verdicts += [_runs(service, page), _at_rest(service, page)]
    return [*verdicts, _seen(seen, logged)]


def lines_of(log: Path, begin: int = 0) -> Iterator[Ended]:
    """Read what a service has logged about runs that ended."""
    with log.open("rb") as lines:
        lines.seek(begin)
        for line in lines:
            if line.startswith(b"{"):
                said: dict[str, Any] = json.loads(line)
                if said["event"] in ENDED:
                    yield Ended(said["run_id"], said["pipeline"], said["ending"])


def _runs(service: Server, page: str) -> Verdict:
    """Compare the runs since the process began, by pipeline and ending."""
    logged = Counter((line.pipeline, line.ending) for line in lines_of(service.log, service.log_begin))
    counted = Counter[tuple[str, str]]()
    for sample in samples_of(page):
        if sample.name == RUNS and sample.value:
            counted[sample.labels["pipeline"], sample.labels["ending"]] += int(sample.value)
    reached = f"{counted.total():,} counted, {logged.total():,} logged"
    return Verdict(f"{service.name}: runs in its metrics, by pipeline and ending", reached, counted == logged)


def _at_rest(service: Server, page: str) -> Verdict:
    found = Counter[str]()
    for sample in samples_of(page):
        if sample.name in AT_REST:
            found[sample.name] += int(sample.value)
    wrong = ", ".join(f"{name} {found.get(name, 'missing')}" for name in AT_REST if found.get(name) != 0)
    return Verdict(f"{service.name}: its gauges", wrong or "all 0", not wrong)


def _seen(seen: Mapping[str, Collection[str]], logged: Collection[tuple[str, str]]) -> Verdict:
    known = [(run_id, word) for run_id, words in seen.items() for word in words if word in OF_RUNS]
    others = [f"{run_id} without {word}" for run_id, word in known if (run_id, word) not in logged]
    told = f"; {', '.join(others[:5])}" if others else ""
    reached = f"{len(known) - len(others):,} of {len(known):,}{told}"
    return Verdict("runs that ended for the services as for their callers", reached, not others and bool(known))
