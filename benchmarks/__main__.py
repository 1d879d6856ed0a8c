"""`python -m benchmarks [row ...]`: runs rows, shows how far it is, and writes the results."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from rich.console import Console

from benchmarks.charts import chart
from benchmarks.machine import machine, versions
from benchmarks.profile import profile
from benchmarks.progress import display
from benchmarks.provider import providing
from benchmarks.records import Record, figures_of, load, save
from benchmarks.report import report, section, verdicts_of
from benchmarks.rows import ROWS
from benchmarks.running import FAILURES, Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contestants.entrant import Entrant
    from benchmarks.progress import Display
    from benchmarks.provider import Provider
    from benchmarks.rows.row import Row

RESULTS = Path(__file__).parent / "results"
PAGE = "README.md"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for. Without a `folder` nothing is written."""

    rows: Sequence[Row]
    contestants: frozenset[str]
    rounds: int | None
    quick: bool
    profiles: bool
    folder: Path | None

    def entrants(self, row: Row) -> list[Entrant]:
        """Return who takes part in a row."""
        return [entrant for entrant in row.entrants if not self.contestants or entrant.key in self.contestants]

    def rounds_of(self, row: Row) -> int:
        """Return how often a row goes round."""
        return self.rounds or (1 if self.quick else row.rounds)


def main() -> None:
    """Exit 1 where a contestant failed. A target that is missed is a result, not a failure."""
    options = options_of(sys.argv[1:])
    allow_many_sockets()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        records = runner.run(run(options, Console(stderr=True)))
    for row in options.rows:
        print(section(row, records[row.name], chart=False))
    sys.exit(any(record.failures for record in records.values()))


def options_of(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks of Haystream and its peers.")
    parser.add_argument("rows", nargs="*", metavar="row", help="rows to run, or families of them; none: all")
    parser.add_argument("--list", action="store_true", help="list the rows and who takes part, and exit")
    parser.add_argument("--rounds", type=int, help="rounds of each row, instead of its own number")
    parser.add_argument("--contestants", default="", help="run these alone, by key, separated by commas")
    parser.add_argument("--quick", action="store_true", help="as small as goes the whole way; writes nothing")
    parser.add_argument("--no-profiles", action="store_true", help="do not profile the rows that miss a target")
    parser.add_argument("--output", type=Path, help="folder of the results; benchmarks/results unless --quick")
    found = parser.parse_args(arguments)
    if found.list:
        print("\n".join(f"{row.name:24} {', '.join(entrant.key for entrant in row.entrants)}" for row in ROWS))
        sys.exit(0)
    if unknown := [name for name in found.rows if not family(name)]:
        parser.error(f"there is no row {', '.join(unknown)}; those that are: {', '.join(row.name for row in ROWS)}")
    asked = {row.name for name in found.rows for row in family(name)}
    return Options(
        rows=[row for row in ROWS if not found.rows or row.name in asked],
        contestants=frozenset(filter(None, found.contestants.split(","))),
        rounds=found.rounds,
        quick=found.quick,
        profiles=not (found.quick or found.no_profiles),
        folder=found.output or (None if found.quick else RESULTS),
    )


def family(name: str) -> list[Row]:
    """Return the row of this name, or all whose names begin with it: those of a module of `rows`."""
    wanted = name.replace("_", "-")
    return [row for row in ROWS if f"{row.name}-".startswith(f"{wanted}-")]


def allow_many_sockets() -> None:
    """Raise the limit of open files for this process and for the servers, which inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def run(options: Options, console: Console) -> dict[str, Record]:
    """Run the rows; write the results after each, so that an interrupted run keeps what it has."""
    records: dict[str, Record] = {}
    with display(console) as shown:
        for row in options.rows:
            shown.expect(row, len(options.entrants(row)) * options.rounds_of(row))
        async with providing() as provider:
            for row in options.rows:
                records[row.name] = await run_row(row, options, provider, shown)
                if options.folder is not None:
                    write(options.folder, records[row.name], row)
    return records


async def run_row(row: Row, options: Options, provider: Provider, shown: Display) -> Record:
    """Run a row; where it misses a target, once more on what it is about under the sampler."""
    before = machine()
    shown.begin(row)
    runner = Runner(provider, shown, options.quick)
    outcome = await runner.run(row, options.entrants(row), options.rounds_of(row))
    date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    record = Record(row.name, date, before, versions(), figures_of(outcome), outcome.failures)
    if options.profiles and row.is_profiled and not all(verdict.is_met for verdict in verdicts_of(row, record)):
        record = await with_profile(row, record, provider)
    shown.finish(row)
    return record


async def with_profile(row: Row, record: Record, provider: Provider) -> Record:
    """Return a record that shows where the time of what it is about went."""
    try:
        text = (await profile(row, provider, quick=False)).markdown()
    except FAILURES as error:
        text = f"The profile failed: {error}"
    return Record(
        record.row, record.date, record.machine, record.versions, record.figures, record.failures, profile=text
    )


def write(folder: Path, record: Record, row: Row) -> None:
    """Write a row's record and chart, and the page of all."""
    folder.mkdir(parents=True, exist_ok=True)
    records = {**load(folder), row.name: record}
    save(folder, records)
    (folder / f"{row.name}.svg").write_text(chart(row, record), encoding="utf-8")
    (folder / PAGE).write_text(report(ROWS, records), encoding="utf-8")


if __name__ == "__main__":
    main()
