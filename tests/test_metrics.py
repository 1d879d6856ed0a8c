"""What Prometheus gets to see: names by convention, labels that are few, numbers that are right, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client.registry import Collector

from haystream.v1 import chat_pb2
from haystream_service.entrance.binding import AddressInUse
from haystream_service.run.ending import Disconnected
from haystream_service.telemetry import exposition
from haystream_service.telemetry.exposition import MAX_REQUESTS
from haystream_service.telemetry.rpc_metrics import code_word
from tests.calls import all_events
from tests.conftest import served
from tests.scrape import scraped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from prometheus_client.core import Metric

    from haystream_service.run.ending import Ending
    from haystream_service.run.run import Run
    from tests.conftest import Served
    from tests.fakes import Stage
    from tests.scrape import Scrape

SERVICE = "haystream.v1.ChatService"
CHAT = {"grpc_type": "server_stream", "grpc_service": SERVICE, "grpc_method": "Chat"}


@asynccontextmanager
async def measured(**settings: Any) -> AsyncGenerator[Served]:
    """Serve the fakes, and their metrics."""
    async with served(default_pipeline="fake", metrics_listen="127.0.0.1:0", **settings) as running:
        yield running


def codes(scrape: Scrape, method: str) -> dict[str, float]:
    """Return how often a method was answered with which code."""
    words = scrape.labels("grpc_server_handled_total", "grpc_code")
    found = {word: scrape.total("grpc_server_handled_total", grpc_method=method, grpc_code=word) for word in words}
    return {word: count for word, count in found.items() if count}


class Bell:
    """Follows a run to hear of its ending."""

    leads = False

    def __init__(self, run: Run, ended: asyncio.Event) -> None:
        self._run = run
        self._ended = ended

    def wake(self) -> None:
        """Look."""
        if self._run.ending is not None and not self._ended.is_set():
            self._ended.set()
            asyncio.get_running_loop().call_soon(self._run.leave, self, Disconnected())

    def dismiss(self, ending: Ending) -> None:
        """Nothing waits for it."""


async def services_of(channel: Any) -> str:
    """Ask by reflection which services there are."""
    call = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=str,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = str(await call.read())
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    return answer


async def test_a_run_is_counted_with_its_chunks_bytes_and_tokens(stage: Stage) -> None:
    """By pipeline, and by the word that its caller sees."""
    stage.chunks, stage.text = 3, "häh "
    stage.meta = {"finish_reason": "length", "model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    stage.proceed.set()
    async with measured() as running:
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        scrape = await scraped(running.service)
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="LENGTH") == 1
    assert scrape.total("haystream_runs_total") == 1
    assert scrape.value("haystream_chunks_total", pipeline="fake") == 3
    assert scrape.value("haystream_chunk_bytes_total", pipeline="fake") == 15
    assert scrape.value("haystream_tokens_total", pipeline="fake", kind="prompt") == 5
    assert scrape.value("haystream_tokens_total", pipeline="fake", kind="completion") == 7
    assert scrape.value("haystream_first_chunk_seconds_count", pipeline="fake") == 1
    assert scrape.value("haystream_run_duration_seconds_count", pipeline="fake") == 1
    assert scrape.value("haystream_chunk_gap_seconds_count", pipeline="fake") == 2
    assert scrape.value("haystream_chunk_gap_seconds_bucket", pipeline="fake", le="+Inf") == 2
    first = scrape.value("haystream_first_chunk_seconds_sum", pipeline="fake")
    gaps = scrape.value("haystream_chunk_gap_seconds_sum", pipeline="fake")
    assert 0 < first + gaps <= scrape.value("haystream_run_duration_seconds_sum", pipeline="fake")


async def test_a_run_is_seen_while_it_goes_on_and_counted_once(stage: Stage) -> None:
    """Its chunks count at once, and not again when it has ended, nor when its last reader has left."""
    stage.chunks, stage.more = 2, 1
    async with measured() as running:
        reading = asyncio.ensure_future(all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q"))))
        await stage.waiting.wait()
        before = await scraped(running.service)
        stage.proceed.set()
        await reading
        after = await scraped(running.service)
    assert before.value("haystream_runs_active") == 1
    assert before.value("haystream_readers") == 1
    assert before.value("haystream_runs_unread") == 0
    assert before.value("haystream_chunks_total", pipeline="fake") == 2
    assert before.value("haystream_first_chunk_seconds_count", pipeline="fake") == 1
    assert before.total("haystream_runs_total") == 0
    assert after.value("haystream_runs_active") == 0
    assert after.value("haystream_chunks_total", pipeline="fake") == 3
    assert after.value("haystream_first_chunk_seconds_count", pipeline="fake") == 1
    assert after.value("haystream_replay_bytes") > 0


async def test_a_run_that_ended_and_is_still_read_counts_once(stage: Stage) -> None:
    """Its reader is behind, so it is active, and already in the sum of those that ended."""
    stage.chunks, stage.text = 100, "x" * 200_000
    stage.proceed.set()
    async with measured(queue_bytes=100_000_000, replay_bytes=1_000_000) as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q"))
        await call.read()
        [run] = running.runs
        ended = asyncio.Event()
        bell = Bell(run, ended)
        run.join(bell)
        bell.wake()
        await ended.wait()
        scrape = await scraped(running.service)
        while await call.read() is not grpc.aio.EOF:
            pass
    assert scrape.value("haystream_runs_active") == 1
    assert scrape.value("haystream_chunks_total", pipeline="fake") == 100
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="STOP") == 1


async def test_what_has_not_happened_is_there_as_zero(stage: Stage) -> None:
    """Otherwise the first failure of its kind would be no increase, and no alert."""
    async with measured() as running:
        scrape = await scraped(running.service)
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="PROVIDER_BUSY") == 0
    assert scrape.value("haystream_refusals_total", reason="TOKEN_INVALID") == 0
    assert scrape.value("grpc_server_handled_total", grpc_code="Unavailable", **CHAT) == 0
    assert scrape.value("grpc_server_started_total", **CHAT) == 0
    assert len(scrape.labels("grpc_server_handled_total", "grpc_code")) == 17


async def test_codes_are_gos_words() -> None:
    """Dashboards made for go-grpc-middleware ask for these."""
    words = "OK Canceled Unknown InvalidArgument DeadlineExceeded NotFound AlreadyExists PermissionDenied"
    words += " ResourceExhausted FailedPrecondition Aborted OutOfRange Unimplemented Internal Unavailable DataLoss"
    words += " Unauthenticated"
    assert {code_word(code) for code in grpc.StatusCode} == set(words.split())


async def test_every_rpc_is_counted_by_its_code(stage: Stage) -> None:
    """A refusal, an ending, and answers that are no stream."""
    stage.error = ValueError("no")
    stage.proceed.set()
    async with measured() as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest()))
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Cancel(chat_pb2.CancelRequest(run_id="nobody's"))
        scrape = await scraped(running.service)
    assert codes(scrape, "Chat") == {"InvalidArgument": 1, "Internal": 1}
    assert codes(scrape, "ListPipelines") == {"OK": 1}
    assert codes(scrape, "Cancel") == {"InvalidArgument": 1}
    assert scrape.value("grpc_server_started_total", **CHAT) == 2
    assert scrape.value("grpc_server_handling_seconds_count", **CHAT) == 2
    assert scrape.value("haystream_refusals_total", reason="INVALID_REQUEST") == 2
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="COMPONENT_FAILED") == 1


async def test_a_caller_who_leaves_counts_as_canceled(stage: Stage) -> None:
    """And not as OK, as it would to whoever only sees that the handler came to no harm."""
    stage.chunks = 1
    async with measured() as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q"))
        await stage.waiting.wait()
        call.cancel()
        await stage.cancelled.wait()
        await running.runs.until_idle()
        scrape = await scraped(running.service)
    assert codes(scrape, "Chat") == {"Canceled": 1}
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="DISCONNECTED") == 1


async def test_a_caller_who_leaves_in_the_middle_of_a_write_counts_as_canceled(stage: Stage) -> None:
    """There the handler gets an error of gRPC's own, and no cancellation."""
    stage.chunks, stage.text = 100_000, "x" * 10_000
    async with measured(queue_bytes=10_000) as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q"))
        await call.read()
        await stage.stands_still()
        call.cancel()
        await stage.cancelled.wait()
        await running.runs.until_idle()
        scrape = await scraped(running.service)
    assert codes(scrape, "Chat") == {"Canceled": 1}


