"""A service whose metrics are served, and a scrape of them, as Prometheus does it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from haystream_service.server import Service
    from tests.conftest import Served


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a scrape has brought."""

    text: str
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """Return a sample. Raises KeyError where there is none."""
        return self.samples[name, frozenset(labels.items())]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples with these labels, whatever others they have."""
        wanted = frozenset(labels.items())
        return sum(
            value for (known, all_labels), value in self.samples.items() if known == name and wanted <= all_labels
        )

    def labels(self, name: str, label: str) -> set[str]:
        """Return the values of a label."""
        return {dict(labels)[label] for known, labels in self.samples if known == name}


async def scraped(service: Service) -> Scrape:
    """Scrape a service."""
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{service.metrics_port}/metrics")
    assert answer.status_code == httpx.codes.OK
    families = text_string_to_metric_families(answer.text)
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples)
    return Scrape(answer.text, found)


@asynccontextmanager
async def measured(**settings: Any) -> AsyncGenerator[Served]:
    """Serve the fakes, and their metrics."""
    async with served(default_pipeline="fake", metrics_listen="127.0.0.1:0", **settings) as running:
        yield running
