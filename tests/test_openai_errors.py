"""Errors in OpenAI's shape: raised by its clients as their own, and tried again only where that may help."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import grpc
import openai
import pytest
from llmock.pytest_plugin import LLMock

from haystream.v1 import chat_pb2
from haystream_service.errors import Violation
from haystream_service.status import Status
from tests.conftest import SHIPPED, Browser, browsed, served
from tests.openai_clients import QUESTION, asked, chunks_of, client_of, content_of, frames_of
from tests.scripted import STARTED, Scripted, behind_gateway, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx2

    from tests.fakes import Stage

Code = grpc.StatusCode
STREAMED_OR_NOT = pytest.mark.parametrize("stream", [False, True], ids=["in one piece", "streamed"])
SECRET = "sk-secret /srv/pipelines/fake.py"  # noqa: S105 - what must not be seen


@pytest.fixture
def openai_folder(tmp_path: Path, llmock: LLMock, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped pipeline `openai`, in front of a provider that is asked once."""
    monkeypatch.setenv("OPENAI_MAX_RETRIES", "0")
    llmock.tool_mode("off")
    shutil.copy(SHIPPED / "openai.py", tmp_path)
    return tmp_path


def rate_limit(mock: LLMock) -> None:
    """Have no room for three seconds."""
    mock.rate_limit(retry_after=3)


def outage(mock: LLMock) -> None:
    """Break down."""
    mock.fail(500)


def wrong_key(mock: LLMock) -> None:
    """Refuse the key."""
    mock.fail(401)


async def error_of(browser: Browser, **body: Any) -> openai.APIStatusError:
    """Have OpenAI's client be refused."""
    async with client_of(browser) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await asked(client, **body)
    return caught.value


@STREAMED_OR_NOT
@pytest.mark.parametrize(
    ("code", "error_type", "status", "kind", "retry_seconds"),
    [
        (Code.INVALID_ARGUMENT, openai.BadRequestError, 400, "invalid_request_error", None),
        (Code.FAILED_PRECONDITION, openai.BadRequestError, 400, "invalid_request_error", None),
        (Code.UNAUTHENTICATED, openai.AuthenticationError, 401, "authentication_error", None),
        (Code.PERMISSION_DENIED, openai.PermissionDeniedError, 403, "permission_error", None),
        (Code.NOT_FOUND, openai.NotFoundError, 404, "invalid_request_error", None),
        (Code.ALREADY_EXISTS, openai.ConflictError, 409, "invalid_request_error", None),
        (Code.ABORTED, openai.ConflictError, 409, "invalid_request_error", 7.0),
        (Code.RESOURCE_EXHAUSTED, openai.RateLimitError, 429, "rate_limit_error", 7.0),
        (Code.INTERNAL, openai.InternalServerError, 500, "server_error", None),
        (Code.UNIMPLEMENTED, openai.InternalServerError, 501, "server_error", None),
        (Code.RESOURCE_EXHAUSTED, openai.RateLimitError, 429, "rate_limit_error", None),
        (Code.UNAVAILABLE, openai.InternalServerError, 503, "server_error", 7.0),
        (Code.UNAVAILABLE, openai.InternalServerError, 503, "server_error", None),
        (Code.DEADLINE_EXCEEDED, openai.InternalServerError, 504, "server_error", None),
    ],
)
async def test_every_status_is_an_error_of_the_clients_own(
    code: grpc.StatusCode,
    error_type: type[openai.APIStatusError],
    status: int,
    kind: str,
    retry_seconds: float | None,
    stream: bool,
) -> None:
    """With the words of the service, its reason as the code, and whether it may be tried again."""
    service = Scripted([STARTED], Status(code, "SOME_REASON", "in some words", retry_seconds))
    async with behind_gateway(service) as browser:
        error = await error_of(browser, stream=stream)
    assert type(error) is error_type
    assert error.status_code == status
    assert error.body == {"message": "in some words", "type": kind, "param": None, "code": "some_reason"}
    headers = (error.response.headers.get("retry-after"), error.response.headers["x-should-retry"])
    assert headers == ((None, "false") if retry_seconds is None else ("7", "true"))


