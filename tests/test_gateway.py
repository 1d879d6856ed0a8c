"""The gateway in front of a real service: frames, statuses, and readers who leave."""

from __future__ import annotations

import asyncio
import json
from importlib import metadata
from typing import TYPE_CHECKING, Any

import httpx
import httpx_sse
import pytest

from haystream.v1 import chat_pb2
from haystream_gateway.endpoints.playground import FOLDER
from haystream_gateway.frames import event_frame
from haystream_gateway.problems import Code, Problem
from tests.conftest import SHIPPED, Browser, Served, browsed, served
from tests.frames import frames_of, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx_sse import ServerSentEvent

    from tests.fakes import Stage

MIB = 1024 * 1024

FOUND = chat_pb2.Document(id="d", content="c", score=0.5)
FOUND.meta.update({"page": 3, "weight": 0.5})


@pytest.fixture
async def echo_page(echo: Served) -> AsyncIterator[Browser]:
    """A gateway to the service with the shipped pipeline `echo`."""
    async with browsed(echo.address) as browser:
        yield browser


async def test_the_local_model_streams_through_the_gateway() -> None:
    """A browser reads a real model's answer as it is generated."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    frames: list[ServerSentEvent] = []
    async with (
        served(SHIPPED) as running,
        browsed(running.address) as browser,
        httpx_sse.aconnect_sse(browser.http, "POST", "/chat", json={"query": "Why is the sky blue?"}) as source,
    ):
        async for frame in source.aiter_sse():
            frames.append(frame)
            times.append(loop.time())
            if sum(frame.event == "data" for frame in frames) == 3:
                assert next(iter(running.runs)).ending is None  # the model is still at it
    texts = [when for when, frame in zip(times, frames, strict=True) if frame.event == "data"]
    assert len(texts) > 5
    assert texts[0] < texts[-1] < times[-1]
    assert [frames[0].event, frames[-1].event] == ["metadata", "end"]
    reply = json.loads(frames[-1].data)["outputs"]["llm"]["replies"][0]
    assert text_of(frames) == reply["content"][0]["text"] != ""


async def test_frames_are_those_of_the_contract(echo_page: Browser) -> None:
    """Names, ids and headers, to the letter."""
    async with echo_page.http.stream("POST", "/chat", json={"query": "one two", "run_id": "r-1"}) as response:
        raw = (await response.aread()).decode()
    assert response.headers["content-type"] == "text/event-stream"  # alone: handlers compare it
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    frames = raw.split("\n\n")
    assert frames[0] == 'event: metadata\ndata: {"run_id":"r-1","pipeline":"echo"}\nid: r-1:1'
    assert frames[1] == 'event: data\ndata: "one two"\nid: r-1:3'
    end = frames[2].split("\n")
    assert [end[0], end[2]] == ["event: end", "id: r-1:4"]
    assert frames[3:] == [""]
    ending = json.loads(end[1].removeprefix("data: "))
    assert ending["reason"] == "STOP"
    usage = {"component": "llm", "model": "mock-model", "prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
    assert ending["usage"] == [usage]
    assert ending["outputs"]["llm"]["replies"][0]["content"] == [{"text": "one two"}]
    assert '"total_tokens":4}' in end[1]  # whole numbers stay whole


@pytest.mark.parametrize(
    "question", ["lines\nand\r\nmore\rof them", "漢字 🙂 \u2028\u2029\x00\x85 end", "data: x\n\nid: y"]
)
async def test_any_text_survives_the_way(echo_page: Browser, question: str) -> None:
    """No character of an answer can end a line, an event or the stream."""
    assert text_of(await frames_of(echo_page, query=question)) == question


async def test_a_bare_event_source_can_ask(echo_page: Browser) -> None:
    """It can only GET."""
    async with httpx_sse.aconnect_sse(echo_page.http, "GET", "/chat", params={"query": "hi there"}) as source:
        frames = [frame async for frame in source.aiter_sse()]
    assert text_of(frames) == "hi there"
    assert frames[-1].event == "end"


async def test_a_page_of_another_site_starts_no_run(page: Browser, stage: Stage) -> None:
    """Browsers say where a request comes from; the address of an image would be enough otherwise."""
    answer = await page.http.get("/chat", params={"query": "q"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, answer.json()["reason"]) == (403, "CROSS_SITE")
    assert stage.received == []


@pytest.mark.parametrize(
    ("event", "name", "data"),
    [
        (
            chat_pb2.Event(seq=2, reasoning=chat_pb2.ReasoningDelta(component="llm", delta="Hm")),
            "reasoning",
            {"component": "llm", "index": 0, "delta": "Hm"},
        ),
        (
            chat_pb2.Event(seq=2, tool_call=chat_pb2.ToolCallDelta(component="llm", id="c", name="search")),
            "tool_call",
            {"component": "llm", "index": 0, "id": "c", "name": "search", "arguments_delta": ""},
        ),
        (
            chat_pb2.Event(seq=2, tool_result=chat_pb2.ToolResult(component="llm", id="c", name="search", result="3")),
            "tool_result",
            {"component": "llm", "id": "c", "name": "search", "result": "3", "is_error": False, "truncated": False},
        ),
        (
            chat_pb2.Event(seq=2, documents=chat_pb2.Documents(component="finder", documents=[FOUND])),
            "documents",
            {
                "component": "finder",
                "documents": [
                    {"id": "d", "content": "c", "score": 0.5, "meta": {"page": 3, "weight": 0.5}, "truncated": False}
                ],
            },
        ),
        (chat_pb2.Event(seq=9, gap=chat_pb2.Gap(from_seq=2, to_seq=9)), "gap", {"from_seq": 2, "to_seq": 9}),
    ],
)
def test_other_kinds_of_events_are_frames_of_their_name(event: chat_pb2.Event, name: str, data: dict[str, Any]) -> None:
    """With all of their fields, zeros included."""
    lines = event_frame("r", event).decode().split("\n")
    assert [lines[0], lines[2]] == [f"event: {name}", f"id: r:{event.seq}"]
    assert json.loads(lines[1].removeprefix("data: ")) == data
    assert "3.0" not in lines[1]  # whole numbers stay whole


async def test_messages_and_settings_reach_the_pipeline(page: Browser, stage: Stage) -> None:
    """The JSON of a browser becomes the request of the contract."""
    stage.proceed.set()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
    await frames_of(
        page, messages=messages, pipeline="fake", inputs={"llm": {"top_k": 4}}, generation_kwargs={"max_tokens": 9}
    )
    assert stage.received == [{"query": "Hello?", "generation_kwargs": {"max_tokens": 9}, "top_k": 4}]


async def test_a_failure_in_the_middle_is_the_last_frame(page: Browser, stage: Stage) -> None:
    """The words before it arrive, and the error says what to do."""
    stage.chunks, stage.error = 2, TimeoutError("sk-secret")
    stage.proceed.set()
    frames = await frames_of(page, query="q", run_id="r-2")
    assert text_of(frames) == "word word "
    assert frames[-1].event == "error"
    assert frames[-1].id == "r-2:4"  # a number of its own, so that who comes back with it has all
    assert json.loads(frames[-1].data) == {
        "code": "DEADLINE_EXCEEDED",
        "reason": "PROVIDER_TIMEOUT",
        "message": "the model's provider did not answer in time",
        "retryable": False,
        "run_id": "r-2",
        "last_seq": 3,
    }


async def test_silence_is_filled_with_comments(stage: Stage) -> None:
    """Proxies cut silence; a comment is no event, also for a reader that has seen an id."""
    stage.chunks = 1
    async with (
        served(default_pipeline="fake", heartbeat_seconds=0.05) as running,
        browsed(running.address) as browser,
        browser.http.stream("GET", "/chat?query=q") as response,
    ):
        raw = ""
        async for piece in response.aiter_text():
            raw += piece
            if raw.count(": ping") == 2:
                stage.proceed.set()
    assert ": ping\n: ping\n" in raw
    assert ": ping\n\n" not in raw
    whole = httpx.Response(200, headers={"content-type": "text/event-stream"}, text=raw)
    events = [frame.event for frame in httpx_sse.EventSource(whole).iter_sse()]
    assert events == ["metadata", "data", "end"]


async def test_a_gateway_that_shuts_down_tells_its_readers_to_come_back(fake: Served, stage: Stage) -> None:
    """Open streams end with a retryable error rather than a broken connection."""
    stage.chunks = 1
    frames: list[ServerSentEvent] = []
    async with browsed(fake.address) as browser:
        async with httpx_sse.aconnect_sse(browser.http, "POST", "/chat", json={"query": "q"}) as source:
            async for frame in source.aiter_sse():
                frames.append(frame)
                if frame.event == "data":
                    browser.gateway.streams.drain()
    assert frames[-1].event == "error"
    error = json.loads(frames[-1].data)
    assert (error["reason"], error["retryable"]) == ("DRAINING", True)


async def test_a_gateway_without_its_service_lives_and_says_what_is_missing() -> None:
    """It starts when the service is down, and finds it by itself when it comes."""
    async with browsed("127.0.0.1:1") as browser:
        answers = [
            await browser.http.get("/livez"),
            await browser.http.get("/readyz"),
            await browser.http.post("/chat", json={"query": "q"}),
            await browser.http.get("/pipelines"),
        ]
    assert [answer.status_code for answer in answers] == [200, 503, 503, 503]
    for answer in answers[1:]:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        assert problem["reason"] == "SERVICE_UNREACHABLE"
        assert problem["retryable"]
        assert "127.0.0.1" not in answer.text


async def test_readiness_is_that_of_the_service(page: Browser) -> None:
    """With pipelines warm it is ready."""
    assert (await page.http.get("/readyz")).json() == {"status": "ready"}


async def test_pipelines_are_listed_and_described(page: Browser) -> None:
    """What a page needs in order to offer them."""
    listed = (await page.http.get("/pipelines")).json()
    assert [pipeline["name"] for pipeline in listed["pipelines"]] == [
        "agent",
        "agent_threaded",
        "contrary",
        "failing_second",
        "fake",
        "finder",
        "pair",
        "threaded",
    ]
    assert listed["default_pipeline"] == "fake"
    assert listed["pipelines"][4] == {
        "name": "fake",
        "description": "What the test's stage says.",
        "ready": True,
        "error": "",
    }
    described = (await page.http.get("/pipelines/fake")).json()
    assert described["streaming_components"] == ["llm"]
    assert described["inputs_schema"]["properties"]["llm"]["properties"]["top_k"] == {"type": "integer", "default": 3}
    assert described["haystack_version"] == metadata.version("haystack-ai")
    assert described["cancellation"] == "CANCELLATION_IMMEDIATE"
    assert described["graph"].startswith("flowchart TD")
    assert (await page.http.get("/pipelines/nobody")).status_code == 404


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        (b"", 422, "body"),
        (b'{"query": ', 422, "body"),
        (b'{"query": "\xff"}', 422, "body"),
        (b'{"query": "\\ud800"}', 422, "body"),
        (b"[]", 422, "body"),
        (b"{}", 422, "query"),
        (b'{"query": ""}', 422, "query"),
        (b'{"query": 3}', 422, "query"),
        (b'{"query": "q", "messages": []}', 422, "query"),
        (b'{"messages": []}', 422, "messages"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', 422, "messages.0.role"),
        (b'{"query": "q", "questions": 1}', 422, "questions"),
        (b'{"query": "q", "inputs": {"nobody": {}}}', 422, "inputs.nobody"),
        (b'{"query": "q", "inputs": {"llm": {"streaming_callback": 1}}}', 422, "inputs.llm.streaming_callback"),
        (b'{"query": "q", "streaming_components": ["nobody"]}', 422, "streaming_components[0]"),
        (b'{"query": "q", "run_id": "a b"}', 422, "run_id"),
        (b'{"query": "q", "generation_kwargs": {"seed": ' + b"9" * 400 + b"}}", 422, "generation_kwargs"),
        (b'{"query": "q", "inputs": {"llm": {"top_k": ' + b"[" * 90 + b"]" * 90 + b"}}}", 422, "inputs"),
        (b'{"query": "q", "pipeline": "nobody"}', 404, "pipeline"),
        (b'{"query": "' + b"x" * (4 * MIB + 100) + b'"}', 422, "query"),
        (b'{"query": "' + b"x" * (6 * MIB) + b'"}', 413, "body"),
    ],
)
async def test_a_wrong_request_is_a_problem_that_names_the_field(
    page: Browser, stage: Stage, content: bytes, status: int, field: str
) -> None:
    """Nothing is started, and the status tells whose fault it is."""
    answer = await page.http.post("/chat", content=content, headers={"content-type": "application/json"})
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert stage.received == []


async def test_other_wrong_requests_are_problems_too(page: Browser) -> None:
    """No address answers in a form of its own."""
    answers = [
        await page.http.post(
            "/chat", content=b"query=q", headers={"content-type": "application/x-www-form-urlencoded"}
        ),
        await page.http.get("/chat"),
        await page.http.get("/nowhere"),
        await page.http.delete("/chat"),
    ]
    assert [answer.status_code for answer in answers] == [415, 422, 404, 405]
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}


async def test_too_many_runs_are_a_429_that_says_when_to_come_back(stage: Stage) -> None:
    """The service's RetryInfo becomes the header that HTTP clients know."""
    async with served(default_pipeline="fake", max_runs=1) as running, browsed(running.address) as browser:
        async with httpx_sse.aconnect_sse(browser.http, "GET", "/chat", params={"query": "q"}) as source:
            frames = source.aiter_sse()  # held: the stream ends with its iterator
            await anext(frames)
            answer = await browser.http.post("/chat", json={"query": "q"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["reason"] == "TOO_MANY_RUNS"


@pytest.mark.parametrize(("wait", "told"), [(0.0, "1"), (0.3, "1"), (1.0, "1"), (1.4, "2"), (2.5, "3"), (30.0, "30")])
def test_who_is_told_when_to_come_back_is_never_too_early(wait: float, told: str) -> None:
    """Whole seconds, rounded up."""
    assert Problem(Code.UNAVAILABLE, "WORDS", "words", retry_seconds=wait).headers["Retry-After"] == told


async def test_the_page_loads_nothing_from_elsewhere(page: Browser) -> None:
    """Its policy forbids it, and it does not try."""
    answer = await page.http.get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    names = [path.name for path in FOLDER.iterdir()]
    assert {"index.html", "playground.js", "playground.css"} <= set(names)
    for name in names:
        text = (await page.http.get(f"/{name}")).raise_for_status().text
        assert "//" not in text.replace("// ", "").replace("http://www.w3.org/2000/svg", ""), name
