"""Completions in one piece, models, and what the service learns of its callers, asked by OpenAI's own clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion

from haystream.v1 import chat_pb2
from haystream_gateway.openai import completion
from tests.conftest import Browser, Served, browsed, served
from tests.openai_clients import QUESTION, asked, client_of, extras_of
from tests.scripted import FINISHED, STARTED, Scripted, answered, behind_gateway, called, finished, text

if TYPE_CHECKING:
    from tests.fakes import Stage


async def test_a_completion_is_openais_to_the_letter(echo: Served) -> None:
    """With all fields that OpenAI sends, and no other but `haystream`."""
    async with browsed(echo.address) as browser:
        answer = await browser.http.post("/v1/chat/completions", json={"model": "echo", "messages": QUESTION})
    whole = answer.json()
    assert ChatCompletion.model_validate(whole, strict=True).model_extra == {"haystream": whole["haystream"]}
    run_id = whole["haystream"]["run_id"]
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    assert whole == {
        "id": f"chatcmpl-{run_id}",
        "object": "chat.completion",
        "created": whole["created"],
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Why is the sky blue?", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage,
        "haystream": {"run_id": run_id, "usage": [{"component": "llm", "model": "mock-model", **usage}]},
    }


async def test_the_sync_client_completes(echo: Served) -> None:
    """In a thread of its own."""
    async with browsed(echo.address) as browser:

        def ask() -> str | None:
            with openai.OpenAI(base_url=f"{browser.url}/v1", api_key="caller", max_retries=0) as client:
                answer = client.chat.completions.create(model="echo", messages=QUESTION)
                return answer.choices[0].message.content

        assert await asyncio.to_thread(ask) == "Why is the sky blue?"


async def test_calls_that_a_run_has_answered_are_not_for_the_caller_to_run(page: Browser, stage: Stage) -> None:
    """They stand beside the answer, with their results and the reasoning."""
    stage.chunks = 1
    stage.proceed.set()
    async with client_of(page) as client:
        answer = await client.chat.completions.create(model="agent", messages=QUESTION)
    message = answer.choices[0].message
    assert (message.content, message.tool_calls) == ("word ", None)
    assert message.model_extra == {"reasoning_content": "Hm."}
    extras = extras_of(answer)
    function = {"name": "weather", "arguments": '{"city": "Rome"}'}
    assert extras["tool_calls"] == [{"id": "call-1", "type": "function", "function": function}]
    assert [result["result"] for result in extras["tool_results"]] == ["Sunny in Rome"]


async def test_calls_that_end_a_run_are_for_the_caller_to_run() -> None:
    """Only those: not the ones of earlier turns."""
    script = [
        STARTED,
        called(0, "c-1", "add", "{}"),
        answered("c-1", "add", "1"),
        called(0, "c-2", "ask", '{"who": '),
        called(0, arguments='"you"}'),
        finished(chat_pb2.FINISH_REASON_TOOL_CALLS),
    ]
    async with behind_gateway(Scripted(script)) as browser, client_of(browser) as client:
        answer = await client.chat.completions.create(model="scripted", messages=QUESTION)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.content is None
    calls = [call.to_dict() for call in answer.choices[0].message.tool_calls or ()]
    assert calls == [{"id": "c-2", "type": "function", "function": {"name": "ask", "arguments": '{"who": "you"}'}}]
    assert [call["id"] for call in extras_of(answer)["tool_calls"]] == ["c-1"]


async def test_a_run_that_ends_otherwise_asks_nobody_to_run_its_calls() -> None:
    """An Agent that has no steps left, for one."""
    script = [STARTED, called(0, "c-1", "add", "{}"), FINISHED]
    async with behind_gateway(Scripted(script)) as browser, client_of(browser) as client:
        answer = await client.chat.completions.create(model="scripted", messages=QUESTION)
    assert answer.choices[0].message.tool_calls is None
    assert [call["id"] for call in extras_of(answer)["tool_calls"]] == ["c-1"]


async def test_documents_stand_beside_the_answer(page: Browser, stage: Stage) -> None:
    """As the component found them."""
    stage.chunks = 1
    stage.proceed.set()
    async with client_of(page) as client:
        answer = await client.chat.completions.create(model="finder", messages=QUESTION)
    [found] = extras_of(answer)["documents"]
    assert (found["component"], [document["id"] for document in found["documents"]]) == ("finder", ["d1", "d2"])


async def test_what_components_say_side_by_side_is_sorted_by_component() -> None:
    """One after the other in the content, and by name beside it."""
    script = [STARTED, text("a", "terse"), text("c", "chatty"), text("b", "terse"), FINISHED]
    async with behind_gateway(Scripted(script)) as browser, client_of(browser) as client:
        answer = await client.chat.completions.create(model="scripted", messages=QUESTION)
    assert answer.choices[0].message.content == "ab\n\nc"
    assert extras_of(answer)["text"] == {"terse": "ab", "chatty": "c"}


async def test_what_a_reader_has_lost_is_said() -> None:
    """Where it attaches to a run whose beginning is no longer kept."""
    gap = chat_pb2.Event(seq=5, gap=chat_pb2.Gap(from_seq=1, to_seq=5))
    async with behind_gateway(Scripted([gap, text("x"), FINISHED])) as browser, client_of(browser) as client:
        answer = await client.chat.completions.create(
            model="scripted", messages=QUESTION, extra_body={"haystream": {"run_id": "mine"}}
        )
    assert (answer.id, extras_of(answer)["gaps"]) == ("chatcmpl-mine", [{"from_seq": 1, "to_seq": 5}])


async def test_a_completion_is_bounded() -> None:
    """An answer that is too large to be held has to be streamed; the run is stopped."""
    piece = text("x" * 1024 * 1024)
    pieces = completion.MAX_COMPLETION_BYTES // (1024 * 1024)
    service = Scripted([STARTED, *[piece] * pieces], waits=True)
    async with behind_gateway(service) as browser, client_of(browser) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="scripted", messages=QUESTION)
        assert (caught.value.code, caught.value.param) == ("completion_too_large", "stream")
        async with asyncio.timeout(1):
            await service.left.wait()


async def test_models_are_the_pipelines_that_are_ready() -> None:
    """And no others: what has failed to load cannot be called."""
    async with behind_gateway(Scripted()) as browser, client_of(browser) as client:
        listed = [model async for model in client.models.list()]
        one = await client.models.retrieve("scripted")
    assert listed == [one]
    assert Model.model_validate(one.model_dump(), strict=True).id == "scripted"
    assert (one.object, one.owned_by) == ("model", "haystream")


async def test_a_models_name_is_a_pipelines(page: Browser) -> None:
    """Of the service as it is."""
    async with client_of(page) as client:
        assert "fake" in [model.id async for model in client.models.list()]
        assert (await client.models.retrieve("fake")).id == "fake"
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("nope")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_bearer_says_who_calls(stream: bool) -> None:
    """It goes to the service as it is, with every call, and never to the provider."""
    service = Scripted()
    async with behind_gateway(service) as browser, client_of(browser, api_key="who-i-am") as client:
        answer: Any = await client.chat.completions.create(
            model="scripted", messages=QUESTION, stream=stream, extra_headers={"X-Request-ID": "req-1"}
        )
        if stream:
            await answer.close()
        await client.models.list()
        await client.models.retrieve("scripted")
    assert [metadata["authorization"] for metadata in service.metadata] == ["Bearer who-i-am"] * 3
    assert service.metadata[0]["x-request-id"] == "req-1"
    assert service.requests[0].api_key == ""


async def test_the_bearer_is_the_providers_key_where_the_operator_says_so() -> None:
    """Then it says nothing of who calls; a key in the body counts for more."""
    service = Scripted()
    async with behind_gateway(service, gateway_bearer_is_api_key=True) as browser:
        async with client_of(browser, api_key="sk-mine") as client:
            await client.chat.completions.create(model="scripted", messages=QUESTION)
            await client.chat.completions.create(
                model="scripted", messages=QUESTION, extra_body={"haystream": {"api_key": "sk-other"}}
            )
            await client.models.list()
        body = {"model": "scripted", "messages": QUESTION}
        await browser.http.post("/v1/chat/completions", json=body, auth=("user", "password"))
    assert [request.api_key for request in service.requests] == ["sk-mine", "sk-other", ""]
    identities = [metadata.get("authorization", "") for metadata in service.metadata]
    assert identities[:3] == ["", "", ""]
    assert identities[3].startswith("Basic ")


async def test_all_of_it_is_documented(page: Browser) -> None:
    """With examples and models that are all there."""
    document = (await page.http.get("/openapi.json")).json()
    addresses = [path for path in document["paths"] if path.startswith("/v1")]
    assert addresses == ["/v1/chat/completions", "/v1/models", "/v1/models/{model}"]
    schemas = document["components"]["schemas"]
    create = document["paths"]["/v1/chat/completions"]["post"]
    for answer in create["responses"].values():
        assert answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2] in schemas
    assert {"429", "default"} <= create["responses"].keys()


async def test_an_attached_reader_reads_the_same_run(stage: Stage) -> None:
    """The same id with the same question starts nothing twice, as everywhere at this gateway."""
    stage.chunks = 2
    body: Any = {"haystream": {"run_id": "mine"}}
    async with served(default_pipeline="fake") as running, browsed(running.address) as browser:
        async with client_of(browser) as client:
            both = [asked(client, extra_body=body), asked(client, extra_body=body)]
            await stage.waiting.wait()
            stage.proceed.set()
            answers = [(await task).choices[0].message.content for task in both]
    assert answers == ["word word ", "word word "]
    assert len(stage.received) == 1
