"""Streams in OpenAI's dialect, read by OpenAI's own clients."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING, Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState

from haystream.v1 import chat_pb2
from haystream_gateway.openai.chunks import Chunks
from tests.conftest import SHIPPED, Browser, Served, browsed, served
from tests.openai_clients import (
    QUESTION,
    chunks_of,
    client_of,
    content_of,
    extras_of,
    frames_of,
    strict_chunks,
    strictly,
)
from tests.scripted import FINISHED, STARTED, Scripted, answered, behind_gateway, called, finished, text

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes import Stage


async def test_the_client_reads_words_as_the_model_says_them(page: Browser, stage: Stage) -> None:
    """Not when the model is done; and the run's id is in the first chunk."""
    stage.chunks = 2
    stage.more = 1
    async with client_of(page) as client:
        stream = await client.chat.completions.create(model="fake", messages=QUESTION, stream=True)
        first = await anext(stream)
        said = content_of([first])
        while said != "word word ":
            said += content_of([await anext(stream)])
        assert not stage.proceed.is_set()
        stage.proceed.set()
        rest = [chunk async for chunk in stream]
    assert content_of(rest) == "word "
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert first.id == f"chatcmpl-{extras_of(first)['run_id']}"
    assert {(chunk.id, chunk.created, chunk.model) for chunk in rest} == {(first.id, first.created, "fake")}


async def test_the_sync_client_reads_the_same(page: Browser, stage: Stage) -> None:
    """In a thread of its own."""
    stage.chunks = 3
    stage.proceed.set()

    def read() -> str:
        with openai.OpenAI(base_url=f"{page.url}/v1", api_key="caller", max_retries=0) as client:
            stream = client.chat.completions.create(model="fake", messages=QUESTION, stream=True)
            return content_of(list(stream))

    assert await asyncio.to_thread(read) == "word word word "


