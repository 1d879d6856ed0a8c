"""What OpenAI's clients may ask: what reaches the service, what is passed over, and what is refused in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from google.protobuf.json_format import MessageToDict

from tests.openai_clients import QUESTION, client_of
from tests.scripted import Scripted, behind_gateway

if TYPE_CHECKING:
    from haystream.v1 import chat_pb2
    from tests.conftest import Browser
    from tests.fakes import Stage

PIXEL = "data:image/png;base64,iVBORw0KGgo="


async def request_of(**body: Any) -> chat_pb2.ChatRequest:
    """Return what a request comes to at the service."""
    service = Scripted()
    async with behind_gateway(service) as browser:
        answer = await browser.http.post(
            "/v1/chat/completions", json={"model": "scripted", "messages": QUESTION, **body}
        )
        assert answer.status_code == 200, answer.text
    [request] = service.requests
    return request


async def test_a_conversation_reaches_the_service_whole() -> None:
    """All roles, pictures, calls and results; without what clients echo of earlier answers."""
    call = {"id": "c-1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}, "index": 0}
    picture = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}
    assistant = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call],
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "reasoning_content": "Hm.",
    }
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "name": "ada", "content": [{"type": "text", "text": "What is this?"}, picture]},
        assistant,
        {"role": "tool", "tool_call_id": "c-1", "content": [{"type": "text", "text": "1"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}], "tool_calls": None},
        {"role": "assistant", "content": None, "refusal": "I cannot."},
        {"role": "user", "content": "Why?"},
    ]
    request = await request_of(messages=messages)
    assert MessageToDict(request.conversation)["messages"] == [
        {"role": "ROLE_SYSTEM", "parts": [{"text": "Be brief."}]},
        {"role": "ROLE_SYSTEM", "parts": [{"text": "Be kind."}]},
        {"role": "ROLE_USER", "parts": [{"text": "What is this?"}, {"image": {"url": PIXEL}}]},
        {"role": "ROLE_ASSISTANT", "toolCalls": [{"id": "c-1", "name": "add", "arguments": {"a": 1.0}}]},
        {"role": "ROLE_TOOL", "toolResults": [{"id": "c-1", "name": "add", "result": "1"}]},
        {"role": "ROLE_ASSISTANT", "parts": [{"text": "No."}]},
        {"role": "ROLE_ASSISTANT", "parts": [{"text": "I cannot."}]},
        {"role": "ROLE_USER", "parts": [{"text": "Why?"}]},
    ]
    assert request.pipeline == "scripted"


async def test_the_clients_own_messages_can_be_sent_again() -> None:
    """An answer of the client's, dumped as it is, is a message."""
    service = Scripted()
    async with behind_gateway(service) as browser, client_of(browser) as client:
        answer = await client.chat.completions.create(model="scripted", messages=QUESTION)
        echo: Any = answer.choices[0].message.model_dump()
        await client.chat.completions.create(model="scripted", messages=[*QUESTION, echo, *QUESTION])
    assert len(service.requests[1].conversation.messages) == 3


SETTINGS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 10,
    "max_completion_tokens": 11,
    "stop": ["a", "b"],
    "seed": 7,
    "presence_penalty": 1,
    "frequency_penalty": -1,
    "logit_bias": {"50256": -100},
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "num_ctx": 4096,
}


async def test_settings_go_to_the_generators() -> None:
    """All that are not known to be something else: the pipeline's owner says which are taken."""
    request = await request_of(**SETTINGS)
    assert MessageToDict(request.generation_kwargs) == SETTINGS


async def test_what_asks_for_nothing_is_passed_over() -> None:
    """Nulls, hints for whoever bills or caches, and promises that are kept anyway."""
    request = await request_of(
        **dict.fromkeys([*SETTINGS, "tools", "functions", "n", "haystream", "stream_options", "stream", "store"]),
        user="ada",
        metadata={"a": "b"},
        safety_identifier="ada",
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        prediction={"type": "content", "content": "x"},
        service_tier="auto",
        modalities=["text"],
        logprobs=False,
    )
    assert not request.generation_kwargs.fields
    request = await request_of(
        n=1,
        store=False,
        stream_options={"include_usage": None},
        tools=[],
        functions=[],
        tool_choice="auto",
        parallel_tool_calls=True,
    )
    assert not request.generation_kwargs.fields


