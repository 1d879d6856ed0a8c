"""Callers with a provider's key of their own: what a call on it costs, and what many keys leave in the service."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
from functools import partial
from typing import TYPE_CHECKING, cast

from benchmarks.contestants.entrant import HAYSTREAM, Entrant, haystream, plain_http
from benchmarks.contestants.lane import check_burst
from benchmarks.measures import Excess, Limit, Measure
from benchmarks.order import Order
from benchmarks.process import module
from benchmarks.rows.churn import AT_ONCE, MEMORY, SETTLING_SECONDS, SPEED, TTL_SECONDS
from benchmarks.rows.first_word import MEDIAN, asking
from benchmarks.rows.row import LongRow, Row

if TYPE_CHECKING:
    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample
    from benchmarks.readers.stream import Line
    from benchmarks.rows.row import Ground

PIPELINE = "openai_async"
TIMES = 40
KEYS = 1000
WARM_UP_KEYS = 300
CAPACITY = 100
PORTIONS = 10  # after each of which the memory is looked at
KEY = "sk-of-a-caller-who-comes-again"
SHORT = Order(words=20)

KEPT = Measure("pipelines kept", "pipelines")
ALIVE = Measure("generators alive", "generators")
IN_MEMORY = Measure("the same with those that wait for the garbage collector", "generators")
CONNECTIONS = Measure("connections to the provider", "connections")
PEAK = Measure("memory at its highest, against before", "%", 2)


def same_key() -> str:
    """Return the key of a caller who comes again."""
    return KEY


def new_key() -> str:
    """Return a key that nobody has used before, as long as OpenAI's."""
    return f"sk-{secrets.token_hex(24)}"


async def trial(lane: Lane, ground: Ground) -> Sample:
    """Fill all places with keys; then bring many more, and look for what is left."""
    served = cast("ServedLane", lane)
    await calls(served, ground.size(WARM_UP_KEYS, CAPACITY + 20))
    await asyncio.sleep(SETTLING_SECONDS)
    memory = served.resident_bytes()
    count = ground.size(KEYS, 50)
    begin = asyncio.get_running_loop().time()
    highest = await peak_bytes(served, count)
    seconds = asyncio.get_running_loop().time() - begin
    await asyncio.sleep(SETTLING_SECONDS)
    after = served.resident_bytes()
    return {
        MEMORY: 100 * (after - memory) / memory,
        PEAK: 100 * (max(highest, after) - memory) / memory,
        **await pipelines(served),
        CONNECTIONS: served.processes[0].connections(ground.provider.port),
        SPEED: count / seconds,
    }


async def peak_bytes(served: ServedLane, count: int) -> int:
    """Call on so many keys; return the most memory that was in use."""
    peak = 0
    for _ in range(PORTIONS):
        await calls(served, count // PORTIONS)
        peak = max(peak, served.resident_bytes())
    return peak


async def calls(served: ServedLane, count: int) -> None:
    """Call a few at a time, each on a key of its own."""

    async def one(line: Line, _: int) -> None:
        stream = line.ask(PIPELINE, SHORT)
        await stream.end()
        check_burst(stream, SHORT)

    await served.in_turn(count, AT_ONCE, one)


async def pipelines(served: ServedLane) -> Sample:
    """Return what the service itself counts."""
    (process,) = served.processes
    process.process.send_signal(signal.SIGUSR1)
    told = json.loads(await process.next_line())
    return {KEPT: told["kept"], ALIVE: told["alive"], IN_MEMORY: told["in_memory"]}


SAME_KEY = Entrant("haystream-same-key", "Haystream, a caller's key again", partial(haystream, keys=same_key))
NEW_KEYS = Entrant("haystream-new-keys", "Haystream, a new key each time", partial(haystream, keys=new_key))
PER_REQUEST = Entrant("per-request", "a pipeline per request, FastAPI", partial(plain_http, "per_request"))
COUNTED = Entrant(
    "haystream",
    "Haystream over gRPC",
    partial(haystream, command=module("benchmarks.servers.counted"), keys=new_key),
)

CALLER_KEY_ROWS: tuple[Row, ...] = (
    Row(
        name="caller-key-first-word",
        title="First word on a caller's own key, OpenAIChatGenerator",
        about=(
            f"{TIMES} questions one after another, on an open connection: from the question to the first text. The "
            "service builds a pipeline for a key that it has not seen, and keeps it for the next call. A server that "
            "builds one for each request is what people write without that."
        ),
        entrants=(HAYSTREAM, SAME_KEY, NEW_KEYS, PER_REQUEST),
        trial=asking(PIPELINE, TIMES),
        chart=MEDIAN,
        targets=(
            Excess(
                "a later call on a caller's key at most 3 ms over one on the server's",
                MEDIAN,
                "haystream-same-key",
                "haystream",
                at_most=3,
            ),
        ),
        rounds=10,  # short ones, so that other work on the machine meets all alike
        is_profiled=False,
        floor="A call on the server's own key, whose pipeline is there from the start.",
    ),
    LongRow(
        name="caller-key-churn",
        title="1,000 keys of callers, one call each",
        about=(
            f"{AT_ONCE} at a time, after a warm-up of {WARM_UP_KEYS} keys, which fills the {CAPACITY} places that the "
            "service has for pipelines on callers' keys. Then the service is compared with itself before. It tells how "
            "many pipelines it keeps, and how many generators for callers its garbage collector knows, before and "
            "after a collection that is asked for only then; its connections are counted from outside."
        ),
        entrants=(COUNTED,),
        trial=trial,
        chart=MEMORY,
        targets=(
            Limit("memory after = memory before within 5 %", MEMORY, "haystream", at_most=5),
            Limit("memory at its highest, too", PEAK, "haystream", at_most=5),
            Limit(f"at most {CAPACITY} pipelines kept", KEPT, "haystream", at_most=CAPACITY),
            Limit(f"at most {CAPACITY} generators alive", ALIVE, "haystream", at_most=CAPACITY),
            Limit(f"at most {CAPACITY} connections left", CONNECTIONS, "haystream", at_most=CAPACITY),
        ),
        settings={
            "HAYSTREAM_KEYED_PIPELINES": str(CAPACITY),
            "HAYSTREAM_REPLAY_SECONDS": str(TTL_SECONDS),
        },
    ),
)
