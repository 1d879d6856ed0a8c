"""Where the service's time goes in a row, or the gateway's: `python -m benchmarks.profile burst-mock-1`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import tempfile
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.contestants.entrant import gateway, haystream
from benchmarks.process import module
from benchmarks.provider import PROVIDER, providing
from benchmarks.rows import ROWS
from benchmarks.rows.row import Ground

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contestants.entrant import Environment
    from benchmarks.contestants.lane import ServedLane
    from benchmarks.provider import Provider
    from benchmarks.rows.row import Row

SHOWN = 15
LIBRARY = "site-packages/"


@dataclass(slots=True)
class Profile:
    """Samples by the function that was at work, by those that were on the stack, and by the package at work."""

    process: str
    total: int = 0
    own: Counter[str] = field(default_factory=Counter[str])
    with_callees: Counter[str] = field(default_factory=Counter[str])
    packages: Counter[str] = field(default_factory=Counter[str])

    def add(self, count: int, stack: list[tuple[str, str]]) -> None:
        """Count a stack, innermost first."""
        names = [f"{short(file)}:{function}" for file, function in stack]
        self.total += count
        self.own[names[0]] += count
        self.packages[package(stack[0][0])] += count
        for name in set(names):
            self.with_callees[name] += count

    def markdown(self) -> str:
        """Return the tables."""
        packages = ", ".join(f"{name} {self._share(count)}" for name, count in self.packages.most_common(8))
        lines = [
            f"Where the {self.process}'s processor time went, by {self.total} samples: {packages}.",
            "",
            "| function | itself | with what it calls |",
            "| --- | ---: | ---: |",
        ]
        shown = [name for name, _ in self.own.most_common(SHOWN)]
        lines += [
            f"| `{name}` | {self._share(self.own[name])} | {self._share(self.with_callees[name])} |" for name in shown
        ]
        lines += ["", "Time inside compiled code counts for the Python function that called it."]
        return "\n".join(lines)

    def _share(self, count: int) -> str:
        return f"{100 * count / max(1, self.total):.0f} %"


def short(file: str) -> str:
    """Return a file's path from its package on."""
    if LIBRARY in file:
        return file.rpartition(LIBRARY)[2]
    parts = Path(file).parts
    for number, part in enumerate(parts):
        if part.startswith(("haystream", "benchmarks", "python3")) and number < len(parts) - 1:
            rest = parts[number + 1 :] if part.startswith("python3") else parts[number:]
            if (Path(*parts[: number + 1]) / "__init__.py").exists() or part.startswith("python3"):
                return "/".join(rest)
    return "/".join(parts[-2:])


def package(file: str) -> str:
    """Return the package of a file."""
    return short(file).partition("/")[0].removesuffix(".py")


async def profile(row: Row, provider: Provider, *, quick: bool) -> Profile:
    """Run a row's trial on the service, or the gateway, under the sampler, after a warm-up that does not count."""
    with tempfile.TemporaryDirectory(prefix="haystream-bench-") as folder:
        output = Path(folder) / "samples"
        environment = {PROVIDER: provider.address, **row.settings}
        async with sampled(row, output, environment) as served:
            ground = Ground(provider, quick, row.settings)
            await row.trial(served, Ground(provider, quick=True, settings=row.settings))
            served.processes[0].process.send_signal(signal.SIGUSR1)
            for _ in range(row.rounds):
                await row.trial(served, ground)
            served.processes[0].process.send_signal(signal.SIGUSR2)
        result = Profile(row.profiled)
        stacks: list[dict[str, Any]] = json.loads(output.read_text(encoding="utf-8"))
        for one in stacks:
            result.add(one["count"], [(file, function) for file, function in one["stack"]])
        return result


@asynccontextmanager
async def sampled(row: Row, output: Path, environment: Environment) -> AsyncGenerator[ServedLane]:
    """Run what a row is about under the sampler."""
    command = module("benchmarks.servers.sampled", str(output), f"haystream_{row.profiled}")
    start = gateway if row.profiled == "gateway" else haystream
    async with start(environment, command) as lane:
        yield cast("ServedLane", lane)


async def profile_alone(row: Row, *, quick: bool) -> None:
    """Profile one row and print it."""
    async with providing() as provider:
        print((await profile(row, provider, quick=quick)).markdown())


def main() -> None:
    rows = {row.name: row for row in ROWS}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("row", choices=list(rows))
    parser.add_argument("--quick", action="store_true", help="as small as goes")
    arguments = parser.parse_args()
    asyncio.run(profile_alone(rows[arguments.row], quick=arguments.quick))


if __name__ == "__main__":
    main()
