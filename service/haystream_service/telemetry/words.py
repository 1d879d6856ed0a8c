"""The words that endings have in lines, metrics and spans: those that callers see. All are few and known before."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from haystream_service import errors
from haystream_service.identity import refusals
from haystream_service.run.ending import (
    Cancelled,
    Completed,
    DeadlineExceeded,
    Disconnected,
    Drained,
    Failed,
    Failure,
    FailureKind,
    ReaderTooSlow,
)
from haystream_service.run.events import FinishReason
from haystream_service.status import DEFECT, status_of_ending, status_of_refusal

if TYPE_CHECKING:
    from haystream_service.run.ending import Ending

LONGEST_NAME = 128

_PLAIN = re.compile(rf"[\w.:/@+-]{{1,{LONGEST_NAME}}}")


def word_of(ending: Ending | None) -> str:
    """Return the word for an ending; for the pipeline's own end, the reason that the model gave."""
    if isinstance(ending, Completed):
        return ending.reason.name
    status = status_of_ending(ending) if ending is not None else None
    return (status or DEFECT).reason


def every_ending() -> tuple[str, ...]:
    """Return all words that a run's ending can have."""
    endings: list[Ending] = [Completed(reason) for reason in FinishReason]
    endings += [Cancelled(), DeadlineExceeded(), Disconnected(), Drained(), ReaderTooSlow()]
    endings += [Failed(Failure(kind)) for kind in FailureKind]
    return tuple(word_of(ending) for ending in endings)


def every_refusal() -> tuple[str, ...]:
    """Return all reasons with which a request can be refused."""
    some: list[errors.Refusal] = [
        errors.InvalidRequest(),
        errors.MalformedMessage(),
        errors.RequestIncomplete(),
        errors.TooManyStreams(0),
        errors.TooManyStreamsOfYours(0),
        errors.TooManyRequestsOfYours(0),
        errors.TooMuchMetadata(0),
        refusals.credentials_missing(""),
        refusals.token_invalid(),
        refusals.token_expired(),
        refusals.certificate_invalid(),
        errors.IdentityUnavailable(),
        errors.PipelineForbidden(""),
        errors.ApiKeyForbidden(),
        errors.PipelineNotFound("", []),
        errors.PipelineNotReady("", "", loading=True),
        errors.PipelineNotReady("", "", loading=False),
        errors.ApiKeyRequired(""),
        errors.RunExists(""),
        errors.RunNotFound(""),
        errors.TooManyRuns(0),
        errors.TooManyRunsOfYours(0),
        errors.TooManyRunsAMinute(0, 0),
        errors.TooManyReaders(0),
        errors.TooManyReadersOfYours(0),
        errors.TooManyImages(0),
        errors.ServiceDraining(),
    ]
    return tuple(status_of_refusal(refusal).reason for refusal in some)


def printable(name: str) -> str:
    """Return a name that a caller has chosen so that it cannot pass for anything else in a line: quoted, escaped."""
    return name if _PLAIN.fullmatch(name) else repr(name[:LONGEST_NAME])
