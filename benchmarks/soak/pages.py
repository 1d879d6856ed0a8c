"""What browsers and OpenAI's clients do over the gateways: each scene is one of them, and one run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from google.protobuf.json_format import MessageToDict

from benchmarks.soak.browser import OK, CutOff, asking
from benchmarks.soak.ground import COUNTED, PROVIDED
from benchmarks.soak.reading import Ending, Known, Reading, Seen
from benchmarks.soak.scenes import FAT, FAULTS, LEFT, NEVER_SAID, STOP

if TYPE_CHECKING:
    from benchmarks.soak.browser import Answer, Frame
    from benchmarks.soak.ground import Asked, Ground
    from benchmarks.soak.servers import Server
    from benchmarks.soak.tally import Story

NOTHING = 204
MISSING = 404
AGAIN_SECONDS = 0.1
KINDS = {"metadata": "started", "data": "text", "end": "finished"}
ROLES = {"ROLE_SYSTEM": "system", "ROLE_USER": "user", "ROLE_ASSISTANT": "assistant"}


async def page(ground: Ground, story: Story) -> None:
    """Post a chat, and read all of it."""
    asked = ground.asked(ground.order(), run_id=story.new_run())
    story.note(f"posts to {asked.request.pipeline} for {asked.order}")
    reading = Reading(asked.known)
    await _read(ground.servers.steady_gateway, ground, story, reading, "POST", "/chat", body_of(asked))
    story.judge(reading, STOP, all_words=True)


async def page_at_rolling(ground: Ground, story: Story) -> None:
    """Post a chat to the gateway that is restarted, in front of both services."""
    asked = ground.asked(ground.order(), run_id=story.new_run())
    story.note(f"posts to {asked.request.pipeline} for {asked.order}")
    reading, gateway = Reading(asked.known), ground.servers.rolling_gateway
    await _read(gateway, ground, story, reading, "POST", "/chat", body_of(asked))
    restarted = [server.was_restarted_since(story.began) for server in (gateway, ground.servers.rolling)]
    story.judge_in_restarts(reading, STOP, was_restarted=any(restarted))


async def page_leaving(ground: Ground, story: Story) -> None:
    """Post a chat, and have the connection reset in the middle."""
    asked = ground.asked(ground.order(), run_id=story.new_run())
    story.note(f"posts to {asked.request.pipeline} for {asked.order}")
    reading, limit = Reading(asked.known), ground.random.randint(1, 20)
    await _read(ground.servers.steady_gateway, ground, story, reading, "POST", "/chat", body_of(asked), limit)
    story.judge(reading, LEFT)


async def page_returning(ground: Ground, story: Story) -> None:
    """Read as an EventSource does: reset now and then, and back with the id of the last frame, to the very end."""
    run_id, order = story.new_run(), ground.long_order(ground.longest_seconds)
    asked = ground.asked(order, COUNTED)
    path = f"/chat?run_id={run_id}&pipeline={asked.request.pipeline}&query={quote(asked.order.question())}"
    story.note(f"gets {asked.request.pipeline} for {asked.order}")
    place, gateway = 0, ground.servers.steady_gateway
    while True:
        reading = Reading(asked.known, last_seq=place)
        limit = ground.random.choice((0, ground.random.randint(1, 40)))
        last_id = {"Last-Event-ID": f"{run_id}:{place}"} if place else {}
        await _read(gateway, ground, story, reading, "GET", path, None, limit, last_id)
        story.judge(reading, LEFT)
        place = reading.last_seq
        if reading.is_finished or reading.wrongs:
            break
        story.tally.resumed += 1
    if reading.is_finished:
        over = Reading(asked.known, last_seq=place)
        await _read(gateway, ground, story, over, "GET", path, None, 0, {"Last-Event-ID": f"{run_id}:{place}"})
        story.judge(over, {"NOTHING_MORE"}, all_words=True)


async def page_cancelled(ground: Ground, story: Story) -> None:
    """Post a chat, and cancel it by its address."""
    run_id, gateway = story.new_run(), ground.servers.steady_gateway
    asked = ground.asked(ground.long_order(10), COUNTED, run_id)
    reading = Reading(asked.known)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_read(gateway, ground, story, reading, "POST", "/chat", body_of(asked)))
        await asyncio.sleep(ground.random.uniform(0, 1))
        await _cancel(gateway, ground, story, run_id)
    story.judge(reading, {"RUN_CANCELLED"})


async def page_stopping(ground: Ground, story: Story) -> None:
    """Stop reading for longer than is allowed: the kernel cuts such a reader off, or a frame says why."""
    asked = ground.asked(FAT, COUNTED, story.new_run())
    reading, gateway = Reading(asked.known), ground.servers.steady_gateway
    async with asking(gateway.port, "POST", "/chat", ground.headers, body_of(asked)) as answer:
        await _follow(answer, reading, story, limit=2)
        story.note("stops reading")
        await asyncio.sleep(ground.servers.pace.slow_reader_seconds * 2 + 1)
        await _follow(answer, reading, story)
    story.judge(reading, {"SLOW_READER", "cut off"})


async def completion(ground: Ground, story: Story) -> None:
    """Ask as OpenAI's clients do, for chunks or for all at once, of a provider that may fail."""
    fault = ground.random.choice(["", "", *FAULTS])
    order = replace(ground.order(), fault=fault)
    order = replace(order, words=0) if fault in NEVER_SAID else order
    asked = ground.asked(order, PROVIDED if fault else (), story.new_run())
    streams = ground.random.random() < 0.5  # noqa: PLR2004 - a coin
    story.note(f"completes with {asked.request.pipeline} for {asked.order}, streams: {streams}")
    body = {
        "model": asked.request.pipeline,
        "messages": body_of(asked).get("messages") or [{"role": "user", "content": asked.order.question()}],
        "stream": streams,
        "haystream": {"run_id": asked.request.run_id} | _key(asked),
    }
    gateway = ground.servers.steady_gateway
    async with asking(gateway.port, "POST", "/v1/chat/completions", ground.headers, body) as answer:
        text, word = await (_chunks(answer) if streams else _message(answer))
    expected = {"": "stop", "early end": "length"}.get(fault, FAULTS.get(fault, "").lower())
    story.tally.endings[f"/v1 {word}"] += 1
    story.tally.events += 1
    if word != expected:
        story.fail(f"ended with {word}; only {expected} would do")
    else:
        story.saw_ending(FAULTS.get(fault, "STOP"))
    if word == "stop" or streams:
        _check_text(asked.known, text, story, is_agent=asked.request.pipeline == "agent", streams=streams)


