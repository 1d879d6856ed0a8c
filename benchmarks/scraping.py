"""Scrapes, as Prometheus makes them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from prometheus_client.core import Sample

INTERVAL_SECONDS = 5  # Prometheus comes every 15 or 60 s by default
ASKED = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"


async def scrape(port: int) -> str:
    """Return the page of a service. Raises OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(ASKED)
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.transport.abort()
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ConnectionError("the scrape was not answered")
    return body.decode()


def samples_of(page: str) -> Iterator[Sample]:
    """Read a page."""
    for family in text_string_to_metric_families(page):
        yield from family.samples


@asynccontextmanager
async def scraping(port: int | None) -> AsyncGenerator[None]:
    """Scrape at once and every few seconds, until the block is left; nothing where there is no port."""
    if port is None:
        yield
        return
    task = asyncio.create_task(_keep_scraping(port))
    try:
        yield
    finally:
        task.cancel()
        (failure,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(failure, OSError):
            raise failure


async def _keep_scraping(port: int) -> None:
    while True:
        await scrape(port)
        await asyncio.sleep(INTERVAL_SECONDS)
