"""What holds for every answer of the gateway, and what it passes on to the service."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import httpx_sse
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from haystream.v1 import chat_pb2
from haystream_gateway.bodies import MAX_BODY_BYTES, body_of
from haystream_gateway.problems import Rejection
from haystream_gateway.requests import ChatBody
from haystream_gateway.streams import Silence
from haystream_service.status import Status
from tests.clock import clocked
from tests.conftest import Browser, Served, browsed, served
from tests.frames import frames_of
from tests.scripted import STARTED, Foreign, Scripted, behind_gateway, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, MutableMapping

    from starlette.types import Message

    from tests.fakes import Stage

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EVIL = "https://evil.example"
FRIEND = "https://app.example"


@pytest.fixture
async def page(fake: Served) -> AsyncIterator[Browser]:
    """A gateway to the service with the fakes."""
    async with browsed(fake.address) as browser:
        yield browser


async def test_identity_and_trace_go_through_to_the_service() -> None:
    """With every call, whichever it is."""
    headers = {"Authorization": "Bearer me", "traceparent": TRACE, "tracestate": "a=b", "X-Request-ID": "req-1"}
    service = Scripted()
    async with behind_gateway(service) as browser:
        answers = [
            await browser.http.post("/chat", json={"query": "q"}, headers=headers),
            await browser.http.get("/chat?query=q", headers=headers),
            await browser.http.get("/pipelines", headers=headers),
            await browser.http.get("/pipelines/any", headers=headers),
            await browser.http.get("/runs/r/events", headers=headers),
            await browser.http.post("/runs/r/cancel", headers=headers),
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 204, 200]
    assert {answer.headers["x-request-id"] for answer in answers} == {"req-1"}
    assert len(service.metadata) == 6
    for metadata in service.metadata:
        assert {name: metadata[name] for name in ("authorization", "traceparent", "tracestate", "x-request-id")} == {
            "authorization": "Bearer me",
            "traceparent": TRACE,
            "tracestate": "a=b",
            "x-request-id": "req-1",
        }


async def test_what_is_malformed_is_not_passed_on() -> None:
    """A trace that is none is left out, an id that cannot be printed is replaced, credentials are refused."""
    service = Scripted()
    async with behind_gateway(service) as browser:
        made = await browser.http.get("/pipelines", headers={"traceparent": "00-zz", "X-Request-ID": "a\tb"})
        refused = await browser.http.get("/pipelines", headers=[(b"Authorization", b"Bearer \xff")])
        too_long = await browser.http.get("/pipelines", headers={"Authorization": "B" * 9000})
    assert "traceparent" not in service.metadata[0]
    assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"])
    assert service.metadata[0]["x-request-id"] == made.headers["x-request-id"]
    for answer in (refused, too_long):
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == ["Authorization"]
    assert len(service.metadata) == 1


@pytest.mark.parametrize("address", ["/", "/pipelines", "/nowhere", "/livez", "/chat", "/chat?query=q"])
async def test_every_answer_keeps_browsers_careful(page: Browser, stage: Stage, address: str) -> None:
    """Pages, data, streams and refusals alike."""
    stage.proceed.set()
    headers = (await page.http.get(address)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] in {"no-cache", "no-store"}
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers
    assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])


async def test_pages_of_other_origins_may_call_only_where_they_are_listed(fake: Served, stage: Stage) -> None:
    """Closed unless it is opened."""
    stage.proceed.set()
    asks = {"Origin": EVIL, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with browsed(fake.address) as closed, browsed(fake.address, gateway_cors_origins=f" {FRIEND} ") as opened:
        refused = [
            await closed.http.options("/chat", headers=asks),
            await closed.http.options("/chat", headers={**asks, "Origin": FRIEND}),
            await opened.http.options("/chat", headers=asks),
        ]
        allowed = await opened.http.options("/chat", headers={**asks, "Origin": FRIEND})
        far = {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"}
        event_source = [await browser.http.get("/chat?query=q", headers=far) for browser in (closed, opened)]
    assert all("access-control-allow-origin" not in answer.headers for answer in refused)
    assert allowed.headers["access-control-allow-origin"] == FRIEND
    assert allowed.headers["access-control-allow-headers"] == "content-type"
    assert [answer.status_code for answer in event_source] == [403, 200]
    assert event_source[1].headers["access-control-allow-origin"] == FRIEND
    assert "X-Request-ID" in event_source[1].headers["access-control-expose-headers"]


@pytest.mark.parametrize(("proxies", "client"), [("", "127.0.0.1"), ("10.0.0.0/8", "127.0.0.1"), ("127.0.0.1", EVIL)])
async def test_forwarded_headers_count_from_trusted_proxies_alone(fake: Served, proxies: str, client: str) -> None:
    """Anybody can write them."""
    address = "203.0.113.7" if client == EVIL else client
    async with browsed(fake.address, gateway_trusted_proxies=proxies) as browser:
        with logged() as lines:
            await browser.http.get("/pipelines", headers={"X-Forwarded-For": "203.0.113.7"})
    assert [line["client"] for line in lines] == [address]


async def test_the_log_has_an_answers_ids_and_not_its_question(page: Browser, stage: Stage) -> None:
    """A question may be private; the key is."""
    stage.proceed.set()
    headers = {"X-Request-ID": "req-7", "Authorization": "Bearer private"}
    completion = {"model": "fake", "messages": [{"role": "user", "content": "private"}]}
    with logged() as lines:
        answer = await page.http.get("/chat?query=private", headers=headers)
        await page.http.post("/runs/run-7/cancel?private", headers=headers)
        await page.http.get("/nothing/private?private", headers=headers)
        await page.http.post("/v1/chat/completions", json=completion, headers=headers)
    seconds = [line.pop("seconds") for line in lines]
    run_ids = [line.pop("run_id", None) for line in lines]
    common = {"event": "answered", "log_level": "info", "client": "127.0.0.1", "request_id": "req-7"}
    assert lines == [
        {**common, "method": "GET", "route": "/chat", "status": 200},
        {**common, "method": "POST", "route": "/runs/{run_id}/cancel", "status": 404},
        {**common, "method": "GET", "route": "other", "status": 404},
        {**common, "method": "POST", "route": "/v1/chat/completions", "status": 200},
    ]
    assert f'"{run_ids[0]}"' in answer.text
    assert run_ids[1:3] == ["run-7", None]
    assert run_ids[3]
    assert all(0 <= taken < 30 for taken in seconds)


@contextmanager
def logged() -> Generator[list[MutableMapping[str, Any]]]:
    """Collect what the gateway logs about its answers. What is private is in no line at all."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))
    try:
        with structlog.testing.capture_logs() as lines:
            yield lines
        assert "private" not in str(lines)
        lines[:] = [line for line in lines if line["event"] == "answered"]  # the service logs here, too
    finally:
        structlog.configure(**before)


