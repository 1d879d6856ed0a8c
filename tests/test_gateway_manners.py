"""What holds for every answer of the gateway, and what it passes on to the service."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from tests.conftest import Browser, Served, browsed
from tests.scripted import Scripted, behind_gateway

if TYPE_CHECKING:
    from collections.abc import Generator, MutableMapping

    from tests.fakes import Stage

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EVIL = "https://evil.example"
FRIEND = "https://app.example"


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
