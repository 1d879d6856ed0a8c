"""On whose behalf the gateway calls the service: its callers' own tokens, and its own for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog
from pydantic import ValidationError

from haystream_gateway.credentials import CredentialsUnusable
from haystream_gateway.settings import Settings, complaint_about
from tests.conftest import browsed
from tests.encrypted import Certs, identified, trusting
from tests.encrypted import certs as certs  # noqa: PLC0414 - a fixture
from tests.frames import frames_of
from tests.scripted import Scripted, behind_gateway
from tools.certs import write

if TYPE_CHECKING:
    from pathlib import Path

COMPLETION = {"model": "echo", "messages": [{"role": "user", "content": "q"}]}


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the gateway's own token."""
    path = tmp_path / "token"
    path.write_text("own-secret\n")
    return path


async def test_a_caller_who_brings_no_token_is_vouched_for_by_the_gateways(token_file: Path) -> None:
    """For each kind of call."""
    service = Scripted()
    async with behind_gateway(service, gateway_token_file=token_file) as browser:
        await frames_of(browser, query="q")
        await browser.http.post("/v1/chat/completions", json=COMPLETION)
        await browser.http.get("/runs/r-1/events")
        await browser.http.post("/runs/r-1/cancel")
        await browser.http.get("/pipelines")
        await browser.http.get("/pipelines/echo")
    assert [metadata["authorization"] for metadata in service.metadata] == ["Bearer own-secret"] * 6


async def test_a_callers_own_token_goes_on_as_it_is(token_file: Path) -> None:
    """The gateway lends its own to nobody who says who they are."""
    service = Scripted()
    async with behind_gateway(service, gateway_token_file=token_file) as browser:
        for credentials in ("Bearer theirs", "Basic theirs"):
            await browser.http.get("/pipelines", headers={"Authorization": credentials})
    assert [metadata["authorization"] for metadata in service.metadata] == ["Bearer theirs", "Basic theirs"]


async def test_a_bearer_that_is_a_key_of_the_provider_says_not_who_calls(token_file: Path) -> None:
    """So the gateway does, and the key goes where keys go."""
    service = Scripted()
    async with behind_gateway(service, gateway_token_file=token_file, gateway_bearer_is_api_key=True) as browser:
        headers = {"Authorization": "Bearer sk-theirs"}
        await browser.http.post("/v1/chat/completions", json=COMPLETION, headers=headers)
    assert [metadata["authorization"] for metadata in service.metadata] == ["Bearer own-secret"]
    assert [request.api_key for request in service.requests] == ["sk-theirs"]


async def test_without_a_token_nobody_is_vouched_for() -> None:
    """The service decides about callers who say nothing."""
    service = Scripted()
    async with behind_gateway(service) as browser:
        await browser.http.get("/pipelines")
    assert ["authorization" in metadata for metadata in service.metadata] == [False]


async def test_a_new_token_is_used_from_the_next_call_on(token_file: Path) -> None:
    """One that is none leaves the one before, which the log says once. No line shows either."""
    service = Scripted()
    async with behind_gateway(service, gateway_token_file=token_file) as browser:
        with structlog.testing.capture_logs() as lines:
            for content in ("own-secret", "new-secret-2", "two secrets", "", "newer-secret-3"):
                write(token_file, content.encode(), 0o600)
                for _ in range(2):
                    await browser.http.get("/pipelines")
    told = [metadata["authorization"].removeprefix("Bearer ") for metadata in service.metadata]
    assert told == [*["own-secret"] * 2, *["new-secret-2"] * 6, *["newer-secret-3"] * 2]
    problems = [line["problem"] for line in lines if "problem" in line]
    assert [problem.split(" ")[0] for problem in problems] == ["HAYSTREAM_GATEWAY_TOKEN_FILE:"] * 2
    assert "secret" not in str(lines)


@pytest.mark.parametrize("content", [None, "", "two words", "ümlaut", "x" * 8001])
async def test_a_file_that_holds_no_token_is_refused_at_the_start(tmp_path: Path, content: str | None) -> None:
    """In one line, which does not show what it holds."""
    path = tmp_path / "none"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CredentialsUnusable) as caught:
        async with browsed("127.0.0.1:1", gateway_token_file=path):
            pass
    assert str(caught.value).startswith(f"HAYSTREAM_GATEWAY_TOKEN_FILE: {path} ")
    assert not content or content not in str(caught.value)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "gateway.internal:0", "192.0.2.7:8000"])
@pytest.mark.parametrize("identity", ["token", "certificate"])
def test_a_gateway_that_others_reach_does_not_start_as_an_open_relay(listen: str, identity: str, certs: Certs) -> None:
    """One line names the address, and how to say that it is meant."""
    own = {"gateway_token_file": "token"} if identity == "token" else identified(certs)
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"gateway_listen": listen, **own})
    complaint = complaint_about(caught.value)
    assert complaint.startswith(f"HAYSTREAM_GATEWAY_LISTEN: whoever reaches {listen} ")
    assert "HAYSTREAM_GATEWAY_ALLOW_UNAUTHENTICATED=true" in complaint
    assert "\n" not in complaint
    Settings.model_validate({"gateway_listen": listen, **own, "gateway_allow_unauthenticated": True})
    Settings.model_validate({"gateway_listen": listen, **trusting(certs)})


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_on_the_loopback_a_gateway_may_lend_its_identity(listen: str) -> None:
    """As anybody on the machine could read its token."""
    assert not Settings.model_validate({"gateway_listen": listen, "gateway_token_file": "token"}).is_open_relay


async def test_a_relay_that_is_meant_is_warned_of(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, with the address; of the loopback there is nothing to say."""
    with structlog.testing.capture_logs() as lines:
        async with browsed("127.0.0.1:1", gateway_token_file=token_file):
            pass
        assert lines == []
        monkeypatch.setattr(Settings, "is_open_relay", property(lambda _: True))  # nothing here binds to the world
        async with browsed("127.0.0.1:1", gateway_token_file=token_file, gateway_allow_unauthenticated=True):
            pass
    (line,) = lines
    assert (line["log_level"], line["address"]) == ("warning", "127.0.0.1:0")