@STREAMED_OR_NOT
@pytest.mark.parametrize(
    ("fault", "error_type", "code", "retry_after"),
    [
        (rate_limit, openai.RateLimitError, "provider_busy", "3"),
        (outage, openai.InternalServerError, "provider_unavailable", "1"),
        (wrong_key, openai.BadRequestError, "provider_auth", None),
        (LLMock.context_overflow, openai.BadRequestError, "provider_rejected", None),
    ],
)
async def test_a_provider_that_refuses_is_a_status_also_of_a_stream(
    openai_folder: Path,
    llmock: LLMock,
    stream: bool,
    fault: Callable[[LLMock], object],
    error_type: type[openai.APIStatusError],
    code: str,
    retry_after: str | None,
) -> None:
    """Since nothing is sent before the first word."""
    fault(llmock)
    async with served(openai_folder) as running, browsed(running.address) as browser:
        error = await error_of(browser, model="openai", stream=stream)
    assert (type(error), error.code) == (error_type, code)
    assert error.response.headers.get("retry-after") == retry_after
    assert "openai.com" not in str(error)


@STREAMED_OR_NOT
async def test_a_service_that_is_full_says_when_to_come_back(stage: Stage, stream: bool) -> None:
    """To clients that do not try again by themselves."""
    async with served(default_pipeline="fake", max_runs=1) as running, browsed(running.address) as browser:
        async with browser.http.stream("POST", "/chat", json={"query": "q"}):
            await stage.waiting.wait()
            error = await error_of(browser, stream=stream)
            stage.proceed.set()
    assert (type(error), error.code) == (openai.RateLimitError, "too_many_runs")
    assert error.response.headers["retry-after"] == "1"


@STREAMED_OR_NOT
async def test_the_client_comes_back_to_a_service_that_was_full(stage: Stage, stream: bool) -> None:
    """By itself, after the time that it is told."""
    stage.chunks = 1
    answers: list[int] = []

    async def make_room(answer: httpx2.Response) -> None:
        answers.append(answer.status_code)
        stage.proceed.set()

    async with served(default_pipeline="fake", max_runs=1) as running, browsed(running.address) as browser:
        http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [make_room]})
        async with browser.http.stream("POST", "/chat", json={"query": "q"}) as other:
            await stage.waiting.wait()
            async with client_of(browser, max_retries=2, http_client=http) as client:
                task = asked(client, stream=stream)
                async for _ in other.aiter_raw():
                    pass
                answer = await task
                said = content_of([c async for c in answer]) if stream else answer.choices[0].message.content
    assert said == "word "
    assert answers == [429, 200]


@STREAMED_OR_NOT
async def test_a_run_that_failed_is_not_started_again(page: Browser, stage: Stage, stream: bool) -> None:
    """OpenAI's client would try any 5xx again, and the question would be billed once more."""
    stage.error = RuntimeError(SECRET)
    stage.proceed.set()
    async with client_of(page, max_retries=3) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="fake", messages=QUESTION, stream=stream)
    assert caught.value.code == "component_failed"
    assert "sk-secret" not in caught.value.response.text
    assert "/srv" not in caught.value.response.text
    assert len(stage.received) == 1


async def test_a_failure_in_the_middle_is_the_last_frame(page: Browser, stage: Stage) -> None:
    """In OpenAI's shape: its client raises what says so. No reason and no `[DONE]` make it look complete."""
    stage.chunks = 2
    stage.error = RuntimeError(SECRET)
    stage.proceed.set()
    *chunks, last = await frames_of(page)
    assert not any("finish_reason" in chunk and '"finish_reason":null' not in chunk for chunk in chunks)
    assert json.loads(last) == {
        "error": {
            "message": "a component of the pipeline failed; the service's log has the details",
            "type": "server_error",
            "param": None,
            "code": "component_failed",
        }
    }
    with pytest.raises(openai.APIError) as caught:
        await chunks_of(page)
    assert caught.value.code == "component_failed"


async def test_a_completion_that_fails_in_the_middle_is_a_status(page: Browser, stage: Stage) -> None:
    """And no half of an answer."""
    stage.chunks = 2
    stage.error = RuntimeError(SECRET)
    stage.proceed.set()
    assert (await error_of(page)).status_code == 500


@STREAMED_OR_NOT
async def test_an_unknown_model_is_not_found(page: Browser, stream: bool) -> None:
    """As at OpenAI."""
    error = await error_of(page, model="nope", stream=stream)
    assert (type(error), error.code, error.param) == (openai.NotFoundError, "model_not_found", "model")
    assert error.message.startswith("Error code: 404 - model: there is no 'nope'; this service has agent")