def body_of(asked: Asked) -> dict[str, Any]:
    """Return a request of the contract as one of the gateway's."""
    request = asked.request
    body: dict[str, Any] = {"pipeline": request.pipeline, "run_id": request.run_id} | _key(asked)
    if request.HasField("conversation"):
        messages = MessageToDict(request.conversation)["messages"]
        body["messages"] = [
            {"role": ROLES[message["role"]], "content": message["parts"][0]["text"]} for message in messages
        ]
    else:
        body["query"] = request.query
    return body


def _key(asked: Asked) -> dict[str, Any]:
    return {"api_key": asked.request.api_key} if asked.request.api_key else {}


async def _cancel(gateway: Server, ground: Ground, story: Story, run_id: str) -> None:
    """Cancel a run, which may have to begin yet."""
    while True:
        async with asking(gateway.port, "POST", f"/runs/{run_id}/cancel", ground.headers) as answer:
            story.note(f"cancels: {answer.status} {await answer.body()}")
        if answer.status != MISSING:
            return
        await asyncio.sleep(AGAIN_SECONDS)


async def _read(  # noqa: PLR0913, PLR0917 - a request has as many parts
    gateway: Server,
    ground: Ground,
    story: Story,
    reading: Reading,
    method: str,
    path: str,
    body: Any,
    limit: int = 0,
    headers: dict[str, str] | None = None,
) -> None:
    """Ask for a stream and read it, to its end or until it has brought so many frames; then reset the connection."""
    try:
        async with asking(gateway.port, method, path, ground.headers | (headers or {}), body) as answer:
            if answer.status == NOTHING:
                reading.end(Ending("NOTHING_MORE"))
            elif answer.status != OK:
                problem = await answer.body()
                story.note(f"{answer.status} {problem}")
                reading.end(Ending(problem["reason"], is_retryable=problem["retryable"]))
            else:
                await _follow(answer, reading, story, limit)
                if reading.ending is None:
                    answer.reset()
    except ConnectionRefusedError:
        reading.end(Ending("REFUSED", is_retryable=True))
    except CutOff as error:
        story.note(f"cut off {error}")
        reading.end(Ending("cut off", is_typed=False))
    if limit and reading.ending is None:
        reading.end(Ending("left"))


async def _follow(answer: Answer, reading: Reading, story: Story, limit: int = 0) -> None:
    try:
        async for frame in answer.frames():
            _see(frame, reading, story)
            if limit and reading.events >= limit:
                return
    except CutOff as error:
        story.note(f"cut off: {error}")
        reading.end(Ending("cut off", is_typed=False))


def _see(frame: Frame, reading: Reading, story: Story) -> None:
    seq = int(frame.id.rpartition(":")[2] or 0)
    if frame.event == "error":
        problem = frame.value
        story.note(f"error {problem}")
        reading.end(Ending(problem["reason"], is_retryable=problem["retryable"], last_seq=problem["last_seq"]))
        return
    value = frame.value
    seen = Seen(
        KINDS.get(frame.event, frame.event),
        seq,
        value if frame.event == "data" else "",
        value["from_seq"] if frame.event == "gap" else 0,
        value["reason"] if frame.event == "end" else "",
    )
    story.saw("page", seen)
    reading.see(seen)


async def _chunks(answer: Answer) -> tuple[str, str]:
    """Return the text of chunks, and the one ending: OpenAI's word, or an error's code."""
    if answer.status != OK:
        return "", (await answer.body())["error"]["code"]
    text, endings, is_done = "", list[str](), False
    async for frame in answer.frames():
        if is_done:
            endings.append("something after the end")
        if frame.data == "[DONE]":
            is_done = True
        elif "error" in frame.value:
            endings.append(frame.value["error"]["code"])
            is_done = True
        else:
            for choice in frame.value["choices"]:
                text += choice["delta"].get("content") or ""
                endings += [choice["finish_reason"]] if choice["finish_reason"] else []
    return text, ", ".join(endings) if is_done else "no ending"


async def _message(answer: Answer) -> tuple[str, str]:
    """Return the text of a completion, and its ending."""
    body = await answer.body()
    if answer.status != OK:
        return "", body["error"]["code"]
    (choice,) = body["choices"]
    return choice["message"]["content"] or "", choice["finish_reason"]


def _check_text(known: Known, text: str, story: Story, *, is_agent: bool, streams: bool) -> None:
    letter = known.letter or (text[6:7] or "x")
    expected = known.order.text(letter=letter)
    story.tally.words += known.order.words
    if text != expected and not (is_agent and not streams and text == expected.strip()):
        story.fail(f"{len(text)} characters came, {len(expected)} were due")


PAGES = {
    page: 3,
    page_at_rolling: 2,
    page_leaving: 2,
    page_returning: 3,
    page_cancelled: 1,
    page_stopping: 0.5,
    completion: 3,
}
"""How often each scene is played, beside the others."""
