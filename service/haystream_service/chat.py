"""The servicer: lets a caller in, starts or finds the run, and gives its ending a status. The rest is elsewhere."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import grpc.aio

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.entrance.door import caller
from haystream_service.errors import ApiKeyForbidden, InvalidRequest, PipelineForbidden, Refusal, RunExists, Violation
from haystream_service.identity.principal import ANYONE
from haystream_service.pipelines.call import Image
from haystream_service.requests import call_of, check_run_id, on_disconnect_of, request_hash
from haystream_service.responses import description_message, pipeline_message
from haystream_service.rpc import abort, headers, request_id_of
from haystream_service.run.ending import WORTH_RETRYING, Failed, Failure, FailureKind
from haystream_service.run.quota import Quota
from haystream_service.run.run import Budget
from haystream_service.run.runs import new_run_id
from haystream_service.run.store import RunRecord
from haystream_service.run.writer import Patience, Writer
from haystream_service.status import DEFECT, status_of_ending, status_of_refusal
from haystream_service.stream import StreamReader, time_remaining

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from haystream_service.attachments import Attachments
    from haystream_service.identity.principal import Principal
    from haystream_service.pipelines.call import Call
    from haystream_service.pipelines.registry import PipelineRegistry
    from haystream_service.rpc import Context
    from haystream_service.run.ending import Ending
    from haystream_service.run.run import OnDisconnect, Run
    from haystream_service.run.runs import Runs
    from haystream_service.run.store import EndedRun
    from haystream_service.sizes import RequestLimits
    from haystream_service.telemetry.observer import Observer


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request, a run and its reader may take."""

    run: Budget
    reader: Patience
    request: RequestLimits


