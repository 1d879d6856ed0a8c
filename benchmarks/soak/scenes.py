"""What services do over gRPC: each scene is one caller, or a few, and one run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from benchmarks.soak.cable import cable
from benchmarks.soak.calls import follow, leave
from benchmarks.soak.ground import COUNTED, PROVIDED
from benchmarks.soak.order import Order
from benchmarks.soak.reading import Ending, Reading
from haystream.v1 import chat_pb2

if TYPE_CHECKING:
    from benchmarks.soak.ground import Asked, Ground
    from benchmarks.soak.tally import Story

STOP = frozenset({"STOP"})
LEFT = frozenset({"STOP", "left"})
SOON_SECONDS = 0.5
FAULTS = {
    "429": "PROVIDER_BUSY",
    "500": "PROVIDER_UNAVAILABLE",
    "401": "PROVIDER_AUTH",
    "cut": "PROVIDER_UNAVAILABLE",
    "malformed": "COMPONENT_FAILED",
    "early end": "INCOMPLETE",
}
NEVER_SAID = frozenset({"429", "500", "401"})
TOO_LONG = Order(words=300, padding=2_000)  # for what replay may hold: who comes back late gets a gap
FAT = Order(words=4_000, padding=2_000)  # more than all windows and queues on the way hold


async def whole(ground: Ground, story: Story) -> None:
    """Ask whichever service serves, and read all of it: a run that fits into the drain never notices a restart."""
    asked = ground.asked(ground.order(), run_id=story.new_run())
    story.note(f"asks {asked.request.pipeline} for {asked.order}")
    reading = Reading(asked.known)
    await follow(ground.both.Chat(asked.request, metadata=ground.metadata), reading, story)
    story.judge(reading, STOP, all_words=True)


async def long_at_rolling(ground: Ground, story: Story) -> None:
    """Ask the service that is restarted for more than fits into its drain."""
    order = ground.long_order(2 * ground.servers.pace.drain_seconds)
    asked = ground.asked(order, COUNTED, story.new_run())
    story.note(f"asks {asked.request.pipeline} for {asked.order}")
    reading = Reading(asked.known)
    await follow(ground.rolling.Chat(asked.request, metadata=ground.metadata, wait_for_ready=True), reading, story)
    was_restarted = ground.servers.rolling.was_restarted_since(story.began)
    story.judge_in_restarts(reading, STOP, was_restarted=was_restarted)


async def faulty(ground: Ground, story: Story) -> None:
    """Have the provider fail: all that it said before comes, and then what fits its fault."""
    fault = ground.random.choice([*FAULTS])
    order = replace(ground.order(), fault=fault)
    asked = ground.asked(replace(order, words=0) if fault in NEVER_SAID else order, PROVIDED, story.new_run())
    story.note(f"asks {asked.request.pipeline} for {asked.order}")
    reading = Reading(asked.known)
    await follow(ground.steady.Chat(asked.request, metadata=ground.metadata), reading, story)
    story.judge(reading, {FAULTS[fault]}, all_words=True)


async def stalled(ground: Ground, story: Story) -> None:
    """Have the provider fall silent, or the model be slow, until the caller's deadline is over."""
    order = replace(ground.order(), fault="stall") if ground.random.random() < SOON_SECONDS else ground.long_order(60)
    asked = ground.asked(order, PROVIDED if order.fault else COUNTED, story.new_run())
    seconds = ground.random.uniform(0.1, ground.longest_seconds)
    story.note(f"asks {asked.request.pipeline} for {asked.order} within {seconds:.2f} s")
    reading = Reading(asked.known)
    await follow(ground.steady.Chat(asked.request, metadata=ground.metadata, timeout=seconds), reading, story)
    story.judge(reading, {"DEADLINE_EXCEEDED"})


async def leaving(ground: Ground, story: Story) -> None:
    """Leave in the middle, or just before the beginning."""
    asked = ground.asked(ground.order(), run_id=story.new_run())
    story.note(f"asks {asked.request.pipeline} for {asked.order}")
    reading = Reading(asked.known)
    call = ground.both.Chat(asked.request, metadata=ground.metadata)
    if ground.random.random() < 0.2:  # noqa: PLR2004 - a share
        await asyncio.sleep(ground.random.uniform(0, 0.01))
    else:
        await follow(call, reading, story, limit=ground.random.randint(1, 40))
    leave(call, reading, story)
    story.judge(reading, LEFT)


async def cancelled(ground: Ground, story: Story) -> None:
    """Have somebody cancel the run, with several who read it."""
    run_id = story.new_run()
    asked = ground.asked(ground.long_order(10), COUNTED, run_id)
    asked.request.on_disconnect = chat_pb2.ON_DISCONNECT_CONTINUE
    story.note(f"asks {asked.request.pipeline} for {asked.order}")
    reading, others = Reading(asked.known), [Reading(asked.known) for _ in range(ground.random.randint(0, 2))]
    call = ground.steady.Chat(asked.request, metadata=ground.metadata)
    await follow(call, reading, story, limit=ground.random.randint(1, 40))
    async with asyncio.TaskGroup() as readers:
        for number, other in enumerate(others):
            readers.create_task(_resume(ground, story, run_id, other, f"resume {number}"))
        await asyncio.sleep(ground.random.uniform(0, SOON_SECONDS))
        story.note("cancels")
        await ground.steady.Cancel(chat_pb2.CancelRequest(run_id=run_id), metadata=ground.metadata)
        await follow(call, reading, story)
    for one in (reading, *others):
        story.judge(one, {"RUN_CANCELLED"})