async def test_every_chunk_is_openais_to_the_letter(page: Browser, stage: Stage) -> None:
    """One role, one reason at the end, `[DONE]` once, no names or ids of events, and no usage that nobody wants."""
    stage.chunks = 3
    stage.proceed.set()
    frames = await frames_of(page)
    chunks = strict_chunks(frames)
    assert content_of(chunks) == "word word word "
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert not any("usage" in frame for frame in frames)
    assert json.loads(frames[-2])["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]


async def test_usage_comes_where_it_is_asked_for_in_a_chunk_of_its_own() -> None:
    """With no choices, after the reason and before `[DONE]`: the sum over all components."""
    usage = [
        chat_pb2.Usage(component="a", model="m", prompt_tokens=1, completion_tokens=2, total_tokens=3),
        chat_pb2.Usage(component="b", model="n", prompt_tokens=10, completion_tokens=20, total_tokens=31),
    ]
    service = Scripted([STARTED, text("x"), finished(chat_pb2.FINISH_REASON_STOP, *usage)])
    async with behind_gateway(service) as browser:
        chunks = strict_chunks(await frames_of(browser, stream_options={"include_usage": True}))
        assert not any("usage" in frame for frame in await frames_of(browser, stream_options={"include_usage": False}))
    *others, reason, last = chunks
    assert [chunk.usage for chunk in (*others, reason)] == [None] * (len(chunks) - 1)
    assert reason.choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (11, 22, 34)
    assert [item["component"] for item in extras_of(last)["usage"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("reason", "expected", "extras"),
    [
        (chat_pb2.FINISH_REASON_STOP, "stop", {}),
        (chat_pb2.FINISH_REASON_LENGTH, "length", {}),
        (chat_pb2.FINISH_REASON_TOOL_CALLS, "tool_calls", {}),
        (chat_pb2.FINISH_REASON_CONTENT_FILTER, "content_filter", {}),
        (chat_pb2.FINISH_REASON_INCOMPLETE, "length", {"reason": "INCOMPLETE"}),
    ],
)
async def test_every_reason_has_openais_word(
    reason: chat_pb2.FinishReason.ValueType, expected: str, extras: dict[str, Any]
) -> None:
    """Also in one piece; an answer that may be cut short does not look complete."""
    async with behind_gateway(Scripted([STARTED, text("x"), finished(reason)])) as browser:
        *_, last = await chunks_of(browser)
        async with client_of(browser) as client:
            whole = await client.chat.completions.create(model="scripted", messages=QUESTION)
    assert (last.choices[0].finish_reason, extras_of(last)) == (expected, extras)
    assert (whole.choices[0].finish_reason, extras_of(whole)) == (expected, {"run_id": "r-1", **extras})


async def test_an_agents_calls_are_deltas_and_their_results_stand_beside_them(page: Browser, stage: Stage) -> None:
    """Its reasoning comes as those clients expect it who know reasoning."""
    stage.chunks = 1
    stage.proceed.set()
    chunks = strict_chunks(await frames_of(page, model="agent"))
    [call] = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert call.model_dump() == {
        "index": 0,
        "id": "call-1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
    }
    reasoning = [(chunk.choices[0].delta.model_extra or {}).get("reasoning_content") for chunk in chunks]
    assert [piece for piece in reasoning if piece] == ["Hm."]
    [result] = [extras_of(chunk)["tool_result"] for chunk in chunks if "tool_result" in extras_of(chunk)]
    assert (result["id"], result["result"]) == ("call-1", "Sunny in Rome")
    assert content_of(chunks) == "word "


async def test_the_clients_own_helper_joins_the_calls_of_several_turns() -> None:
    """An Agent's next turn begins at the service's index 0 again: its calls are others all the same."""
    script = [
        STARTED,
        called(0, "c-1", "add", '{"a":'),
        called(1, "c-2", "mul", '{"b"'),
        called(0, arguments=" 1}"),
        called(1, arguments=": 2}"),
        answered("c-1", "add", "1"),
        answered("c-2", "mul", "2"),
        called(0, "c-3", "add", "{}"),
        answered("c-3", "add", "3"),
        called(0, "c-3", "sub", "{"),  # some providers count their ids from the beginning, too
        called(0, "c-3", arguments="}"),  # and some say them with each piece
        finished(chat_pb2.FINISH_REASON_TOOL_CALLS),
    ]
    async with behind_gateway(Scripted(script)) as browser, client_of(browser) as client:
        async with client.chat.completions.stream(model="scripted", messages=QUESTION) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_completion()
    calls = [
        (call.id, call.function.name, call.function.arguments) for call in final.choices[0].message.tool_calls or ()
    ]
    assert calls == [("c-1", "add", '{"a": 1}'), ("c-2", "mul", '{"b": 2}'), ("c-3", "add", "{}"), ("c-3", "sub", "{}")]
    assert final.choices[0].finish_reason == "tool_calls"
    assert sum(event.type == "tool_calls.function.arguments.done" for event in events) >= 3


async def test_calls_without_ids_are_told_apart_by_their_names() -> None:
    """Some providers give none; OpenAI's clients need one."""
    script = [
        STARTED,
        called(0, name="add"),
        called(0, arguments="{}"),
        called(0, name="mul", arguments="{}"),
        FINISHED,
    ]
    async with behind_gateway(Scripted(script)) as browser:
        chunks = strict_chunks(await frames_of(browser))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.id) for call in calls] == [(0, "call_0"), (0, None), (1, "call_1")]


async def test_documents_come_before_the_first_word(page: Browser, stage: Stage) -> None:
    """Beside an empty delta, where OpenAI's clients keep them and others look past."""
    stage.chunks = 1
    stage.proceed.set()
    chunks = strict_chunks(await frames_of(page, model="finder"))
    kinds = [*("documents" if "documents" in extras_of(chunk) else "text" for chunk in chunks[1:-1])]
    assert kinds == ["documents", "text"]
    assert chunks[1].choices[0].delta.model_dump(exclude_unset=True) == {}
    assert [found["id"] for found in extras_of(chunks[1])["documents"]["documents"]] == ["d1", "d2"]


async def test_a_chunk_says_when_another_component_speaks() -> None:
    """Two models side by side share one content."""
    script = [STARTED, text("a", "terse"), text("b", "terse"), text("c", "chatty"), text("d", "terse"), FINISHED]
    async with behind_gateway(Scripted(script)) as browser:
        chunks = strict_chunks(await frames_of(browser))
    assert [extras_of(chunk).get("component") for chunk in chunks[1:-1]] == ["terse", None, "chatty", "terse"]


