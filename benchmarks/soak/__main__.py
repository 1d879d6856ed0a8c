"""`python -m benchmarks.soak`: everything at once for ten minutes, and a report whether it held."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from benchmarks.__main__ import RESULTS, allow_many_sockets
from benchmarks.machine import machine, versions
from benchmarks.process import ServerFailed
from benchmarks.soak.access import safe_access
from benchmarks.soak.accounts import accounts
from benchmarks.soak.flatness import Course
from benchmarks.soak.ground import COUNTED, PROVIDED, ground
from benchmarks.soak.order import Order
from benchmarks.soak.report import Outcome, report, write
from benchmarks.soak.samples import Samples, sample_of
from benchmarks.soak.servers import Pace, serving
from benchmarks.soak.shift import Shift
from benchmarks.soak.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.soak.ground import Ground
    from benchmarks.soak.samples import Sample
    from benchmarks.soak.servers import Server, Servers

DEFAULT_SECONDS = 600
SHORT_SECONDS = 30  # below this all times are shorter, and memory is not judged
SETTLE_SLACK_SECONDS = 10
LOOKING_SECONDS = 0.5
POOL_THREADS = 8


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for. Without a `folder` nothing is written."""

    seconds: float
    seed: int
    callers: int
    folder: Path | None

    @property
    def is_short(self) -> bool:
        """Whether it only shows that all goes the whole way."""
        return self.seconds < SHORT_SECONDS

    @property
    def pace(self) -> Pace:
        """The servers' times."""
        short = Pace(drain_seconds=2, longest_seconds=0.6, slow_reader_seconds=1, keep_seconds=1)
        return short if self.is_short else Pace()

    @property
    def interval_seconds(self) -> float:
        """How often the processes are measured."""
        return 0.5 if self.is_short else 2


def main() -> None:
    """Exit 1 where anything was not as it has to be."""
    options = options_of(sys.argv[1:])
    allow_many_sockets()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(soak(options))
    if options.folder is not None:
        write(options.folder, outcome, options.interval_seconds)
    print(report(outcome, charts=False))
    sys.exit(outcome.has_failed)


def options_of(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=DEFAULT_SECONDS, help="how long; ten minutes unless it is said"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of what is left to chance")  # noqa: S311
    parser.add_argument("--callers", type=int, default=10, help="how many scenes are played at the same time")
    parser.add_argument(
        "--output", type=Path, help="folder of the results; benchmarks/results unless it is a short one"
    )
    found = parser.parse_args(arguments)
    folder = found.output or (None if found.seconds < SHORT_SECONDS else RESULTS)
    return Options(found.seconds, found.seed, found.callers, folder)


async def soak(options: Options) -> Outcome:
    """Run all of it."""
    began_with, tally, chance = machine(), Tally(), random.Random(options.seed)  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="haystream-soak-") as folder:
        async with safe_access(Path(folder)) as access, serving(Path(folder), options.pace, access) as servers:
            tally.story_of = servers.logged_about
            async with ground(servers, tally, chance) as stage:
                say("warms up")
                await asyncio.gather(Shift(stage).play_each(), fill_pools(stage))
                before = await settled(servers)
                say(f"works for {options.seconds:.0f} s, with seed {options.seed}")
                samples = await at_work(stage, options)
                say("settles")
                after = await settled(servers, before)
            courses = [
                Course(server.name, before[server.name], samples.by_server[server.name], after[server.name])
                for server in steady_of(servers)
            ]
            booked = await accounts((servers.steady, servers.rolling), tally.seen)
            await stop_all(servers, tally)
            return Outcome(
                options.seconds,
                options.seed,
                tally,
                [*(verdict for course in courses for verdict in course.verdicts()), *booked],
                samples,
                {server.name: server.stops for server in servers.all},
                f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
                began_with,
                versions(),
            )


async def at_work(stage: Ground, options: Options) -> Samples:
    """Have everybody work, and measure meanwhile."""
    samples = Samples()
    sampling = asyncio.create_task(samples.keep_taking(stage.servers, options.interval_seconds))
    try:
        restarts_seconds = max(options.seconds / 20, 1) if options.is_short else 20
        changes_seconds = 1 if options.is_short else 6
        await Shift(stage).work(options.seconds, options.callers, changes_seconds, restarts_seconds)
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    return samples


async def fill_pools(stage: Ground) -> None:
    """Have the service make all threads that it may have at work, so that it has them from the beginning.

    So it does with its first connection to the provider: the event loop opens a file with that, and keeps it.
    """
    order = Order(words=10, per_second=20)

    async def ask(pipeline: str) -> None:
        asked = stage.asked(order, (pipeline,))
        async for _ in stage.steady.Chat(asked.request, metadata=stage.metadata):
            pass

    await asyncio.gather(ask(PROVIDED[0]), *(ask(COUNTED[1]) for _ in range(POOL_THREADS)))


async def settled(servers: Servers, before: dict[str, Sample] | None = None) -> dict[str, Sample]:
    """Wait until nothing is open and nothing changes any more, or is as it was before; or too long. Return samples."""
    until = time.monotonic() + servers.pace.keep_seconds + SETTLE_SLACK_SECONDS
    last: dict[str, Sample] = {}
    while True:
        await asyncio.sleep(LOOKING_SECONDS)
        found = {server.name: await sample_of(server, 0) for server in steady_of(servers)}
        if time.monotonic() > until or all(
            is_at_rest(sample, (before or last).get(name)) for name, sample in found.items()
        ):
            return found
        last = found


def is_at_rest(sample: Sample, earlier: Sample | None) -> bool:
    """Whether nothing is open, and there are no more files and sockets than earlier."""
    held = {name: count for name, count in sample.held.items() if name != "tasks"}
    is_flat = earlier is not None and sample.descriptors <= earlier.descriptors
    return is_flat and sample.open_runs == 0 and not any(held.values())


def steady_of(servers: Servers) -> tuple[Server, Server]:
    """Return those that are never restarted."""
    return servers.steady, servers.steady_gateway


async def stop_all(servers: Servers, tally: Tally) -> None:
    """Stop everything, gateways first: each has to end in order."""
    for server in reversed(servers.all):
        try:
            await server.stop(servers.pace.drain_seconds)
        except ServerFailed as error:
            tally.fail(str(error))


def say(text: str) -> None:
    """Tell people how far it is."""
    with suppress(BrokenPipeError):
        print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