async def slow(ground: Ground, story: Story) -> None:
    """Read slowly, but steadily: the model waits, and nothing is lost."""
    asked = ground.asked(Order(words=int(100 * ground.longest_seconds), padding=5_000), COUNTED, story.new_run())
    story.note(f"asks {asked.request.pipeline} for {asked.order}")
    reading = Reading(asked.known)
    async with ground.narrow(ground.servers.steady) as stub:
        call = stub.Chat(asked.request, metadata=ground.metadata)
        await follow(call, reading, story, pause_seconds=ground.random.uniform(0.01, 0.05))
    story.judge(reading, STOP, all_words=True)


async def stopping(ground: Ground, story: Story) -> None:
    """Stop reading for longer than is allowed, and then read what is left."""
    asked = ground.asked(FAT, COUNTED, story.new_run())
    story.note(f"asks {asked.request.pipeline} for {asked.order}")
    reading = Reading(asked.known)
    async with ground.narrow(ground.servers.steady) as stub:
        call = stub.Chat(asked.request, metadata=ground.metadata)
        await follow(call, reading, story, limit=2)
        story.note("stops reading")
        await asyncio.sleep(ground.servers.pace.slow_reader_seconds * 1.5 + 0.5)
        await follow(call, reading, story)
    story.judge(reading, {"SLOW_READER"})


async def returning(ground: Ground, story: Story) -> None:
    """Leave a run that goes on, and come back to it: from a random place, several at once, or by asking again."""
    run_id = story.new_run()
    is_long = ground.random.random() < 0.3  # noqa: PLR2004 - a share
    asked = ground.asked(TOO_LONG, COUNTED, run_id) if is_long else ground.asked(ground.order(), run_id=run_id)
    _continue(asked, ground.random.choice((None, 20)))
    story.note(f"asks {asked.request.pipeline} for {asked.order}")
    first = Reading(asked.known)
    call = ground.steady.Chat(asked.request, metadata=ground.metadata)
    await follow(call, first, story, limit=ground.random.randint(1, 60))
    leave(call, first, story)
    story.judge(first, LEFT)
    for _ in range(ground.random.randint(0, 2)):  # and leaves again
        place = _place(ground, first)
        reading, who = place, f"back from {place.last_seq}"
        call_again = ground.steady.Resume(
            chat_pb2.ResumeRequest(run_id=run_id, after_seq=place.last_seq), metadata=ground.metadata
        )
        await follow(call_again, reading, story, who=who, limit=ground.random.randint(1, 40))
        leave(call_again, reading, story, who)
        story.judge(reading, {*LEFT})
    readings = [_place(ground, first) for _ in range(ground.random.randint(1, 3))]
    attached = Reading(asked.known)
    async with asyncio.TaskGroup() as readers:
        for number, reading in enumerate(readings):
            readers.create_task(_resume(ground, story, run_id, reading, f"resume {number} from {reading.last_seq}"))
        again = ground.steady.Chat(asked.request, metadata=ground.metadata)
        readers.create_task(follow(again, attached, story, who="asks again"))
    for reading in (*readings, attached):
        story.tally.resumed += 1
        story.judge(reading, STOP, all_words=True)


async def cut_off(ground: Ground, story: Story) -> None:
    """Have the connection reset in the middle, and come back over another one."""
    run_id = story.new_run()
    asked = ground.asked(ground.long_order(ground.longest_seconds), COUNTED, run_id)
    goes_on = ground.random.random() < 0.7  # noqa: PLR2004 - a share
    if goes_on:
        _continue(asked, 20)
    story.note(f"asks {asked.request.pipeline} for {asked.order}, goes on: {goes_on}")
    reading = Reading(asked.known)
    async with cable(ground.servers.steady.port) as line, ground.narrow(ground.servers.steady, line.port) as stub:
        call = stub.Chat(asked.request, metadata=ground.metadata)
        await follow(call, reading, story, limit=ground.random.randint(1, 20))
        line.cut()
        story.note("is cut off")
        await follow(call, reading, story, is_cut=True)
    story.judge(reading, {"STOP", "UNAVAILABLE", "INTERNAL"})
    if goes_on:
        rest = Reading(asked.known, last_seq=reading.last_seq)
        await _resume(ground, story, run_id, rest, "resume")
        story.tally.resumed += 1
        story.judge(rest, {"STOP", "NOTHING_MORE"} if reading.is_finished else STOP, all_words=True)


def _continue(asked: Asked, grace_seconds: float | None) -> None:
    asked.request.on_disconnect = chat_pb2.ON_DISCONNECT_CONTINUE
    if grace_seconds is not None:
        asked.request.disconnect_grace.CopyFrom(Duration(seconds=round(grace_seconds)))


def _place(ground: Ground, first: Reading) -> Reading:
    """Return a reading that begins after a random event of those that came first."""
    if first.known.first_seq is None or first.is_finished:
        return Reading(first.known)
    return Reading(first.known, last_seq=ground.random.choice(first.places))


async def _resume(ground: Ground, story: Story, run_id: str, reading: Reading, who: str) -> None:
    request = chat_pb2.ResumeRequest(run_id=run_id, after_seq=reading.last_seq)
    await follow(ground.steady.Resume(request, metadata=ground.metadata), reading, story, who=who)
    if reading.ending is None and reading.events == 0:
        reading.end(Ending("NOTHING_MORE"))


SCENES = {
    whole: 6,
    long_at_rolling: 1,
    faulty: 3,
    stalled: 2,
    leaving: 3,
    cancelled: 2,
    slow: 1,
    stopping: 0.5,
    returning: 4,
    cut_off: 2,
}
"""How often each scene is played, beside the others."""
