"""What it costs to be safe: who calls is asked, what is said is encrypted, counted and traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from benchmarks.contestants.lane import check_burst
from benchmarks.contestants.safe import (
    ALL,
    ENCRYPTED,
    ENCRYPTED_SCRAPED,
    NEWLY_SIGNED,
    PLAIN,
    SCRAPED,
    SIGNED,
    TOKENS,
    TRACED,
    UNCOUNTED,
    ScrapedLane,
)
from benchmarks.measures import Excess, Measure, RoundRatio, percentile
from benchmarks.order import Order
from benchmarks.rows.burst import CPU as CPU_CHUNK
from benchmarks.rows.burst import bursting
from benchmarks.rows.paced import CPU as CPU_SHARE
from benchmarks.rows.paced import DELAY_50, DELAY_99, RATE, pacing
from benchmarks.rows.row import Row
from benchmarks.scraping import INTERVAL_SECONDS, scraping
from haystream.v1 import chat_pb2

if TYPE_CHECKING:
    from benchmarks.contestants.lane import Lane, ServedLane
    from benchmarks.measures import Sample, Target
    from benchmarks.readers.grpc_line import GrpcLine, GrpcStream
    from benchmarks.rows.row import Ground, Trial

BURST_STREAMS = 20
BURST_WORDS = 60_000
PACED_STREAMS = 100
PACED_SECONDS = 5
CHATS = 400
LISTS = 2000
LIST = "/haystream.v1.ChatService/ListPipelines"

CPU_CHAT = Measure("CPU a short Chat", "us")
CPU_LIST = Measure("CPU a ListPipelines", "us")
CHAT_MEDIAN = Measure("short Chat, median", "ms", 2)
LIST_MEDIAN = Measure("ListPipelines, median", "ms", 2)


def scraped(trial: Trial) -> Trial:
    """Return a trial during which those with metrics are scraped."""

    async def trial_scraped(lane: Lane, ground: Ground) -> Sample:
        async with scraping(lane.metrics_port if isinstance(lane, ScrapedLane) else None):
            return await trial(lane, ground)

    return trial_scraped


async def paced(lane: Lane, ground: Ground) -> Sample:
    """Return what a word costs that comes alone, and how late it is."""
    found = await pacing(PACED_STREAMS, PACED_SECONDS)(lane, ground)
    words_a_second = RATE * ground.size(PACED_STREAMS, min(PACED_STREAMS, 20))
    return {
        CPU_CHUNK: 1e6 * found[CPU_SHARE] / 100 / words_a_second,
        DELAY_50: found[DELAY_50],
        DELAY_99: found[DELAY_99],
    }


async def calling(lane: Lane, ground: Ground) -> Sample:
    """Make short calls, one after another, on an open connection."""
    served = cast("ServedLane", lane)
    chat_cpu, chat_seconds = await calls(served, ground.size(CHATS, 20), is_chat=True)
    list_cpu, list_seconds = await calls(served, ground.size(LISTS, 20), is_chat=False)
    return {CPU_CHAT: chat_cpu, CPU_LIST: list_cpu, CHAT_MEDIAN: chat_seconds, LIST_MEDIAN: list_seconds}


async def calls(served: ServedLane, times: int, *, is_chat: bool) -> tuple[float, float]:
    """Return the processor time of a call in us, and how long one takes in ms."""
    line = cast("GrpcLine", (await served.lines(1))[0])
    milliseconds: list[float] = []
    before = served.cpu_seconds()
    for _ in range(times):
        call = await chat(line) if is_chat else await listing(line)
        milliseconds.append((call.last_ns - call.sent_ns) / 1e6)
    return 1e6 * (served.cpu_seconds() - before) / times, percentile(milliseconds, 0.5)


async def chat(line: GrpcLine) -> GrpcStream:
    """Have one word said."""
    order = Order(words=1)
    call = line.ask("mock", order)
    await call.end()
    check_burst(call, order)
    return call


async def listing(line: GrpcLine) -> GrpcStream:
    """Ask for the pipelines."""
    call = line.call(LIST, chat_pb2.ListPipelinesRequest())
    await call.end()
    call.check_ending()
    return call


def all_within(measure: Measure) -> tuple[Target, ...]:
    """Return the targets of a chunk."""
    return (
        RoundRatio(
            "TLS and metrics under 10 % of a chunk",
            measure,
            "haystream-tls-metrics",
            "haystream-uncounted",
            at_most=1.1,
        ),
        RoundRatio("metrics alone under 5 %", measure, "haystream-metrics", "haystream-uncounted", at_most=1.05),
    )


PER_CHUNK = (UNCOUNTED, PLAIN, SCRAPED, ENCRYPTED, ENCRYPTED_SCRAPED, TRACED, ALL)
PER_CALL = (UNCOUNTED, PLAIN, TOKENS, SIGNED, NEWLY_SIGNED, SCRAPED, ENCRYPTED, ENCRYPTED_SCRAPED, TRACED, ALL)
MEANS = (
    "The service counts always; 'without metrics' is the same service with what counts taken out of its composition, "
    "but for an empty function a chunk. 'Scraped' means that somebody scrapes at the beginning of each turn and every "
    f"{INTERVAL_SECONDS} s, which is more often than Prometheus does. TLS is 1.3. All spans are sent to somebody who "
    "takes and drops them. Other work on the machine does more to a turn than what is looked for: chunks are compared "
    "round by round, and where the rounds are far apart, a verdict says little."
)

SAFETY_ROWS = (
    Row(
        name="safety-burst",
        title="What safety costs a chunk of a burst",
        about=f"{BURST_WORDS:,} chunks of MockChatGenerator in all, {BURST_STREAMS} streams at once; several chunks "
        f"share a message. {MEANS}",
        entrants=PER_CHUNK,
        trial=scraped(bursting("mock", BURST_STREAMS, BURST_WORDS)),
        chart=CPU_CHUNK,
        targets=all_within(CPU_CHUNK),
        rounds=15,
        is_profiled=False,
    ),
    Row(
        name="safety-paced",
        title="What safety costs a chunk of paced streams",
        about=f"{PACED_STREAMS} streams x {RATE} chunks/s for {PACED_SECONDS} s, of which three fifths count; each "
        f"chunk is a message of its own. {MEANS}",
        entrants=PER_CHUNK,
        trial=scraped(paced),
        chart=CPU_CHUNK,
        targets=all_within(CPU_CHUNK),
        rounds=5,
        is_profiled=False,
        warm_ups=1,
    ),
    Row(
        name="safety-call",
        title="What safety costs a call",
        about=f"{CHATS} calls of Chat that bring one word, and {LISTS:,} of ListPipelines, one after another, on an "
        "open connection. JSON Web Tokens are signed with RS256; the service checks a signature once, and "
        f"remembers what it said. {MEANS}",
        entrants=PER_CALL,
        trial=scraped(calling),
        chart=CPU_CHAT,
        targets=(
            Excess("a token of the file under 50 us", CPU_LIST, "haystream-tokens", "haystream", at_most=50),
            Excess("a JSON Web Token, again, under 50 us", CPU_LIST, "haystream-jwt", "haystream", at_most=50),
        ),
        rounds=9,
        is_profiled=False,
    ),
)
