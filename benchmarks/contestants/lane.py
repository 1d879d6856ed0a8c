"""A contestant that runs: what every row may ask of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from benchmarks.order import WORD
from benchmarks.readers.stream import Incomplete

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.order import Order
    from benchmarks.process import ServerProcess
    from benchmarks.readers.stream import Line, Stream

Dial: TypeAlias = "Callable[[int], Awaitable[Sequence[Line]]]"


class Lane(Protocol):
    """What all contestants can do, the one without a server included."""

    async def burst(self, pipeline: str, order: Order, streams: int) -> float:
        """Return the seconds that some answers at once take. Raises Incomplete."""
        ...

    async def first_words(self, pipeline: str, order: Order, times: int) -> list[float]:
        """Return the seconds to the first word, one answer after another."""
        ...

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, by all that it takes."""
        ...

    def hang_up(self) -> None:
        """Close what a trial has opened: servers close connections that rest while others have their turn."""


@dataclass(frozen=True, slots=True)
class ServedLane:
    """A server and its readers.

    `processes` are all that it takes to serve, whose costs count together; readers are connected to the first.
    """

    processes: tuple[ServerProcess, ...]
    dial: Dial
    _lines: list[Line] = field(default_factory=list["Line"])

    async def lines(self, count: int) -> Sequence[Line]:
        """Return open connections; they stay open until the trial is over, as a client's do."""
        if len(self._lines) < count:
            self.hang_up()
            self._lines.extend(await self.dial(count))
        return self._lines[:count]

    def hang_up(self) -> None:
        """Close all connections."""
        for line in self._lines:
            line.close()
        self._lines.clear()

    async def ask(self, pipeline: str, order: Order, streams: int) -> list[Stream]:
        """Ask as often as there are streams, all at once."""
        return [line.ask(pipeline, order) for line in await self.lines(streams)]

    async def in_turn(self, count: int, at_once: int, one: Callable[[Line, int], Awaitable[None]]) -> None:
        """Do something with a line so many times, a few at once; it is told how often it was begun before."""
        numbers = iter(range(count))

        async def work(line: Line) -> None:
            for number in numbers:
                await one(line, number)

        await asyncio.gather(*(work(line) for line in await self.lines(at_once)))

    async def burst(self, pipeline: str, order: Order, streams: int) -> float:
        """Return the seconds from the first question to the last byte of the last answer."""
        asked = await self.ask(pipeline, order, streams)
        await asyncio.gather(*(stream.end() for stream in asked))
        for stream in asked:
            check_burst(stream, order)
        return (max(stream.last_ns for stream in asked) - min(stream.sent_ns for stream in asked)) / 1e9

    async def first_words(self, pipeline: str, order: Order, times: int) -> list[float]:
        """Return the seconds from each question to its first text."""
        seconds: list[float] = []
        for _ in range(times):
            (stream,) = await self.ask(pipeline, order, 1)
            await stream.end()
            check_burst(stream, order)
            seconds.append((stream.pieces()[0].arrived_ns - stream.sent_ns) / 1e9)
        return seconds

    def cpu_seconds(self) -> float:
        """Return the processor time that serving has taken so far."""
        return sum(process.cpu_seconds() for process in self.processes)

    def resident_bytes(self) -> int:
        """Return the memory that serving takes now."""
        return sum(process.resident_bytes() for process in self.processes)


@dataclass(frozen=True, slots=True)
class InProcessLane:
    """Haystack alone: its process takes commands and keeps the time itself."""

    process: ServerProcess

    async def burst(self, pipeline: str, order: Order, streams: int) -> float:
        """Return the seconds that some runs at once take."""
        command = {"do": "burst", "pipeline": pipeline, "question": order.question(), "streams": streams}
        await self.process.say(json.dumps(command))
        return float(await self.process.next_line())

    async def first_words(self, pipeline: str, order: Order, times: int) -> list[float]:
        """Return the seconds from each call to its first callback."""
        command = {"do": "first words", "pipeline": pipeline, "question": order.question(), "times": times}
        await self.process.say(json.dumps(command))
        seconds: list[float] = json.loads(await self.process.next_line())
        return seconds

    async def pace(self, pipeline: str, order: Order, streams: int) -> None:
        """Begin paced runs."""
        command = {"do": "pace", "pipeline": pipeline, "question": order.question(), "streams": streams}
        await self.process.say(json.dumps(command))

    async def delays(self) -> tuple[float, float]:
        """Wait for the paced runs; return the delays of their words in ms, p50 and p99."""
        middle, worst = json.loads(await self.process.next_line())
        return middle, worst

    def cpu_seconds(self) -> float:
        """Return the processor time used so far."""
        return self.process.cpu_seconds()

    def hang_up(self) -> None:
        """Do nothing: there is no connection."""


def check_burst(stream: Stream, order: Order) -> None:
    """Raise Incomplete unless a stream has brought every word and a good end."""
    stream.check_ending()
    text = "".join(piece.text for piece in stream.pieces())
    if text != order.answer():
        raise Incomplete(f"{len(text)} characters of {len(WORD) * order.words}")
