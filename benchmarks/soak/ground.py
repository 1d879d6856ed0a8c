"""What every scene stands on: the servers, ways to them, and chance."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.soak.order import Order
from benchmarks.soak.reading import Known
from haystream.v1 import chat_pb2, chat_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from random import Random

    from benchmarks.soak.servers import Server, Servers
    from benchmarks.soak.tally import Tally

KEYS = [f"key-of-caller-{number}" for number in range(10)]  # more than the service keeps pipelines for
PADDINGS = (0, 1, 20, 200)
MOST_WORDS_POWER = 2.7  # of ten
UNPACED = 0.3

# gRPC takes turns between the services that say they serve, and repeats what was refused before it began.
TURNS: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "haystream.v1.ChatService"},
    "methodConfig": [
        {
            "name": [{"service": "haystream.v1.ChatService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
NARROW = (("grpc.http2.bdp_probe", 0),)  # a window of 64 KiB: its reader holds the model back soon


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what is known of its answer."""

    request: chat_pb2.ChatRequest
    known: Known

    @property
    def order(self) -> Order:
        """What is ordered."""
        return self.known.order


@dataclass(frozen=True, slots=True)
class Ground:
    """The shared stubs: of each service, and of both by turns."""

    servers: Servers
    tally: Tally
    random: Random
    steady: chat_pb2_grpc.ChatServiceStub
    rolling: chat_pb2_grpc.ChatServiceStub
    both: chat_pb2_grpc.ChatServiceStub

    @property
    def longest_seconds(self) -> float:
        """How long a run takes at most that is to fit into the drain."""
        return self.servers.pace.longest_seconds

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return tuple(self.servers.access.metadata)

    @property
    def headers(self) -> dict[str, str]:
        """What goes with every HTTP request."""
        return dict(self.servers.access.headers)

    @asynccontextmanager
    async def narrow(self, server: Server, port: int | None = None) -> AsyncGenerator[chat_pb2_grpc.ChatServiceStub]:
        """Open a channel of one's own with a small window, to a server or to where a cable to it begins."""
        async with self.servers.access.channel(f"127.0.0.1:{port or server.port}", NARROW) as channel:
            yield chat_pb2_grpc.ChatServiceStub(channel)

    def order(self, seconds: float = 0) -> Order:
        """Return an order of random size that takes no longer than that."""
        random, longest = self.random, seconds or self.longest_seconds
        words = int(10 ** random.uniform(0, MOST_WORDS_POWER))
        taken = random.uniform(0.05, longest)
        per_second = 0 if random.random() < UNPACED else max(words / taken, 1)
        return Order(min(words, max(1, int(per_second * taken))) if per_second else words, self._padding(), per_second)

    def long_order(self, seconds: float) -> Order:
        """Return an order that takes about that long."""
        per_second = self.random.uniform(20, 60)
        return Order(int(per_second * seconds), self._padding(), per_second)

    def asked(self, order: Order, pipelines: tuple[str, ...] = (), run_id: str = "") -> Asked:
        """Ask one of the pipelines, or any."""
        name = self.random.choice(pipelines or tuple(_KNOWN))
        first_seq, letter = _KNOWN[name]
        if letter is None and order.padding == 0:
            order = Order(order.words, 1, order.per_second)
        request = chat_pb2.ChatRequest(pipeline=name, run_id=run_id)
        if name == "provided" and self.random.random() < 0.5:  # noqa: PLR2004 - a coin
            request.api_key = self.random.choice(KEYS)
            order = Order(order.words, order.padding, order.per_second, order.fault, request.api_key)
        self._put(request, order.question())
        return Asked(request, Known(order, first_seq, letter))

    def _put(self, request: chat_pb2.ChatRequest, question: str) -> None:
        """Ask in one of the two ways."""
        if self.random.random() < 0.5:  # noqa: PLR2004 - a coin
            request.query = question
            return
        said = [
            (chat_pb2.ROLE_SYSTEM, "Count."),
            (chat_pb2.ROLE_USER, Order(words=3).question()),
            (chat_pb2.ROLE_ASSISTANT, Order(words=3).text()),
            (chat_pb2.ROLE_USER, question),
        ]
        for role, text in said:
            message = request.conversation.messages.add(role=role)
            message.parts.add(text=text)

    def _padding(self) -> int:
        return self.random.choice(PADDINGS)


# The number of each pipeline's first word, and the letter that pads its words.
_KNOWN: dict[str, tuple[int | None, str | None]] = {
    "counted": (2, "x"),
    "counted_threaded": (2, "x"),
    "provided": (2, "x"),
    "provided_threaded": (2, "x"),
    "documents": (3, "x"),
    "agent": (None, "x"),
    "changing": (2, None),
}
COUNTED = ("counted", "counted_threaded")
PROVIDED = ("provided", "provided_threaded")


@asynccontextmanager
async def ground(servers: Servers, tally: Tally, random: Random) -> AsyncGenerator[Ground]:
    """Open the channels that all share."""
    access = servers.access
    turns = (("grpc.service_config", json.dumps(TURNS)),)
    async with (
        access.channel(servers.steady.address) as steady,
        access.channel(servers.rolling.address) as rolling,
        access.channel(servers.both, turns) as both,
    ):
        stubs = (chat_pb2_grpc.ChatServiceStub(channel) for channel in (steady, rolling, both))
        yield Ground(servers, tally, random, *stubs)