async def test_of_a_run_that_says_nothing_the_outputs_are_the_answer() -> None:
    """Those of a run that has spoken would only repeat it."""
    ending = chat_pb2.Finished(reason=chat_pb2.FINISH_REASON_STOP, omitted_outputs=["big"])
    ending.outputs.update({"reader": {"answers": [42]}})
    end = chat_pb2.Event(seq=9, finished=ending)
    async with behind_gateway(Scripted([STARTED, end])) as browser, client_of(browser) as client:
        *_, last = await chunks_of(browser)
        whole = await client.chat.completions.create(model="scripted", messages=QUESTION)
    extras = {"outputs": {"reader": {"answers": [42]}}, "omitted_outputs": ["big"]}
    assert extras_of(last) == extras
    assert extras_of(whole) == {"run_id": "r-1", **extras}
    assert whole.choices[0].message.content == ""


async def test_silence_is_filled_with_comments(stage: Stage) -> None:
    """From the first heartbeat on: whatever stands between is to see that something is there."""
    async with served(default_pipeline="fake", heartbeat_seconds=0.05) as running, browsed(running.address) as browser:
        body = {"model": "fake", "messages": QUESTION, "stream": True}
        async with browser.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.aiter_lines()
            while await anext(lines) != ": ping":
                pass
            stage.proceed.set()
            rest = [line async for line in lines]
    assert rest[-2:] == ["data: [DONE]", ""]


@pytest.mark.parametrize(
    "words", ["lines\nand\r\nmore\rof them", "漢字 🙂 \u2028\u2029\x00\x85 end", "data: [DONE]\n\n"]
)
async def test_any_text_survives_the_way(echo: Served, words: str) -> None:
    """No character can end a line, for readers with Python's idea of one either."""
    messages = [{"role": "user", "content": words}]
    async with browsed(echo.address) as browser:
        frames = await frames_of(browser, model="echo", messages=messages)
        assert content_of(await chunks_of(browser, model="echo", messages=messages)) == words
    assert all(len(frame.splitlines()) == 1 for frame in frames)


async def test_the_shipped_agent_calls_its_calculator(tmp_path: Path) -> None:
    """Through the client's own helper, with a model that is a script."""
    shutil.copy(SHIPPED / "agent.py", tmp_path)
    async with served(tmp_path) as running, browsed(running.address) as browser, client_of(browser) as client:
        question: Any = [{"role": "user", "content": "What is 12 * 7?"}]
        async with client.chat.completions.stream(model="agent", messages=question) as stream:
            final = await stream.get_final_completion()
    assert "84" in (final.choices[0].message.content or "")
    assert [call.function.name for call in final.choices[0].message.tool_calls or ()] == ["calculator"]


EVENTS = st.lists(
    st.builds(text, st.text(), st.sampled_from(["a", "b"]))
    | st.builds(called, st.integers(0, 2), st.sampled_from(["", "x", "y"]), st.sampled_from(["", "f"]), st.text())
    | st.builds(answered, st.sampled_from(["x", "y"]), st.just("f"), st.text())
    | st.just(chat_pb2.Event(heartbeat=chat_pb2.Heartbeat()))
    | st.just(chat_pb2.Event(gap=chat_pb2.Gap(from_seq=1, to_seq=2)))
    | st.just(chat_pb2.Event(documents=chat_pb2.Documents(component="c")))
    | st.just(chat_pb2.Event())
)


@given(EVENTS, st.sampled_from(list(chat_pb2.FinishReason.values())), st.booleans())
def test_whatever_happens_the_chunks_are_openais(
    events: list[chat_pb2.Event], reason: chat_pb2.FinishReason.ValueType, include_usage: bool
) -> None:
    """And the client's own accumulator joins them: all text, and every piece of every call where it belongs."""
    chunks = Chunks("r", "m", include_usage=include_usage)
    raw = [chunks.first(), *(chunk for event in [*events, finished(reason)] for chunk in chunks.of(event))]
    read = [strictly(chunk) for chunk in raw]
    reasons = [chunk.choices[0].finish_reason for chunk in read if chunk.choices]
    assert [reason is not None for reason in reasons] == [False] * (len(reasons) - 1) + [True]
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in read:
        state.handle_chunk(chunk)
    message = state.current_completion_snapshot.choices[0].message
    assert (message.content or "") == "".join(event.text.delta for event in events)
    arguments = [event.tool_call.arguments_delta for event in events if event.HasField("tool_call")]
    assert len("".join(arguments)) == sum(len(call.function.arguments) for call in message.tool_calls or ())
    opened = [call for chunk in read for choice in chunk.choices for call in choice.delta.tool_calls or () if call.id]
    assert [call.index for call in opened] == list(range(len(opened)))
