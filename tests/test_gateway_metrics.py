"""What the gateway counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx_sse
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.conftest import Browser, Served
    from tests.fakes import Stage


async def test_what_the_gateway_has_done_is_counted(page: Browser, fake: Served, stage: Stage) -> None:
    """Open streams, frames, bytes, endings and answers, in a form that Prometheus reads."""
    stage.chunks = 1
    async with httpx_sse.aconnect_sse(page.http, "POST", "/chat", json={"query": "q"}) as source:
        frames = source.aiter_sse()
        await anext(frames)
        assert (await metrics_of(page))["haystream_gateway_open_streams"] == 1
    await stage.cancelled.wait()
    stage.proceed.set()
    raw = (await page.http.post("/chat", json={"query": "q"})).content
    await page.http.get("/runs/nobody/events")
    async with asyncio.timeout(5):
        await fake.runs.until_idle()
    metrics = await metrics_of(page)
    assert metrics["haystream_gateway_open_streams"] == 0
    assert metrics['haystream_gateway_endings_total{ending="LEFT"}'] == 1
    assert metrics['haystream_gateway_endings_total{ending="STOP"}'] == 1
    assert metrics['haystream_gateway_endings_total{ending="RUN_NOT_FOUND"}'] == 1
    assert metrics['haystream_gateway_requests_total{method="POST",route="/chat",status="200"}'] == 2
    assert metrics['haystream_gateway_requests_total{method="GET",route="/runs/{run_id}/events",status="404"}'] == 1
    assert metrics["haystream_gateway_frames_total"] >= 4
    assert metrics["haystream_gateway_bytes_total"] > len(raw)


async def test_addresses_that_nobody_has_cannot_fill_the_counters(page: Browser) -> None:
    """Whatever is asked for, it is one line."""
    for name, method in (("a", "GET"), ("b", "PUT"), ("c", "PROPFIND")):
        await page.http.request(method, f"/{name}")
    counted = [name for name in await metrics_of(page) if "requests_total" in name]
    assert sorted(counted) == [
        f'haystream_gateway_requests_total{{method="other",route="other",status="{status}"}}' for status in (404, 405)
    ]


async def metrics_of(browser: Browser) -> dict[str, float]:
    """Read the counters, by name and labels."""
    answer = await browser.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        sample.name + _labels(sample.labels): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in sorted(labels.items())) + "}" if labels else ""
