"""The results as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.measures import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.measures import Figure, Measure
    from benchmarks.records import Record
    from benchmarks.rows.row import Row

HEAD = """# Results

Written by `make bench`; the raw figures are in [results.json](results.json).

All contestants of a row ran in one run on one machine, each server in a process of its own, by turns, after a warm-up.
Figures are medians over the rounds, with the least and the most in brackets; ratios are those of medians of one run.
Every contestant runs the same pipelines and says the same words, and a stream that does not bring every word fails its
row. The readers of all servers are raw sockets that only note what comes and when, so that servers are what is
measured. Haystack in process has no reader at all.

What ten minutes of everything at once have brought is on [a page of its own](soak.md), written by `make soak`.
"""


def report(rows: Sequence[Row], records: Mapping[str, Record]) -> str:
    """Return the whole page."""
    measured = [(row, records[row.name]) for row in rows if row.name in records]
    return "\n".join([HEAD, _summary(measured), *(section(row, record) for row, record in measured)])


def section(row: Row, record: Record, *, chart: bool = True) -> str:
    """Return one row's part of the page."""
    verdicts = verdicts_of(row, record)
    parts = [f"## {row.title}", f"`make bench ROWS={row.name}`. {row.about}"]
    if chart:
        parts.append(f"![{row.title}]({row.name}.svg)")
    parts.append(_figures_table(row, record))
    if verdicts:
        parts.append(_verdicts_table(verdicts))
    parts.extend(f"**{_title(row, key)} failed**: {why}" for key, why in record.failures.items())
    if row.floor:
        parts.append(f"The floor: {row.floor}")
    if record.profile:
        parts.append(record.profile)
    parts.append(f"{record.date}, on {listed(record.machine)}, with {listed(record.versions)}.")
    return "\n\n".join(parts) + "\n"


def verdicts_of(row: Row, record: Record) -> list[Verdict]:
    """Judge a row's targets, as far as their contestants ran. Whoever failed has reached nothing."""
    judged = (
        Verdict(target.aim, "failed", is_met=False) if target.of in record.failures else target.judge(record.figures)
        for target in row.targets
    )
    return [verdict for verdict in judged if verdict is not None]


def _summary(measured: Iterable[tuple[Row, Record]]) -> str:
    lines = [
        [f"[{row.title}](#{_anchor(row.title)})", verdict.aim, verdict.reached, yes(verdict)]
        for row, record in measured
        for verdict in verdicts_of(row, record)
    ]
    return table(["workload", "target", "reached", "met"], lines)


def _figures_table(row: Row, record: Record) -> str:
    present = [entrant for entrant in row.entrants if entrant.key in record.figures]
    if not present:
        return "Nobody finished."
    measures = list(record.figures[present[0].key])
    head = ["", *(f"{measure.name}, {measure.unit}" for measure in measures)]
    lines = [
        [entrant.title, *(_cell(measure, record.figures[entrant.key][measure]) for measure in measures)]
        for entrant in present
    ]
    return table(head, lines, numbers=True)


def _verdicts_table(verdicts: Iterable[Verdict]) -> str:
    return table(["target", "reached", "met"], [[one.aim, one.reached, yes(one)] for one in verdicts])


def _cell(measure: Measure, figure: Figure) -> str:
    if len(figure.values) == 1:
        return measure.text(figure.middle)
    return f"**{measure.text(figure.middle)}** ({measure.text(figure.least)} - {measure.text(figure.most)})"


def table(head: Sequence[str], lines: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """Return a table."""
    rule = ["---", *(("---:" if numbers else "---") for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def _title(row: Row, key: str) -> str:
    return next((entrant.title for entrant in row.entrants if entrant.key == key), key)


def yes(verdict: Verdict) -> str:
    """Return a verdict in a word."""
    return "yes" if verdict.is_met else "**no**"


def _anchor(title: str) -> str:
    """Return the address that Markdown gives a heading."""
    kept = (letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return "".join(kept).replace(" ", "-")


def listed(values: Mapping[str, str]) -> str:
    """Return values as a phrase."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
