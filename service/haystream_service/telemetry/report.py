"""The lines about runs and refusals: who, what, how it ended, how long it took. Never content, never a secret."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

from haystream_service.logs import redacted
from haystream_service.status import DEFECT, status_of_refusal
from haystream_service.stories import story_of
from haystream_service.telemetry.caller import caller
from haystream_service.telemetry.flood import FloodGate
from haystream_service.telemetry.words import printable, word_of

if TYPE_CHECKING:
    from collections.abc import Container

    from structlog.typing import FilteringBoundLogger

    from haystream_service.errors import Refusal
    from haystream_service.run.run import Run

DIGITS = 6  # of seconds: microseconds


class Report:
    """Writes one line for each run that ends and for each request that is refused.

    An exception's own words quote what users wrote: they are there at level debug alone.
    """

    def __init__(self, log: FilteringBoundLogger, gate: FloodGate | None = None) -> None:
        self._log = log
        self._gate = gate or FloodGate()

    def run_ended(self, run: Run, error: BaseException | None, *, request_id: str, api_key: str) -> None:
        """Tell how a run ended; where a component failed, with the place, but not with the caller's key."""
        pace = run.pace
        first = pace.first_chunk_seconds
        log = self._log.bind(
            run_id=run.id,
            request_id=printable(request_id),
            principal=printable(run.record.principal),
            pipeline=run.record.pipeline,
            ending=word_of(run.ending),
            first_chunk_seconds=None if first is None else round(first, DIGITS),
            seconds=round(pace.seconds, DIGITS),
            chunks=pace.chunks,
            bytes=pace.chunk_bytes,
            prompt_tokens=sum(usage.prompt_tokens for usage in run.usage),
            completion_tokens=sum(usage.completion_tokens for usage in run.usage),
        )
        if error is None:
            log.info("run ended")
        else:
            log.error("run failed", exception=self._story(error, api_key))

    def refused(self, refusal: Refusal, *, request_id: str, principal: str, pipeline: str) -> None:
        """Tell that a request was refused, unless too many are. Of a pipeline only the name of one that there is."""
        reason = status_of_refusal(refusal).reason
        left_out = self._gate.left_out(reason)
        if left_out is None:
            return
        known = {"principal": printable(principal)} if principal else {}
        known |= {"pipeline": pipeline} if pipeline else {}
        known |= _where_from()
        more = {"left_out": left_out} if left_out else {}
        self._log.info("refused", reason=reason, request_id=printable(request_id), **known, **more)

    def defect(self, error: BaseException, *, request_id: str, run_id: str = "") -> None:
        """Tell of a defect of the service's own, unless too many are: strangers can meet one as often as they like."""
        left_out = self._gate.left_out(DEFECT.reason)
        if left_out is None:
            return
        known: dict[str, Any] = {"run_id": run_id} if run_id else {}
        known |= {"left_out": left_out} if left_out else {}
        self._log.error("defect", request_id=printable(request_id), exception=self._story(error), **known)

    def _story(self, error: BaseException, api_key: str = "") -> str:
        if self._log.is_enabled_for(logging.DEBUG):
            return redacted("".join(traceback.format_exception(error)), [api_key])
        return redacted(story_of(error), [api_key])


def _where_from() -> dict[str, str]:
    by = caller.get()
    return {} if by is None else {"peer": by.peer, "method": by.method}


def own_name(pipeline: str, known: Container[str]) -> str:
    """Return a pipeline's name as it was asked for, where there is one of that name; else nothing."""
    return pipeline if pipeline in known else ""