async def test_a_body_is_read_to_its_limit_and_no_further(page: Browser) -> None:
    """Also where nobody says how long it will be."""
    reader, writer = await asyncio.open_connection("127.0.0.1", page.gateway.port)
    writer.write(
        b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = asyncio.create_task(reader.readuntil(b"}"))
    sent = 0
    while not answer.done() and sent < 10 * MAX_BODY_BYTES:
        writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        sent += 65536
        await writer.drain()
    assert b"413" in (await answer).split(b"\r\n")[0]
    writer.transport.abort()
    assert MAX_BODY_BYTES < sent < 4 * MAX_BODY_BYTES


async def test_a_body_that_does_not_come_is_not_waited_for(page: Browser) -> None:
    """A sender who trickles holds nothing for ever."""
    received = asyncio.Event()

    async def receive() -> Message:
        received.set()
        await asyncio.Event().wait()
        raise AssertionError

    request = Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)
    with pytest.raises(Rejection) as rejected:
        await body_of(request, ChatBody, seconds=0.01)
    assert received.is_set()
    assert (rejected.value.problem.http_status, rejected.value.problem.reason) == (408, "BODY_TOO_SLOW")


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


async def test_a_gateway_that_drains_lets_its_readers_attach_to_another(fake: Served, stage: Stage) -> None:
    """Runs with a grace outlive it: a retryable error, and the rest from the gateway beside it."""
    stage.chunks, stage.more = 1, 2
    body = {"query": "q", "run_id": "mine", "on_disconnect": "continue", "disconnect_grace_seconds": 30}
    async with browsed(fake.address) as browser, browsed(fake.address) as other:
        async with httpx_sse.aconnect_sse(browser.http, "POST", "/chat", json=body) as source:
            frames = source.aiter_sse()
            before = [await anext(frames), await anext(frames)]
            browser.gateway.streams.drain()
            (error,) = [frame async for frame in frames]
        not_ready = await browser.http.get("/readyz")
        stage.proceed.set()
        async with httpx_sse.aconnect_sse(
            other.http, "GET", "/runs/mine/events", headers={"Last-Event-ID": error.id}
        ) as source:
            after = [frame async for frame in source.aiter_sse()]
    assert error.event == "error"
    assert (json.loads(error.data)["reason"], json.loads(error.data)["retryable"]) == ("DRAINING", True)
    assert error.id == before[-1].id
    text = "".join(json.loads(frame.data) for frame in [*before, *after] if frame.event == "data")
    assert text == "word " * 3
    assert (not_ready.status_code, not_ready.json()["reason"]) == (503, "DRAINING")
    assert len(stage.received) == 1


