"""The address that Prometheus scrapes: names by convention, what is there, and nothing else; and who may hold it up."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.registry import Collector

from haystream.v1 import chat_pb2
from haystream_service.entrance.binding import AddressInUse
from haystream_service.telemetry import exposition
from haystream_service.telemetry.exposition import MAX_REQUESTS
from tests.calls import all_events
from tests.conftest import served
from tests.scrape import measured, scraped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client.core import Metric

    from tests.conftest import Served
    from tests.fakes import Stage


async def test_pipelines_and_the_process_are_seen(stage: Stage, tmp_path: Path) -> None:
    """What is served, what failed, what runs; a certificate's expiry only where there is one."""
    (tmp_path / "good.py").write_text("from tests.pipelines.fake import build\n")
    (tmp_path / "bad.py").write_text("raise ValueError\n")
    async with served(tmp_path, metrics_listen="127.0.0.1:0") as running:
        scrape = await scraped(running.service)
    assert scrape.value("haystream_pipelines_ready") == 1
    assert scrape.value("haystream_pipelines_failed") == 1
    assert scrape.total("haystream_build_info") == 1
    assert scrape.value("process_resident_memory_bytes") > 1_000_000
    assert scrape.value("python_gc_collections_total", generation="2") >= 0
    assert "certificate" not in scrape.text


async def test_names_follow_prometheus_conventions(stage: Stage) -> None:
    """Counters end with _total, times are seconds, sizes are bytes, and every name has help and a type."""
    async with measured() as running:
        text = (await scraped(running.service)).text
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE "))
    helped = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP ")}
    assert set(types) == helped
    assert all(name.startswith(("haystream_", "grpc_server_", "process_", "python_")) for name in types)
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in types.items())
    assert all(name.endswith("_seconds") for name, kind in types.items() if kind == "histogram")
    assert "_created" not in text


async def test_nothing_else_is_served_there(stage: Stage) -> None:
    """One path, which is read and no more."""
    async with measured() as running, httpx.AsyncClient() as http:
        base = f"http://127.0.0.1:{running.service.metrics_port}"
        assert (await http.get(f"{base}/")).status_code == httpx.codes.NOT_FOUND
        assert (await http.get(f"{base}/debug")).status_code == httpx.codes.NOT_FOUND
        assert (await http.post(f"{base}/metrics")).status_code == httpx.codes.METHOD_NOT_ALLOWED
        assert (await http.get(f"{base}/metrics?name[]=up")).text.count("haystream_runs_active") == 3


async def test_connections_that_say_nothing_cost_a_few_threads_and_no_service(stage: Stage) -> None:
    """As many as have a place are waited for; one more is closed at once."""
    stage.proceed.set()
    async with measured() as running:
        port = running.service.metrics_port
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_REQUESTS + 1)]
        assert await connections[-1][0].read() == b""
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        for _, writer in connections:
            writer.close()
            await writer.wait_closed()


async def test_a_request_that_drips_has_its_time_as_a_whole(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps no place, and so no scrape out."""
    monkeypatch.setattr(exposition, "REQUEST_SECONDS", 0.3)
    async with measured() as running, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.service.metrics_port)
        writer.write(b"GET /metrics HTTP/1.1\r\nx: ")
        is_open = True
        while is_open:
            writer.write(b"x")
            with suppress(TimeoutError):
                # The pace of the drip: nobody tells that a byte was read.
                is_open = bool(await asyncio.wait_for(reader.read(1), 0.05))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        assert (await scraped(running.service)).text


class Slow(Collector):
    """Has nothing to tell, and takes its time for that."""

    def __init__(self, patience_seconds: float | None = None) -> None:
        self.asked, self.proceed = asyncio.Event(), threading.Event()
        self.has_proceeded: list[bool] = []
        self._loop = asyncio.get_running_loop()
        self._patience_seconds = patience_seconds

    def collect(self) -> Iterator[Metric]:
        self._loop.call_soon_threadsafe(self.asked.set)
        self.has_proceeded.append(self.proceed.wait(self._patience_seconds))
        yield from ()

    def describe(self) -> Iterator[Metric]:
        yield from ()


async def test_nobody_who_is_connected_holds_up_the_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not who says nothing; and while a scrape is answered the loop goes on, since a signal has to reach it."""
    monkeypatch.setattr(exposition, "REQUEST_SECONDS", 20)
    slow = Slow(5)
    stack = AsyncExitStack()
    running = await stack.enter_async_context(measured())
    running.service.metrics.register(slow)
    connections = [await asyncio.open_connection("127.0.0.1", running.service.metrics_port) for _ in range(4)]
    connections[0][1].write(b"GET /metrics HTTP/1.1\r\n\r\n")
    await slow.asked.wait()
    closing = asyncio.create_task(stack.aclose())
    for reader, _ in connections:
        assert await reader.read() == b""
    slow.proceed.set()
    await closing
    assert slow.has_proceeded == [True]
    for _, writer in connections:
        writer.close()
        await writer.wait_closed()


async def test_a_scrape_that_hangs_does_not_hold_up_the_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may look at a disk that is gone."""
    monkeypatch.setattr(exposition, "CLOSE_SECONDS", 0.1)
    hanging = Slow()
    stack = AsyncExitStack()
    running = await stack.enter_async_context(measured())
    running.service.metrics.register(hanging)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.service.metrics_port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    await hanging.asked.wait()
    scrapes = [thread for thread in threading.enumerate() if thread.name == "haystream-scrape"]
    closing = asyncio.create_task(stack.aclose())
    await asyncio.wait([closing], timeout=10)
    has_ended = closing.done()
    hanging.proceed.set()
    await closing
    for scrape in scrapes:
        scrape.join()
    assert await reader.read() == b""
    writer.close()
    assert has_ended
    assert len(scrapes) == 1


async def test_a_thread_that_cannot_be_had_costs_no_place(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are threads again there are metrics again, and at the end nothing is wrong."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with measured() as running:
        for _ in range(2):
            with monkeypatch.context() as without:
                without.setattr(threading.Thread, "start", fail)
                for _ in range(MAX_REQUESTS + 1):
                    reader, writer = await asyncio.open_connection("127.0.0.1", running.service.metrics_port)
                    assert await reader.read() == b""
                    writer.close()
            assert (await scraped(running.service)).text


async def test_without_descriptors_it_rests_and_the_connection_waits(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that is told of it again and again would do nothing else."""
    tries = 0
    tried = asyncio.Event()

    def fail(_: socket.socket) -> None:
        nonlocal tries
        tries += 1
        tried.set()
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(exposition, "REST_SECONDS", 0.2)
    async with measured() as running:
        with monkeypatch.context() as without:
            without.setattr(socket.socket, "accept", fail)
            scraping = asyncio.create_task(scraped(running.service))
            await asyncio.wait_for(tried.wait(), 10)
            for _ in range(20):
                await asyncio.sleep(0)
            assert tries == 1
        assert (await asyncio.wait_for(scraping, 10)).text


async def test_without_an_address_there_are_no_metrics(fake: Served) -> None:
    """Nor a port."""
    assert fake.service.metrics_port is None


async def test_an_address_that_is_taken_is_named(stage: Stage) -> None:
    """Before anything is served."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressInUse, match=f"^HAYSTREAM_METRICS_LISTEN: {address} is taken"):
            async with served(metrics_listen=address):
                pass