async def test_a_key_that_is_missing_is_asked_for_where_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is not where the gateway's other clients send it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    shutil.copy(SHIPPED / "openai.py", tmp_path)
    async with served(tmp_path) as running, browsed(running.address) as browser:
        error = await error_of(browser, model="openai")
    assert (error.status_code, error.code, error.param) == (400, "api_key_required", "haystream.api_key")
    assert "`haystream.api_key`" in str(error)


async def test_a_run_id_that_is_taken_is_a_conflict(page: Browser, stage: Stage) -> None:
    """By another question."""
    stage.proceed.set()
    body: Any = {"haystream": {"run_id": "mine"}}
    async with client_of(page) as client:
        await client.chat.completions.create(model="fake", messages=QUESTION, extra_body=body)
    error = await error_of(page, messages=[{"role": "user", "content": "Why not?"}], extra_body=body)
    assert (type(error), error.code, error.param) == (openai.ConflictError, "run_exists", "haystream.run_id")


async def test_a_service_that_is_away_is_a_503() -> None:
    """Worth another try; and its address is nobody's business."""
    async with browsed("127.0.0.1:1") as browser:
        error = await error_of(browser)
        listed = await browser.http.get("/v1/models")
    assert (error.status_code, error.code) == (503, "service_unreachable")
    assert error.response.headers["x-should-retry"] == "true"
    assert "127.0.0.1" not in str(error)
    assert (listed.status_code, listed.json()["error"]["code"]) == (503, "service_unreachable")


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/v1", 404, "no_such_address", None),
        ("GET", "/v1/", 404, "no_such_address", None),
        ("POST", "/v1/embeddings", 404, "no_such_address", None),
        ("DELETE", "/v1/models/a/b", 404, "no_such_address", None),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed", "POST"),
        ("DELETE", "/v1/models/fake", 405, "method_not_allowed", "GET"),
        ("PROPFIND", "/v1/chat/completions", 405, "method_not_allowed", "POST"),
        ("PROPFIND", "/v1/coffee", 405, "method_not_allowed", None),
    ],
)
async def test_all_of_v1_answers_in_openais_shape(
    page: Browser, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    """Where there is nothing, too."""
    answer = await page.http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-should-retry"] == "false"
    if allow is not None:
        assert answer.headers["allow"] == allow


async def test_the_other_addresses_keep_their_own_shape(page: Browser) -> None:
    """A problem document, also where the address only begins like this dialect's."""
    for path in ("/v1x", "/pipelines/nope"):
        answer = await page.http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_a_stream_without_an_ending_is_no_completion() -> None:
    """However much of it was said."""
    service = Scripted([text("x"), STARTED])  # and then nothing: no ending
    async with behind_gateway(service) as browser:
        error = await error_of(browser)
    assert (error.status_code, error.code) == (500, "internal")


@STREAMED_OR_NOT
async def test_a_defect_of_the_gateways_own_has_fixed_words(stream: bool) -> None:
    """In OpenAI's shape as well; its story is in the log alone."""
    found = chat_pb2.Event(seq=2, documents=chat_pb2.Documents(component="finder"))
    found.documents.documents.add().meta.update({"score": math.nan})  # no JSON has it, and no service sends it
    async with behind_gateway(Scripted([STARTED, found])) as browser, client_of(browser) as client:
        with pytest.raises(openai.APIError) as caught:
            answer = await asked(client, stream=stream)
            async for _ in answer:
                pass
    assert (caught.value.code, caught.value.type) == ("internal", "server_error")
    assert caught.value.message.endswith("the gateway has a defect here; its log has the details")


async def test_a_field_of_the_contract_is_named_as_openais_callers_send_it() -> None:
    """Several at once, each by its name."""
    violations = [
        Violation("conversation.messages[1].parts[0].image.url", "expected https"),
        Violation("generation_kwargs", "the limit of generation_kwargs.seed here is maximum: 3"),
        Violation("inputs.llm.top_k", "expected an integer"),
    ]
    status = Status(Code.INVALID_ARGUMENT, "INVALID_REQUEST", "all of it", violations=violations)
    async with behind_gateway(Scripted([], status)) as browser:
        error = await error_of(browser, temperature=1, seed=5)
    assert error.param == "messages[1].content[0].image_url.url"
    assert error.response.json()["error"]["message"] == (
        "messages[1].content[0].image_url.url: expected https; "
        "seed: the limit of generation_kwargs.seed here is maximum: 3; "
        "haystream.inputs.llm.top_k: expected an integer"
    )