async def test_a_deadline_counts_as_deadline_exceeded(stage: Stage) -> None:
    """Whoever notices it first."""
    async with measured() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q"), timeout=0.2))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await stage.cancelled.wait()
        await running.runs.until_idle()
        scrape = await scraped(running.service)
    assert codes(scrape, "Chat") == {"DeadlineExceeded": 1}
    assert scrape.value("haystream_runs_total", pipeline="fake", ending="DEADLINE_EXCEEDED") == 1


async def test_health_and_reflection_work_as_before_and_are_counted(stage: Stage) -> None:
    """A watch that goes on until its caller leaves, and a handler that is a generator."""
    async with measured() as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert await watch.read() == health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert SERVICE in await services_of(running.channel)
        hurried = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=0.2)
        await hurried.read()
        with pytest.raises(grpc.aio.AioRpcError):
            await hurried.read()
        watch.cancel()
        scrape = await scraped(running.service)
        while len(codes(scrape, "Watch")) < 2:
            scrape = await scraped(running.service)
    assert codes(scrape, "Watch") == {"Canceled": 1, "DeadlineExceeded": 1}
    assert codes(scrape, "Check") == {"NotFound": 1}
    assert codes(scrape, "ServerReflectionInfo") == {"OK": 1}


async def test_unknown_methods_make_no_labels(stage: Stage) -> None:
    """Callers choose such names, and there is no end of them."""
    async with measured() as running:
        for method in (f"/{SERVICE}/Nothing", "/made.up/Chat", "/x/y/z"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await cast("Any", running.channel).unary_unary(method)(b"")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        scrape = await scraped(running.service)
    assert "Nothing" not in scrape.text
    assert "made.up" not in scrape.text


async def test_pipelines_that_there_are_not_make_no_labels(stage: Stage) -> None:
    """As methods."""
    async with measured() as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline="made-up")))
        scrape = await scraped(running.service)
    assert "made-up" not in scrape.text
    assert scrape.value("haystream_refusals_total", reason="PIPELINE_NOT_FOUND") == 1