@pytest.mark.parametrize(
    ("status", "is_last_word"),
    [
        (Status(grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE", "words"), True),
        (Status(grpc.StatusCode.ABORTED, "RUN_CANCELLED", "words"), True),
        (Status(grpc.StatusCode.ABORTED, "SLOW_READER", "words"), False),
        (Status(grpc.StatusCode.UNAVAILABLE, "DRAINING", "words"), False),
        *((Foreign(code), False) for code in grpc.StatusCode if code is not grpc.StatusCode.OK),
        (None, False),
    ],
    ids=lambda value: getattr(value, "reason", getattr(value, "code", value)),
)
async def test_only_the_service_can_say_a_runs_last_word(status: Status | None, is_last_word: bool) -> None:
    """Whatever else breaks a stream, more of the run may be there: its reader comes back with the frame before."""
    word = chat_pb2.Event(seq=3, text=chat_pb2.TextDelta(component="llm", delta="word"))
    async with behind_gateway(Scripted([STARTED, word], status)) as browser:
        *_, last, error = await frames_of(browser, query="q")
    assert (last.id, error.event) == ("r-1:3", "error")
    assert error.id == ("r-1:4" if is_last_word else "r-1:3")
    assert json.loads(error.data)["last_seq"] == 3


async def test_a_gateway_that_drains_begins_no_stream(page: Browser, stage: Stage) -> None:
    """On a connection that was there before, for example."""
    await page.http.get("/livez")
    page.gateway.streams.drain()
    answer = await page.http.post("/chat", json={"query": "q"})
    assert (answer.status_code, answer.json()["reason"], answer.headers["retry-after"]) == (503, "DRAINING", "1")
    assert stage.received == []


@pytest.mark.parametrize("address", ["/livez", "/readyz"])
async def test_machines_may_ask_for_a_status_alone(page: Browser, address: str) -> None:
    """By HEAD, as some do."""
    answer = await page.http.head(address)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "address"), [("HEAD", "/chat"), ("DELETE", "/pipelines"), ("PUT", "/runs/r/cancel")]
)
async def test_a_method_that_an_address_does_not_take_is_405(page: Browser, method: str, address: str) -> None:
    """With those that it does."""
    answer = await page.http.request(method, address)
    allowed = {"/chat": "GET, POST", "/pipelines": "GET", "/runs/r/cancel": "POST"}
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed[address])


async def test_a_service_that_falls_silent_is_given_up(stage: Stage) -> None:
    """Not even a heartbeat comes: its readers are told to come back."""
    stage.chunks = 1
    async with (
        served(default_pipeline="fake", heartbeat_seconds=60) as running,
        browsed(running.address, gateway_silence_seconds=0.2) as browser,
    ):
        frames = await frames_of(browser, query="q")
    error = json.loads(frames[-1].data)
    assert (frames[-1].event, error["reason"], error["retryable"]) == ("error", "SERVICE_SILENT", True)


def test_silence_is_what_passes_while_the_service_is_waited_for() -> None:
    """Not while a slow browser is: the time between two waits does not count."""
    with clocked() as loop:
        too_long: list[float] = []

        async def begin() -> Silence:
            return Silence(10, lambda: too_long.append(loop.time()))

        silence = loop.run_until_complete(begin())
        loop.turn(100)
        silence.begins()
        loop.turn(9)
        silence.ends()
        loop.turn(50)
        silence.begins()
        loop.turn(9)
        assert too_long == []
        loop.turn(1)
        assert too_long == [169]
        silence.stop()


async def test_a_reader_who_takes_nothing_is_cut_off(stage: Stage) -> None:
    """By the kernel, which frees the stream, and stops the model."""
    stage.chunks, stage.text = 50_000, "x" * 1000
    async with (
        served(default_pipeline="fake") as running,
        browsed(running.address, slow_reader_seconds=0.5, gateway_reconnect_seconds=0) as browser,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", browser.gateway.port)
        writer.write(b"GET /chat?query=q HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"event: data")
        async with asyncio.timeout(20):
            await running.runs.until_idle()
        writer.transport.abort()


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
