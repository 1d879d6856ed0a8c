"""The raw figures in a file: one record a row, so that a row run alone replaces its own record and no other."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.measures import Figure, Measure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.measures import Figures
    from benchmarks.running import Outcome

FILE = "results.json"


@dataclass(frozen=True, slots=True)
class Record:
    """One row's run. All that is compared with one another comes from one record."""

    row: str
    date: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    figures: Figures
    failures: Mapping[str, str]
    profile: str = ""


def load(folder: Path) -> dict[str, Record]:
    """Read the records of earlier runs."""
    path = folder / FILE
    if not path.exists():
        return {}
    rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: _record(name, raw) for name, raw in rows.items()}


def save(folder: Path, records: Mapping[str, Record]) -> None:
    """Write all records."""
    rows = {name: _raw(record) for name, record in records.items()}
    (folder / FILE).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def figures_of(outcome: Outcome) -> Figures:
    """Gather the rounds of each contestant, by measure."""
    return {
        key: {measure: Figure(tuple(sample[measure] for sample in samples)) for measure in samples[0]}
        for key, samples in outcome.samples.items()
    }


def _raw(record: Record) -> dict[str, Any]:
    return {
        "date": record.date,
        "machine": dict(record.machine),
        "versions": dict(record.versions),
        "contestants": {
            key: [{**asdict(measure), "values": list(figure.values)} for measure, figure in measures.items()]
            for key, measures in record.figures.items()
        },
        "failures": dict(record.failures),
        "profile": record.profile,
    }


def _record(name: str, raw: dict[str, Any]) -> Record:
    figures = {
        key: {Measure(one["name"], one["unit"], one["decimals"]): Figure(tuple(one["values"])) for one in measures}
        for key, measures in raw["contestants"].items()
    }
    return Record(name, raw["date"], raw["machine"], raw["versions"], figures, raw["failures"], raw["profile"])