@pytest.mark.parametrize(("pipeline", "kind"), [("fake", "async"), ("threaded", "thread")])
async def test_a_reader_who_is_behind_is_seen_and_counted_when_it_is_let_go(
    stage: Stage, pipeline: str, kind: str
) -> None:
    """First by what waits for it, then as a slow reader."""
    stage.chunks, stage.text = 100_000, "x" * 10_000
    async with measured(queue_bytes=10_000, slow_reader_seconds=1.5) as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline=pipeline))
        await call.read()
        await stage.stands_still()
        scrape = await scraped(running.service)
        await stage.cancelled.wait()
        await running.runs.until_idle()
        later = await scraped(running.service)
        call.cancel()
    assert scrape.value("haystream_blocked_callbacks", kind=kind) == 1
    assert scrape.total("haystream_blocked_callbacks") == 1
    assert scrape.value("haystream_queue_bytes") > 10_000
    assert scrape.value("haystream_components_at_work") == (kind == "thread")
    assert later.value("haystream_slow_readers_total") == 1
    assert later.value("haystream_runs_total", pipeline=pipeline, ending="SLOW_READER") == 1
    assert later.value("haystream_queue_bytes") == 0


async def test_components_in_line_and_orphaned_threads_are_seen(stage: Stage) -> None:
    """One thread, taken: the next component waits; its run is stopped, and its thread goes on for nobody."""
    async with measured(max_sync_runs=1) as running:
        first = running.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline="threaded"))
        await stage.waiting.wait()
        second = running.stub.Chat(chat_pb2.ChatRequest(query="q", pipeline="threaded"))
        await second.read()
        in_line = await scraped(running.service)
        while not in_line.value("haystream_components_waiting"):
            in_line = await scraped(running.service)
        second.cancel()
        first.cancel()
        await running.runs.until_idle()
        orphaned = await scraped(running.service)
        stage.proceed.set()
    assert in_line.value("haystream_components_at_work") == 1
    assert in_line.value("haystream_components_limit") == 1
    assert orphaned.value("haystream_orphaned_threads") == 1
    assert orphaned.value("haystream_components_at_work") == 0


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
                is_open = bool(await asyncio.wait_for(reader.read(1), 0.05))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        assert (await scraped(running.service)).text


async def test_nobody_who_is_connected_holds_up_the_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not who says nothing; and while a scrape is answered the loop goes on, since a signal has to reach it."""
    monkeypatch.setattr(exposition, "REQUEST_SECONDS", 20)
    loop, asked, proceed = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    has_proceeded: list[bool] = []

    class Slow(Collector):
        def collect(self) -> Iterator[Metric]:
            loop.call_soon_threadsafe(asked.set)
            has_proceeded.append(proceed.wait(5))
            yield from ()

        def describe(self) -> Iterator[Metric]:
            yield from ()

    stack = AsyncExitStack()
    running = await stack.enter_async_context(measured())
    running.service.metrics.register(Slow())
    connections = [await asyncio.open_connection("127.0.0.1", running.service.metrics_port) for _ in range(4)]
    connections[0][1].write(b"GET /metrics HTTP/1.1\r\n\r\n")
    await asked.wait()
    closing = asyncio.create_task(stack.aclose())
    for reader, _ in connections:
        assert await reader.read() == b""
    proceed.set()
    await closing
    assert has_proceeded == [True]
    for _, writer in connections:
        writer.close()
        await writer.wait_closed()


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
