"""grpc.aio alone, without Haystack: one prebuilt message per word. What no server on grpc.aio can be better than."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import grpc.aio
import uvloop

from benchmarks.components.paced import schedule, seconds_until
from benchmarks.order import WORD, Order, Stamp
from benchmarks.servers.listening import announce
from haystream.v1 import chat_pb2, chat_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
)

Context = grpc.aio.ServicerContext[Any, Any]


def message(seq: int, text: str) -> chat_pb2.ChatResponse:
    """Return a word as the contract has it."""
    delta = chat_pb2.TextDelta(component="llm", delta=text)
    return chat_pb2.ChatResponse(event=chat_pb2.Event(seq=seq, text=delta))


@cache
def prebuilt(words: int) -> Sequence[chat_pb2.ChatResponse]:
    """Return a whole answer."""
    return [message(number, WORD) for number in range(1, words + 1)]


class BareServicer(chat_pb2_grpc.ChatServiceServicer):
    """Answers Chat alone."""

    async def Chat(  # type: ignore[override]  # the generated stub knows only the generator's form
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> None:
        order = Order.of(request.query)
        match request.pipeline:
            case "mock":
                for answer in prebuilt(order.words):
                    await context.write(answer)
            case "paced":
                await self._keep_time(order, context)
            case _:
                await context.send_initial_metadata(())
                await asyncio.get_running_loop().create_future()

    async def Resume(  # type: ignore[override]  # as Chat
        self, request: chat_pb2.ResumeRequest, context: Context
    ) -> None:
        raise NotImplementedError

    async def Cancel(self, request: chat_pb2.CancelRequest, context: Context) -> chat_pb2.CancelResponse:
        raise NotImplementedError

    async def ListPipelines(
        self, request: chat_pb2.ListPipelinesRequest, context: Context
    ) -> chat_pb2.ListPipelinesResponse:
        raise NotImplementedError

    async def GetPipeline(self, request: chat_pb2.GetPipelineRequest, context: Context) -> chat_pb2.GetPipelineResponse:
        raise NotImplementedError

    async def _keep_time(self, order: Order, context: Context) -> None:
        for seq, due_ns in enumerate(schedule(order), start=1):
            if wait := seconds_until(due_ns):
                await asyncio.sleep(wait)
            await context.write(message(seq, Stamp(due_ns, time.monotonic_ns()).text()))


async def main() -> None:
    server = grpc.aio.server(options=OPTIONS)  # pyright: ignore[reportUnknownMemberType]  # half typed in its stubs
    chat_pb2_grpc.add_ChatServiceServicer_to_server(BareServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    announce(port)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
