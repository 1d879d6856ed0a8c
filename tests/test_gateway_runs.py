"""Runs that are read again through the gateway: attached to, resumed, cancelled."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx_sse
import pytest

from haystream.v1 import chat_pb2
from haystream_service.run.ending import Cancelled, Disconnected
from tests.conftest import Browser, Served, browsed, served
from tests.frames import frames_of, text_of
from tests.scripted import Scripted, behind_gateway

if TYPE_CHECKING:
    from httpx_sse import ServerSentEvent

    from haystream_service.run.run import Run
    from tests.fakes import Stage

GOES_ON = {"query": "q", "run_id": "mine", "on_disconnect": "continue", "disconnect_grace_seconds": 30}


async def read(browser: Browser, method: str, url: str, **request: Any) -> list[ServerSentEvent]:
    """Read all frames of an address."""
    async with httpx_sse.aconnect_sse(browser.http, method, url, **request) as source:
        source.response.raise_for_status()
        return [frame async for frame in source.aiter_sse()]


async def left_after(browser: Browser, frames: int, method: str, url: str, **request: Any) -> list[ServerSentEvent]:
    """Read some frames of an address, and go."""
    seen: list[ServerSentEvent] = []
    async with httpx_sse.aconnect_sse(browser.http, method, url, **request) as source:
        source.response.raise_for_status()
        async for frame in source.aiter_sse():
            seen.append(frame)
            if len(seen) == frames:
                break
    return seen


def only_run(fake: Served) -> Run:
    """Return the run that goes on; there is one."""
    (run,) = fake.runs
    return run


async def stopped(fake: Served) -> None:
    """Wait until no run goes on."""
    async with asyncio.timeout(5):
        await fake.runs.until_idle()


@pytest.mark.parametrize("how", ["Last-Event-ID", "after"])
async def test_a_reader_who_comes_back_gets_the_rest(page: Browser, stage: Stage, how: str) -> None:
    """Nothing is lost or doubled, by either way of saying where one was."""
    stage.chunks, stage.more = 3, 2
    before = await left_after(page, 2, "POST", "/chat", json=GOES_ON)
    seq = before[-1].id.partition(":")[2]
    stage.proceed.set()
    if how == "after":
        after = await read(page, "GET", "/runs/mine/events", params={"after": seq})
    else:
        after = await read(page, "GET", "/runs/mine/events", headers={"Last-Event-ID": before[-1].id})
    assert text_of(before) + text_of(after) == "word " * 5
    assert [int(frame.id.partition(":")[2]) for frame in after] > [int(seq)]
    assert after[-1].event == "end"
    assert len(stage.received) == 1


async def test_an_event_source_that_comes_back_attaches_to_its_run(page: Browser, stage: Stage) -> None:
    """The same address, with the id of the last frame; the service waits for it meanwhile."""
    stage.chunks, stage.more = 2, 2
    address = "/chat?query=q"
    before = await left_after(page, 2, "GET", address)
    stage.proceed.set()
    after = await read(page, "GET", address, headers={"Last-Event-ID": before[-1].id})
    assert text_of(before) + text_of(after) == "word " * 4
    assert after[-1].event == "end"
    assert len(stage.received) == 1


async def test_the_grace_of_an_event_source_is_the_settings(fake: Served, stage: Stage) -> None:
    """The service is told how long to wait."""
    service = Scripted()
    async with behind_gateway(service, gateway_reconnect_seconds=7.5) as browser:
        await browser.http.get("/chat?query=q")
    assert service.requests[0].on_disconnect == chat_pb2.ON_DISCONNECT_CONTINUE
    assert service.requests[0].disconnect_grace.ToMilliseconds() == 7500


async def test_an_event_source_that_stays_away_stops_the_model(fake: Served, stage: Stage) -> None:
    """When the time to come back is over."""
    async with browsed(fake.address, gateway_reconnect_seconds=0.05) as browser:
        await left_after(browser, 1, "GET", "/chat?query=q")
        run = only_run(fake)
        await stage.cancelled.wait()
        await stopped(fake)
    assert run.ending == Disconnected()


@pytest.mark.parametrize(
    ("method", "address", "request_"),
    [
        ("GET", "/chat?query=q", {}),
        ("GET", "/runs/mine/events", {}),
    ],
)
async def test_after_the_last_frame_there_is_nothing_more(
    page: Browser, stage: Stage, method: str, address: str, request_: dict[str, Any]
) -> None:
    """204 tells an EventSource to stay away; the question is not billed twice."""
    stage.proceed.set()
    last = (await frames_of(page, **GOES_ON))[-1]
    answer = await page.http.request(method, address, headers={"Last-Event-ID": last.id}, **request_)
    assert (answer.status_code, answer.content) == (204, b"")
    assert len(stage.received) == 1


async def test_a_post_that_has_all_gets_a_stream_without_frames(page: Browser, stage: Stage) -> None:
    """fetch-event-source takes a 204 for a failure, and would ask again every second."""
    stage.proceed.set()
    last = (await frames_of(page, **GOES_ON))[-1]
    answer = await page.http.post("/chat", json=GOES_ON, headers={"Last-Event-ID": last.id})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.text == ": ping\n"
    assert len(stage.received) == 1


async def test_an_id_from_the_future_of_a_run_that_goes_on_is_no_end(page: Browser, stage: Stage) -> None:
    """204 would keep an EventSource away from what is still to come."""
    stage.chunks = 1
    before = await left_after(page, 2, "POST", "/chat", json=GOES_ON)
    run_id, _, seq = before[-1].id.partition(":")
    answer = await page.http.get("/runs/mine/events", headers={"Last-Event-ID": f"{run_id}:{int(seq) + 1}"})
    assert answer.status_code == 422
    stage.proceed.set()


async def test_an_error_is_told_to_who_was_cut_off_before_it_and_only_to_them(page: Browser, stage: Stage) -> None:
    """Its number is its own: who has it has all, and who has the frame before it still has to learn of it."""
    stage.chunks, stage.error = 1, ValueError("sk-secret")
    stage.proceed.set()
    *_, word, error = await frames_of(page, **GOES_ON)
    assert (word.event, error.event) == ("data", "error")
    again = await read(page, "GET", "/runs/mine/events", headers={"Last-Event-ID": word.id})
    assert [(frame.event, frame.id, frame.data) for frame in again] == [(error.event, error.id, error.data)]
    answer = await page.http.get("/runs/mine/events", headers={"Last-Event-ID": error.id})
    assert answer.status_code == 204


async def test_an_attached_reader_of_a_silent_run_has_first_bytes_at_once(page: Browser, stage: Stage) -> None:
    """Before the model says another word, and long before a heartbeat."""
    stage.chunks = 1
    before = await left_after(page, 2, "POST", "/chat", json=GOES_ON)
    await stage.waiting.wait()
    async with page.http.stream("GET", "/runs/mine/events", headers={"Last-Event-ID": before[-1].id}) as response:
        assert response.status_code == 200
        raw = response.aiter_text()
        async with asyncio.timeout(5):  # long before a heartbeat
            assert await anext(raw) == ": ping\n"
        stage.proceed.set()
        rest = "".join([piece async for piece in raw])
    assert rest.startswith("event: ")
    assert "event: end" in rest


async def test_a_post_that_is_sent_again_attaches(page: Browser, stage: Stage) -> None:
    """By its `run_id` from the beginning, by `Last-Event-ID` from there; neither runs twice."""
    stage.chunks, stage.more = 2, 1
    before = await left_after(page, 2, "POST", "/chat", json=GOES_ON)
    stage.proceed.set()
    whole = await frames_of(page, **GOES_ON)
    rest = await read(page, "POST", "/chat", json=GOES_ON, headers={"Last-Event-ID": before[-1].id})
    assert [whole[0].event, text_of(whole)] == ["metadata", "word " * 3]
    assert text_of(before) + text_of(rest) == text_of(whole)
    assert len(stage.received) == 1


async def test_a_post_with_an_event_id_never_starts_a_run(page: Browser, stage: Stage) -> None:
    """A page that is shown again sends its POST again; where its run was stopped there is none to attach to."""
    before = await left_after(page, 1, "POST", "/chat", json={"query": "q"})
    await stage.cancelled.wait()
    answer = await page.http.post("/chat", json={"query": "q"}, headers={"Last-Event-ID": before[-1].id})
    assert (answer.status_code, answer.json()["reason"]) == (404, "RUN_NOT_FOUND")
    assert len(stage.received) == 1


async def test_another_question_under_the_same_id_is_a_conflict(page: Browser, stage: Stage) -> None:
    """The first run goes on undisturbed."""
    stage.proceed.set()
    await frames_of(page, **GOES_ON)
    answer = await page.http.post("/chat", json={**GOES_ON, "query": "other"})
    assert (answer.status_code, answer.json()["code"]) == (409, "ALREADY_EXISTS")


async def test_several_read_one_run(page: Browser, stage: Stage) -> None:
    """Each gets all of it."""
    stage.chunks, stage.more = 1, 3
    async with httpx_sse.aconnect_sse(page.http, "POST", "/chat", json=GOES_ON) as source:
        frames = source.aiter_sse()
        await anext(frames)
        others = [asyncio.create_task(read(page, "GET", "/runs/mine/events")) for _ in range(3)]
        stage.proceed.set()
        texts = [text_of([frame async for frame in frames]), *map(text_of, await asyncio.gather(*others))]
    assert texts == ["word " * 4] * 4


async def test_a_run_is_cancelled_for_all_of_its_readers(page: Browser, fake: Served, stage: Stage) -> None:
    """The model stops at once, the stream says so, and doing it again changes nothing."""
    stage.chunks = 1
    async with httpx_sse.aconnect_sse(page.http, "POST", "/chat", json=GOES_ON) as source:
        frames = source.aiter_sse()
        await anext(frames)
        await stage.waiting.wait()
        run = only_run(fake)
        answers = [await page.http.post("/runs/mine/cancel") for _ in range(2)]
        last = [frame async for frame in frames][-1]
    await stage.cancelled.wait()
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"run_id": "mine"})] * 2
    assert run.ending == Cancelled()
    assert last.event == "error"
    error = json.loads(last.data)
    assert (error["code"], error["reason"], error["retryable"]) == ("ABORTED", "RUN_CANCELLED", False)


@pytest.mark.parametrize(
    ("method", "address", "headers", "status", "field"),
    [
        ("GET", "/runs/nobody/events", {}, 404, None),
        ("POST", "/runs/nobody/cancel", {}, 404, None),
        ("GET", "/runs/nobody/events", {"Last-Event-ID": "nobody:3"}, 404, None),
        ("GET", "/chat?query=q", {"Last-Event-ID": "nobody:3"}, 404, None),
        ("GET", "/chat?query=q", {"Last-Event-ID": "nobody"}, 422, "Last-Event-ID"),
        ("GET", "/chat?query=q", {"Last-Event-ID": "a b:1"}, 422, "Last-Event-ID"),
        ("GET", "/runs/mine/events", {"Last-Event-ID": "other:3"}, 422, "Last-Event-ID"),
        ("GET", "/runs/mine/events", {"Last-Event-ID": "mine:" + "9" * 30}, 422, "Last-Event-ID"),
        ("GET", "/runs/mine/events?after=-1", {}, 422, "after"),
        ("GET", "/runs/mine/events?after=x", {}, 422, "after"),
        ("GET", "/runs/mine/events?after=99", {}, 422, "after"),
        ("GET", "/runs/mine/events", {"Last-Event-ID": "mine:99"}, 422, "after"),
        ("GET", "/runs/a%20b/events", {}, 422, "run_id"),
        ("POST", "/runs/a%20b/cancel", {}, 422, "run_id"),
        ("POST", "/runs/mine/cancel", {"Sec-Fetch-Site": "cross-site"}, 403, None),
    ],
)
async def test_what_makes_no_sense_is_refused(
    page: Browser, stage: Stage, method: str, address: str, headers: dict[str, str], status: int, field: str | None
) -> None:
    """With a problem that names the field where one is wrong."""
    stage.proceed.set()
    await frames_of(page, **GOES_ON)
    answer = await page.http.request(method, address, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert [error["field"] for error in answer.json().get("errors", [])] == ([field] if field else [])
    assert len(stage.received) == 1


async def test_a_post_for_another_run_than_its_event_id_is_refused(page: Browser) -> None:
    """One of the two is a mistake."""
    answer = await page.http.post("/chat", json=GOES_ON, headers={"Last-Event-ID": "other:1"})
    assert [error["field"] for error in answer.json()["errors"]] == ["Last-Event-ID"]


async def test_components_are_labelled_where_that_is_asked_for(fake: Served, stage: Stage) -> None:
    """Before text, whenever another one speaks, and again for a reader who comes back."""
    stage.chunks = 2
    stage.proceed.set()
    body = {**GOES_ON, "pipeline": "pair", "label_components": True}
    async with browsed(fake.address) as browser:
        frames = await frames_of(browser, **body)
        again = await read(browser, "GET", "/runs/mine/events", params={"after": 1, "label_components": "true"})
        plain = await frames_of(browser, query="q", pipeline="pair")
    labels = [json.loads(frame.data)["component"] for frame in frames if frame.event == "component"]
    assert set(labels) == {"first", "second"}
    assert all(first != second for first, second in pairwise(labels))
    assert frames[1].event == again[0].event == "component"
    assert "component" not in {frame.event for frame in plain}


async def test_a_gap_names_what_a_late_reader_has_lost(stage: Stage) -> None:
    """The log of a long run keeps its newest part."""
    stage.chunks, stage.text = 200, "x" * 1000
    stage.proceed.set()
    async with served(default_pipeline="fake", replay_bytes=20_000) as running, browsed(running.address) as browser:
        await frames_of(browser, **GOES_ON)
        late = await read(browser, "GET", "/runs/mine/events")
    assert late[0].event == "gap"
    assert json.loads(late[0].data)["from_seq"] == 1
    assert late[-1].event == "end"
