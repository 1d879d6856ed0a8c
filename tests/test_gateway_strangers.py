"""A gateway that others than its own machine reach, before a service that asks nobody who they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from haystream_gateway import strangers
from haystream_gateway.settings import Settings
from tests.conftest import browsed, served
from tests.frames import frames_of
from tests.openai_clients import QUESTION
from tests.scripted import Scripted, behind_gateway, scripted
from tests.test_authentication import TOKEN, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import EventDict

    from haystream.v1 import chat_pb2
    from tests.conftest import Browser, Served
    from tests.fakes import Stage

CURE = "HAYSTREAM_GATEWAY_ALLOW_UNAUTHENTICATED=true"
KNOWN = {"Authorization": "Bearer me"}


class Asking(Scripted):
    """A service that wants to know who calls, as long as it is told to."""

    asks: bool = True
    code = grpc.StatusCode.UNAUTHENTICATED

    async def ListPipelines(
        self, request: chat_pb2.ListPipelinesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> chat_pb2.ListPipelinesResponse:
        response = await super().ListPipelines(request, context)
        if self.asks and "authorization" not in self.metadata[-1]:
            await context.abort(self.code, "who are you?")
        return response


@pytest.fixture
def _reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others reach the gateway, or so it seems: nothing here binds to the world."""
    monkeypatch.setattr(Settings, "is_for_strangers", property(lambda it: not it.gateway_allow_unauthenticated))


async def answers_of(browser: Browser) -> dict[str, tuple[int, str]]:
    """Return status and reason of every way to the service."""
    completion = {"model": "fake", "messages": QUESTION}
    answers = [
        await browser.http.post("/chat", json={"query": "q"}),
        await browser.http.get("/chat?query=q"),
        await browser.http.get("/runs/r/events"),
        await browser.http.post("/runs/r/cancel"),
        await browser.http.get("/pipelines"),
        await browser.http.get("/pipelines/fake"),
        await browser.http.post("/v1/chat/completions", json=completion),
        await browser.http.get("/v1/models"),
        await browser.http.get("/v1/models/fake"),
        await browser.http.get("/readyz"),
    ]
    found: dict[str, tuple[int, str]] = {}
    for answer in answers:
        body = answer.json()
        reason = body["error"]["code"].upper() if "error" in body else body["reason"]
        found[f"{answer.request.method} {answer.request.url.path}"] = answer.status_code, reason
        assert CURE in answer.text
    return found


@pytest.mark.usefixtures("_reached")
async def test_nothing_is_passed_on_to_a_service_that_asks_nobody(
    fake: Served, stage: Stage, lines: list[EventDict]
) -> None:
    """Whatever is asked, and whoever says that he is somebody; one line of the log names the setting."""
    lines.clear()  # the service's
    async with browsed(fake.address) as browser:
        answers = await answers_of(browser)
        vouched = await browser.http.post("/chat", json={"query": "q"}, headers=KNOWN)
        alive = await browser.http.get("/livez")
    assert len(answers) == 10
    assert set(answers.values()) == {(503, "SERVICE_ASKS_NOBODY")}
    assert (vouched.status_code, vouched.json()["retryable"], alive.status_code) == (503, False, 200)
    assert stage.received == []
    assert lines[0]["event"] == "a service that asks nobody who they are is not called from here"
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert CURE in line["cure"]


@pytest.mark.usefixtures("_reached")
async def test_a_service_that_asks_is_called_for_those_whom_it_knows(tmp_path: Path, stage: Stage) -> None:
    """By their token, and by nothing of the gateway's own."""
    stage.proceed.set()
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text(f'principals: {{ada: {{tokens: ["{sha256_of(TOKEN)}"]}}}}')
    async with served(default_pipeline="fake", tokens_file=tokens) as running, browsed(running.address) as browser:
        unknown = await browser.http.post("/chat", json={"query": "q"})
        ready = await browser.http.get("/readyz")
        browser.http.headers["Authorization"] = f"Bearer {TOKEN}"
        frames = await frames_of(browser, query="q")
    assert (unknown.status_code, unknown.json()["reason"]) == (401, "CREDENTIALS_MISSING")
    assert (ready.status_code, frames[-1].event) == (200, "end")


@pytest.mark.usefixtures("_reached")
async def test_where_it_is_meant_anybody_gets_through(fake: Served, stage: Stage) -> None:
    """One setting says so."""
    stage.proceed.set()
    async with browsed(fake.address, gateway_allow_unauthenticated=True) as browser:
        assert (await frames_of(browser, query="q"))[-1].event == "end"
        assert (await browser.http.get("/readyz")).status_code == 200


@pytest.mark.usefixtures("_reached")
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
async def test_the_service_is_asked_once_in_a_while(code: grpc.StatusCode) -> None:
    """Not before each call, and with no credentials at all; what stands before a service may refuse in its place."""
    service = Asking()
    service.code = code
    async with behind_gateway(service) as browser:
        for _ in range(5):
            await browser.http.get("/pipelines/any", headers=KNOWN)
    assert ["authorization" in metadata for metadata in service.metadata] == [False, *[True] * 5]


@pytest.mark.usefixtures("_reached")
async def test_a_service_that_asks_no_more_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when another was started in its place; and one that asks again is called again, at once."""
    monkeypatch.setattr(strangers, "ASKED_SECONDS", 0)
    service = Asking()
    statuses: list[int] = []
    with structlog.testing.capture_logs() as lines:
        async with behind_gateway(service) as browser:
            for asks in (True, False, False, True, False):
                service.asks = asks
                statuses.append((await browser.http.get("/pipelines/any", headers=KNOWN)).status_code)
    assert statuses == [200, 503, 503, 200, 503]
    assert [line["log_level"] for line in lines if "cure" in line] == ["error"] * 2


@pytest.mark.usefixtures("_reached")
async def test_a_service_that_does_not_answer_is_asked_again() -> None:
    """It may not be up yet: its callers are told so, and nothing is known of it then."""
    async with scripted(Scripted()) as address:
        pass
    async with browsed(address) as browser:
        away = await browser.http.get("/pipelines", headers=KNOWN)
        assert (away.status_code, away.json()["reason"]) == (503, "SERVICE_UNREACHABLE")
        service = Asking()
        service.asks = False
        async with scripted(service, port=int(address.rpartition(":")[2])):
            while away.json()["reason"] == "SERVICE_UNREACHABLE":  # the channel tries again after a while
                away = await browser.http.get("/pipelines", headers=KNOWN)
            service.asks = True
            back = await browser.http.get("/pipelines", headers=KNOWN)
    assert (away.json()["reason"], back.status_code) == ("SERVICE_ASKS_NOBODY", 200)


@pytest.mark.parametrize(
    ("listen", "allowed", "asks"),
    [
        ("127.0.0.1:8000", False, False),
        ("[::1]:8000", False, False),
        ("localhost:8000", False, False),
        ("0.0.0.0:8000", False, True),
        ("gateway.internal:8000", False, True),
        ("0.0.0.0:8000", True, False),
    ],
)
def test_on_the_loopback_nobody_is_a_stranger(listen: str, allowed: bool, asks: bool) -> None:
    """As the service itself has it."""
    settings = Settings(gateway_listen=listen, gateway_allow_unauthenticated=allowed)
    assert settings.is_for_strangers is asks


async def test_on_the_loopback_the_service_is_asked_nothing() -> None:
    """Of its own accord the gateway makes no call."""
    service = Asking()
    async with behind_gateway(service) as browser:
        await browser.http.get("/pipelines/any")
    assert len(service.metadata) == 1