class ChatServicer(chat_pb2_grpc.ChatServiceServicer):
    """Answers the RPCs of `haystream.v1.ChatService`."""

    def __init__(
        self,
        registry: PipelineRegistry,
        attachments: Attachments,
        runs: Runs,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self._registry = registry
        self._attachments = attachments
        self._runs = runs
        self._limits = limits
        self._observer = observer

    # A coroutine that writes, rather than a generator that yields: it learns at once when its caller goes.
    async def Chat(  # type: ignore[override]  # the generated stub knows only the generator's form
        self, request: chat_pb2.ChatRequest, context: Context
    ) -> None:
        async with self._answering(context, request.pipeline):
            run = await self._run_of(request, context)
            await self._stream(run, StreamReader(context, chat_pb2.ChatResponse), leads=True)

    async def Resume(  # type: ignore[override]  # as Chat
        self, request: chat_pb2.ResumeRequest, context: Context
    ) -> None:
        async with self._answering(context):
            check_run_id(request.run_id)
            run = await self._runs.get(request.run_id, caller.get().name)
            _check_rights(run)
            if request.after_seq > run.log.last_seq:
                cure = f"this run has come to {run.log.last_seq}; send the number of the last event that you have"
                raise InvalidRequest(Violation("after_seq", cure))
            reader = StreamReader(context, chat_pb2.ResumeResponse)
            await self._stream(run, reader, leads=False, after_seq=request.after_seq)

    async def Cancel(self, request: chat_pb2.CancelRequest, context: Context) -> chat_pb2.CancelResponse:
        async with self._answering(context):
            check_run_id(request.run_id)
            await self._runs.cancel(request.run_id, caller.get().name)
            return chat_pb2.CancelResponse()

    async def ListPipelines(
        self, request: chat_pb2.ListPipelinesRequest, context: Context
    ) -> chat_pb2.ListPipelinesResponse:
        async with self._answering(context):
            may_call = caller.get().rights.may_call
            return chat_pb2.ListPipelinesResponse(
                pipelines=[pipeline_message(slot) for name, slot in self._registry.slots.items() if may_call(name)],
                default_pipeline=self._registry.default_for(may_call),
            )

    async def GetPipeline(self, request: chat_pb2.GetPipelineRequest, context: Context) -> chat_pb2.GetPipelineResponse:
        async with self._answering(context, request.name):
            slot = self._registry.slot(request.name, caller.get().rights.may_call)
            return description_message(slot, slot.ready())

    async def _run_of(self, request: chat_pb2.ChatRequest, context: Context) -> Run | EndedRun:
        """Return the run that a request attaches to, or else the one that it starts."""
        principal = caller.get()
        quota = _quota_of(principal)
        if request.api_key and not principal.rights.own_api_key:
            raise ApiKeyForbidden
        if not await self._is_known(request.run_id):  # what has no place is refused before anything is done for it
            self._runs.admit(principal.name, quota)
            self._registry.slot(request.pipeline, principal.rights.may_call)
        call = call_of(request, self._limits.request)
        asked = request_hash(request)
        if run := await self._asked_before(request.run_id, asked):
            return run
        if _has_urls(call):
            async with self._runs.holding(principal.name, quota):
                self._registry.slot(request.pipeline, principal.rights.may_call).ready()
                call = replace(call, messages=await self._attachments.fetched(call.messages))
                if run := await self._asked_before(request.run_id, asked):  # in the meantime
                    return run
        self._runs.admit(principal.name, quota)
        job = self._registry.job(request.pipeline, call, principal.rights.may_call)
        on_disconnect = on_disconnect_of(request)
        record = RunRecord(request.run_id or new_run_id(), principal.name, job.pipeline, asked)
        budget = self._budget(context, on_disconnect, job.seconds)
        with self._observer.starting(record, request_id_of(context), call.api_key) as on_ended:
            return self._runs.start(record, quota, budget, on_disconnect, job.work, on_ended)

    async def _is_known(self, run_id: str) -> bool:
        """Tell whether a call may attach to a run, which needs no place of its own."""
        return bool(run_id) and await self._runs.find(run_id, caller.get().name) is not None

    async def _asked_before(self, run_id: str, asked: bytes) -> Run | EndedRun | None:
        """Return the run of an id to attach to; None where there is none. Raises RunExists where it was asked else."""
        run = await self._runs.find(run_id, caller.get().name) if run_id else None
        if run is None or _is_to_be_repeated(run.ending):
            return None
        _check_rights(run)
        if run.record.request_hash != asked:
            raise RunExists(run_id)
        return run

    def _budget(self, context: Context, on_disconnect: OnDisconnect, seconds: float | None) -> Budget:
        """Return what the run may use: the caller's deadline counts unless the run is to outlive its caller."""
        limits = [self._limits.run.seconds, seconds, None if on_disconnect.goes_on else time_remaining(context)]
        return Budget(min(limit for limit in limits if limit is not None), self._limits.run.queue_bytes)

    async def _stream(self, run: Run | EndedRun, reader: StreamReader, *, leads: bool, after_seq: int = 0) -> None:
        """Stream a run to a reader until it has ended, and give that a status."""
        context = reader.context
        self._observer.reads(run)
        writer = Writer(run, reader, self._limits.reader, leads=leads, after_seq=after_seq)
        principal = caller.get()
        with self._runs.reading(writer, principal.name, _quota_of(principal)):
            if run.ending is None and not leads:  # it may say nothing for a while: who came back is to know it is there
                await context.send_initial_metadata(headers({"run_id": run.record.id}))
            try:
                ending: Ending = await writer.follow()
            except grpc.aio.BaseError:  # no defect: the caller went away
                raise
            except Exception as error:  # noqa: BLE001 - a defect in what is sent has to become a status, too
                self._observer.defect(error, request_id_of(context), run.record.id)
                ending = Failed(Failure(FailureKind.DEFECT))
        self._observer.has_read(ending)
        status = status_of_ending(ending)
        trailers = {"run_id": run.record.id, "last_seq": str(writer.delivered_seq)}
        if status is None:
            context.set_trailing_metadata(headers(trailers))
            return
        if status is DEFECT:
            trailers["request_id"] = request_id_of(context)
        for usage in run.usage:
            for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
                trailers[name] = str(int(trailers.get(name, "0")) + getattr(usage, name))
        await abort(context, status, trailers)

    @asynccontextmanager
    async def _answering(self, context: Context, pipeline: str = "") -> AsyncGenerator[None]:
        """Turn what goes wrong into a status. Nothing else may leave a handler: gRPC would send its text out."""
        try:
            yield
        except Refusal as refusal:
            principal = caller.get().name
            self._observer.refused(refusal, request_id_of(context), principal=principal, pipeline=pipeline)
            await abort(context, status_of_refusal(refusal), {})
        except grpc.aio.BaseError:  # an abort; or the caller went away in the middle of a write, and nobody is told
            raise
        except Exception as error:  # noqa: BLE001 - a defect, whatever it is, has to become a status
            request_id = request_id_of(context)
            self._observer.defect(error, request_id)
            await abort(context, DEFECT, {"request_id": request_id})


def _quota_of(principal: Principal) -> Quota:
    rights = principal.rights
    return Quota(rights.max_runs, rights.runs_per_minute, is_shared=principal.name != ANYONE.name)


def _check_rights(run: Run | EndedRun) -> None:
    """Raise PipelineForbidden where a right was taken from the caller since its run began."""
    if not caller.get().rights.may_call(run.record.pipeline):
        raise PipelineForbidden(run.record.pipeline)


def _has_urls(call: Call) -> bool:
    return any(isinstance(part, Image) and part.url for message in call.messages for part in message.parts)


def _is_to_be_repeated(ending: Ending | None) -> bool:
    """Whether the same request again wants another run: the caller was told to try again, and nothing else helps."""
    return isinstance(ending, Failed) and ending.failure.kind in WORTH_RETRYING
