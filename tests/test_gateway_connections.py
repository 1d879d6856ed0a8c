"""The gateway's connections to the service: which call takes which, and what becomes of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx_sse

from tests.conftest import browsed, served
from tests.frames import frames_of
from tests.scripted import Scripted, scripted

if TYPE_CHECKING:
    from tests.fakes import Stage


async def test_readiness_lists_and_cancel_do_not_wait_for_streams(stage: Stage) -> None:
    """Where streams are all calls that the service takes on one connection, and one more waits."""
    async with (
        served(default_pipeline="fake", max_streams=2) as running,
        browsed(running.address) as browser,
        AsyncExitStack() as streams,
    ):
        for run_id in ("one", "two"):
            body = {"query": "q", "run_id": run_id}
            source = await streams.enter_async_context(httpx_sse.aconnect_sse(browser.http, "POST", "/chat", json=body))
            frames = source.aiter_sse()
            streams.push_async_callback(frames.aclose)
            assert (await anext(frames)).event == "metadata"
        for address in ("/readyz", "/pipelines", "/pipelines/fake"):
            assert (await browser.http.get(address)).status_code == 200, address
        assert (await browser.http.post("/runs/one/cancel")).status_code == 200
        await stage.cancelled.wait()
    assert stage.received


async def test_calls_are_spread_over_all_addresses_of_the_target() -> None:
    """A name with several addresses is a service with several."""
    one, other = Scripted(), Scripted()
    async with scripted(one) as address, scripted(other, "127.0.0.2", int(address.rpartition(":")[2])) as another:
        async with browsed(f"ipv4:{address},{another}") as browser:
            for _ in range(20):
                assert (await browser.http.get("/pipelines")).status_code == 200
    assert len(one.metadata) + len(other.metadata) == 20
    assert min(len(one.metadata), len(other.metadata)) > 5


async def test_a_service_that_comes_back_is_found(stage: Stage) -> None:
    """By itself, without a restart of the gateway."""
    stage.proceed.set()
    async with served(default_pipeline="fake") as first:
        port = first.service.port
        async with browsed(first.address) as browser:
            assert (await browser.http.get("/readyz")).status_code == 200
    async with browsed(f"127.0.0.1:{port}") as browser:
        assert (await browser.http.get("/readyz")).status_code == 503
        async with served(default_pipeline="fake", listen=f"127.0.0.1:{port}"):
            for _ in range(100):
                if (await browser.http.get("/readyz")).status_code == 200:
                    break
                await asyncio.sleep(0.1)  # gRPC tries again after a while, and tells nobody
            assert (await frames_of(browser, query="q"))[-1].event == "end"
