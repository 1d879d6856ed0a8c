"""The servicer: lets a caller in, starts the run, and gives its ending a status. Everything else happens elsewhere."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import grpc.aio

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.errors import NotOffered, Refusal
from haystream_service.requests import call_of
from haystream_service.responses import description_message, event_message, heartbeat_message, pipeline_message
from haystream_service.run.ending import DeadlineExceeded, Disconnected, Failed
from haystream_service.run.run import Budget
from haystream_service.run.writer import Writer
from haystream_service.status import DEFECT, status_of_ending, status_of_refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from structlog.typing import FilteringBoundLogger

    from haystream_service.pipelines.registry import PipelineRegistry
    from haystream_service.run.ending import Ending
    from haystream_service.run.events import Entry
    from haystream_service.run.run import Run
    from haystream_service.run.runs import Runs
    from haystream_service.status import Status

DEADLINE_SLACK = 0.02

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run and its reader may take."""

    run: Budget
    heartbeat_seconds: float
    slow_reader_seconds: float


@dataclass(frozen=True, slots=True)
class ChatReader:
    """The caller of a Chat, as the writer sees it. A write waits for as long as HTTP/2's flow control says."""

    context: Context

    async def send(self, entry: Entry) -> None:
        """Send an event."""
        await self.context.write(chat_pb2.ChatResponse(event=event_message(entry)))

    async def beat(self, seq: int) -> None:
        """Send a heartbeat."""
        await self.context.write(chat_pb2.ChatResponse(event=heartbeat_message(seq)))


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    """Answers the RPCs of `haystream.v1.ChatService`."""

    def __init__(self, registry: PipelineRegistry, runs: Runs, limits: Limits, log: FilteringBoundLogger) -> None:
        self._registry = registry
        self._runs = runs
        self._limits = limits
        self._log = log

    # A coroutine that writes, rather than a generator that yields: it learns at once when its caller goes.
    async def Chat(  # type: ignore[override]  # the generated stub knows only the generator's form
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> None:
        async with self._answering(context):
            self._runs.admit(request.run_id)
            name, work = self._registry.work(request.pipeline, call_of(request))
            run = self._runs.start(request.run_id, name, self._budget(context), work)
            await self._stream(run, context)

    async def Resume(  # type: ignore[override]  # as Chat
        self, request: chat_pb2.ResumeRequest, context: Context
    ) -> None:
        async with self._answering(context):
            raise NotOffered("Resume")

    async def Cancel(self, request: chat_pb2.CancelRequest, context: Context) -> chat_pb2.CancelResponse:
        async with self._answering(context):
            raise NotOffered("Cancel")

    async def ListPipelines(
        self, request: chat_pb2.ListPipelinesRequest, context: Context
    ) -> chat_pb2.ListPipelinesResponse:
        async with self._answering(context):
            return chat_pb2.ListPipelinesResponse(
                pipelines=[pipeline_message(slot) for slot in self._registry.slots.values()],
                default_pipeline=self._registry.default,
            )

    async def GetPipeline(self, request: chat_pb2.GetPipelineRequest, context: Context) -> chat_pb2.GetPipelineResponse:
        async with self._answering(context):
            slot = self._registry.slot(request.name)
            return description_message(slot, slot.ready())

    def _budget(self, context: Context) -> Budget:
        """Return what the run may use: the caller's deadline counts where it is the shorter one."""
        budget = self._limits.run
        remaining = _time_remaining(context)
        seconds = budget.seconds if remaining is None else min(budget.seconds, remaining)
        return Budget(seconds, budget.queue_bytes, budget.replay_bytes)

    async def _stream(self, run: Run, context: Context) -> None:
        limits = self._limits
        writer = Writer(
            run,
            ChatReader(context),
            heartbeat_seconds=limits.heartbeat_seconds,
            slow_reader_seconds=limits.slow_reader_seconds,
        )
        ending: Ending = Disconnected()
        request_id = _request_id(context)
        try:
            ending = await writer.follow()
        except asyncio.CancelledError:
            ending = _departure(context, run.seconds)
            raise
        except grpc.aio.BaseError:  # the caller went away in the middle of a write: there is nobody to tell
            ending = _departure(context, run.seconds)
            return
        except Exception as error:  # noqa: BLE001 - a defect in what is sent has to end the run, too
            ending = Failed(error)
        finally:
            run.stop(ending)  # changes nothing where the run has ended by itself
            self._report(run, ending, writer.delivered_seq, request_id)
        trailers = {"run_id": run.id, "last_seq": str(writer.delivered_seq)}
        status = status_of_ending(ending)
        if status is DEFECT:
            trailers["request_id"] = request_id
        if status is not None:
            await _abort(context, status, trailers)
        context.set_trailing_metadata(_trailing_metadata(trailers))

    def _report(self, run: Run, ending: Ending, last_seq: int, request_id: str) -> None:
        """Log how a run ended for its reader, with the whole story where a component failed."""
        log = self._log.bind(run_id=run.id, request_id=request_id, pipeline=run.pipeline, last_seq=last_seq)
        if isinstance(ending, Failed):
            log.error("run failed", exc_info=ending.error)
        else:
            log.info("run ended", ending=type(ending).__name__)

    @asynccontextmanager
    async def _answering(self, context: Context) -> AsyncGenerator[None]:
        """Turn what goes wrong into a status. Nothing else may leave a handler: gRPC would send its text out."""
        try:
            yield
        except Refusal as refusal:
            await _abort(context, status_of_refusal(refusal), {})
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect, whatever it is, has to become a status
            request_id = _request_id(context)
            self._log.error("defect", request_id=request_id, exc_info=error)
            await _abort(context, DEFECT, {"request_id": request_id})


async def _abort(context: Context, status: Status, metadata: dict[str, str]) -> NoReturn:
    trailers = (*_trailing_metadata(metadata), *status.trailers(metadata))
    await context.abort(status.code, status.message, trailers)


def _trailing_metadata(metadata: dict[str, str]) -> tuple[tuple[str, str | bytes], ...]:
    names = {"run_id": "x-run-id", "last_seq": "x-last-seq"}
    return tuple((names[name], value) for name, value in metadata.items() if name in names)


def _departure(context: Context, run_seconds: float) -> Ending:
    """Tell why a caller is gone: `cancelled()` is False in every case, but a deadline leaves next to no time.

    The header that carries a deadline rounds it up by as much as a per cent, so the caller's own clock is the first.
    """
    remaining = _time_remaining(context)
    is_over = remaining is not None and remaining <= DEADLINE_SLACK * run_seconds
    return DeadlineExceeded() if is_over else Disconnected()


def _time_remaining(context: Context) -> float | None:
    """Return the seconds until the caller's deadline; None where there is none, which the stubs do not know."""
    return context.time_remaining()


def _request_id(context: Context) -> str:
    """Return the caller's id of the request, where it is fit to be printed, or a new one."""
    for name, value in context.invocation_metadata() or ():
        if name == "x-request-id" and isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable():  # noqa: PLR2004
            return value
    return secrets.token_hex(8)
