"""The soak's results as Markdown, and its charts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.report import listed, table, yes
from benchmarks.soak.curves import curves
from benchmarks.soak.flatness import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.measures import Verdict
    from benchmarks.soak.samples import Sample, Samples
    from benchmarks.soak.tally import Tally

PAGE = "soak.md"
HEAD = """# Soak

Written by `make soak`. Two services and two gateways, each a process of its own, on the loopback; callers over gRPC,
server-sent events and `/v1` who read, leave, come back, are cut off, cancel, are slow or stop reading; a provider that
fails; a pipeline's file that changes, breaks and is mended; and one service and one gateway that are restarted while
the others serve. All that goes to the services is encrypted; callers bring tokens of a file over gRPC, and JSON Web
Tokens to the gateways; the services are scraped all the time, and send their spans. Every word carries its number: of
each stream it is checked that numbers rise, that every word comes exactly once and in order, over joins and resumes (a
`gap` hides exactly the words that it names), and that it has exactly one ending, of a kind that fits what was done to
it.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a soak has brought."""

    seconds: float
    seed: int
    tally: Tally
    verdicts: Sequence[Verdict]
    samples: Samples
    stops: Mapping[str, Sequence[float]]
    date: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def has_failed(self) -> bool:
        """Whether anything was not as it has to be."""
        return bool(self.tally.failed) or not all(verdict.is_met for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: its file's name, its title, its unit, and what it shows of a sample."""

    name: str
    title: str
    unit: str
    value: Callable[[Sample], float]


CHARTS = (
    Chart("soak-memory", "Memory of each process", "MiB of its own (USS)", lambda sample: sample.own_mebibytes),
    Chart("soak-threads", "Threads of each process", "threads", lambda sample: sample.threads),
    Chart(
        "soak-descriptors", "Open files and sockets of each process", "descriptors", lambda sample: sample.descriptors
    ),
    Chart(
        "soak-runs", "Open runs and streams", "runs of a service, streams of a gateway", lambda sample: sample.open_runs
    ),
)


def report(outcome: Outcome, *, charts: bool = True) -> str:
    """Return the page."""
    tally = outcome.tally
    parts = [HEAD, _sums(outcome), table(["", "reached", "held"], [_row(verdict) for verdict in outcome.verdicts])]
    parts.append(RULES)
    if charts:
        parts += [f"![{chart.title}]({chart.name}.svg)" for chart in CHARTS]
    parts += ["## Endings", _counts("ending", tally.endings), "## Scenes", _counts("scene", tally.runs)]
    parts += ["## Faults of restarts", _restarts(outcome)]
    if tally.failures:
        parts.append("## Failures")
        parts += [f"```\n{failure}\n```" for failure in tally.failures]
    parts.append(f"{outcome.date}, on {listed(outcome.machine)}, with {listed(outcome.versions)}.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def write(folder: Path, outcome: Outcome, interval_seconds: float) -> None:
    """Write the page and the charts."""
    folder.mkdir(parents=True, exist_ok=True)
    for chart in CHARTS:
        lines = {
            name: [(sample.seconds, chart.value(sample)) for sample in samples]
            for name, samples in outcome.samples.by_server.items()
        }
        drawn = curves(chart.title, chart.unit, lines, breaks_seconds=2.5 * interval_seconds)
        (folder / f"{chart.name}.svg").write_text(drawn, encoding="utf-8")
    (folder / PAGE).write_text(report(outcome), encoding="utf-8")


def _sums(outcome: Outcome) -> str:
    tally = outcome.tally
    failed = f"**{tally.failed} failures**" if tally.failed else "no failure"
    return (
        f"{outcome.seconds:.0f} s with seed {outcome.seed}: {sum(tally.runs.values()):,} scenes, "
        f"{sum(tally.endings.values()):,} streams, {tally.events:,} events and {tally.words:,} words checked, "
        f"{tally.resumed:,} resumes, {tally.gaps:,} gaps, {failed}."
    )


def _row(verdict: Verdict) -> list[str]:
    return [verdict.aim, verdict.reached, yes(verdict)]


def _counts(what: str, counts: Mapping[str, int]) -> str:
    lines = [[f"`{name}`", f"{count:,}"] for name, count in sorted(counts.items(), key=lambda item: -item[1])]
    return table([what, "times"], lines, numbers=True)


def _restarts(outcome: Outcome) -> str:
    """Tell what callers met who were not to be spared."""
    stops = [
        f"The {name} was stopped {len(seconds)} times, which took {min(seconds):.1f} to {max(seconds):.1f} s."
        for name, seconds in outcome.stops.items()
        if seconds
    ]
    faults = outcome.tally.restart_faults
    met = (
        f"{sum(faults.values())} callers of a single process that was just being restarted noticed it. Whatever was "
        "not typed and retryable, or a connection refused, would be among the failures. Who asks both services, by "
        "round robin with a retry policy and health checks, is to notice nothing at all."
    )
    return "\n\n".join([*stops, met, *([_counts("scene and fault", faults)] if faults else [])])