async def test_what_openai_has_no_words_for_comes_in_haystream() -> None:
    """The fields of the gateway's own address, by the client's `extra_body`."""
    service = Scripted()
    options = {
        "inputs": {"retriever": {"top_k": 3}},
        "streaming_components": ["llm"],
        "run_id": "mine",
        "api_key": "sk-mine",
        "on_disconnect": "continue",
        "disconnect_grace_seconds": 2.5,
    }
    async with behind_gateway(service) as browser, client_of(browser) as client:
        await client.chat.completions.create(model="scripted", messages=QUESTION, extra_body={"haystream": options})
    [request] = service.requests
    assert MessageToDict(request) == {
        "pipeline": "scripted",
        "conversation": {"messages": [{"role": "ROLE_USER", "parts": [{"text": "Why is the sky blue?"}]}]},
        "inputs": {"retriever": {"top_k": 3.0}},
        "apiKey": "sk-mine",
        "streamingComponents": ["llm"],
        "runId": "mine",
        "onDisconnect": "ON_DISCONNECT_CONTINUE",
        "disconnectGrace": "2.500s",
    }


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "model", "required"),
    ({"model": ""}, "model", "at least 1 character"),
    ({"model": 5}, "model", "string"),
    ({"messages": None}, "messages", "required"),
    ({"messages": []}, "messages", "at least 1 item"),
    ({"messages": "hi"}, "messages", "array"),
    ({"messages": ["hi"]}, "messages[0]", "object"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "'tool'"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "required"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "array"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "empty"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "needs it"),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        "messages[0].content[0].type",
        "'image_url'",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x/y"}}]}]},
        "messages[0].content[0].image_url.url",
        "https",
    ),
    ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0]", "audio is not taken here"),
    ({"messages": [{"role": "assistant", "function_call": {}}]}, "messages[0]", "function_call is not taken"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "["}}]}]},
        "messages[0].tool_calls[0].function.arguments",
        "JSON object",
    ),
    ({"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}, "messages[0].tool_call_id", "id"),
    ({"n": 2}, "n", "one answer"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "own tools"),
    ({"tool_choice": "required"}, "tool_choice", "own tools"),
    ({"parallel_tool_calls": "few"}, "parallel_tool_calls", "own tools"),
    ({"functions": [{"name": "f"}]}, "functions", "own tools"),
    ({"function_call": "auto"}, "function_call", "own tools"),
    ({"audio": {"voice": "alloy", "format": "wav"}}, "audio", "text"),
    ({"modalities": ["text", "audio"]}, "modalities", "text"),
    ({"logprobs": True}, "logprobs", "no logprobs"),
    ({"top_logprobs": 3}, "top_logprobs", "no logprobs"),
    ({"store": True}, "store", "not stored"),
    ({"service_tier": "priority"}, "service_tier", "no tiers"),
    ({"web_search_options": {}}, "web_search_options", "searches by itself"),
    ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation", "not padded"),
    ({"stream_options": {"x": 1}}, "stream_options.x", "not permitted"),
    ({"stream": "perhaps"}, "stream", "boolean"),
    ({"haystream": {"query": "x"}}, "haystream.query", "not permitted"),
    ({"haystream": {"on_disconnect": "shrug"}}, "haystream.on_disconnect", "'continue'"),
    ({"haystream": {"run_id": "a b"}}, "haystream.run_id", "letters"),
    ({"haystream": {"inputs": {"llm": {"bogus": 1}}}}, "haystream.inputs.llm.bogus", "no such open input"),
    ({"haystream": {"disconnect_grace_seconds": 1}}, "haystream.disconnect_grace_seconds", "beside it"),
    ({"temperature": 1, "num_ctx": 5, "user": "ada"}, "num_ctx", "callers may not set num_ctx"),
    ({"model": "threaded", "user": "ada", "temperature": 1}, "temperature", "no component of this pipeline takes"),
]


@pytest.mark.parametrize(("wrong", "param", "words"), WRONG)
async def test_a_wrong_request_is_a_400_that_names_the_parameter(
    page: Browser, stage: Stage, wrong: dict[str, Any], param: str, words: str
) -> None:
    """By the name that OpenAI's callers know it by; nothing is started."""
    stage.proceed.set()
    answer = await page.http.post("/v1/chat/completions", json={"model": "fake", "messages": QUESTION, **wrong})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["type"], error["code"]) == (param, "invalid_request_error", "invalid_request")
    assert words in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert stage.received == []


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"", "application/json", 400),
        (b"[" * 10_000, "application/json", 400),
        (b'{"model": "fake"}', "text/plain", 415),
        (b" " * (7 * 1024 * 1024), "application/json", 413),
    ],
)
async def test_what_is_no_request_at_all_is_refused(
    page: Browser, content: bytes, media_type: str, status: int
) -> None:
    """A page of another site cannot send JSON without asking, and nothing else is taken."""
    answer = await page.http.post("/v1/chat/completions", content=content, headers={"Content-Type": media_type})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", None)


async def test_a_refusal_names_all_that_is_wrong(page: Browser) -> None:
    """In one go; the parameter is the first of them."""
    async with client_of(page) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="fake", messages=QUESTION, n=2, store=True)
    assert caught.value.param == "n"
    assert "store: completions are not stored here" in str(caught.value)
    assert json.loads(caught.value.response.text)["error"] == caught.value.body
