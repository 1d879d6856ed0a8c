"""What can be wrong with a request or with a pipeline's file, in words that may reach a caller.

These errors know no status codes: `status` maps them, once, at the edge of the RPC.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Refusal(Exception):
    """The request cannot be served as it is. Its text is meant for the caller."""


# Details of over about 4 KB endanger the 16 KB that all metadata of a call share; then all of them are lost.
MAX_VIOLATIONS = 6


@dataclass(frozen=True, slots=True)
class Violation:
    """A field of the request, and what would be right there."""

    field: str
    description: str


def told(violations: Iterable[Violation]) -> list[Violation]:
    """Return as many as a caller is told of. The others are not looked for: there may be one for each value."""
    return list(islice(violations, MAX_VIOLATIONS))


class InvalidRequest(Refusal):
    """One or more fields of the request are wrong: the first of them, to be taken by `told`."""

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = violations


class MalformedMessage(Refusal):
    """What was sent is no message of the contract."""

    def __init__(self) -> None:
        super().__init__("the request is not a message of its contract, such as haystream/v1/chat.proto")


class RequestIncomplete(Refusal):
    """A call came without its request."""

    def __init__(self) -> None:
        super().__init__("the request did not come in time, or others of yours before it; send each with its call")


class TooManyStreams(Refusal):
    """As many streams of strangers' are open as may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"all {limit} streams of this kind are taken; do without one")


class TooManyStreamsOfYours(Refusal):
    """The connection has as many streams of a kind as one may have without a word about who calls."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"your connection has {limit} such streams open, and may have no more; close some")


class TooManyRequestsOfYours(Refusal):
    """As many of the caller's requests are still to come as may be, and one more has waited for long."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} requests of yours are still to come; send fewer at once, and try again")


class TooMuchMetadata(Refusal):
    """The call brings more metadata than it may."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the metadata of a call may have at most {limit_bytes} bytes, and 32 count for each entry")


class NotAuthenticated(Refusal):
    """Nobody who may call. `reason` is one of the contract's words; the text never says what was sent."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(cure)
        self.reason = reason


class IdentityUnavailable(Refusal):
    """Who calls cannot be told just now: the issuer's keys are not to be had."""

    def __init__(self) -> None:
        super().__init__("the keys that your token would be checked with are not to be had; try again in a moment")


class PipelineForbidden(Refusal):
    """The caller may not call this pipeline. Whether there is one is not said."""

    def __init__(self, name: str) -> None:
        super().__init__(f"pipeline: you may not call {name!r}; ListPipelines names those that you may")


class ApiKeyForbidden(Refusal):
    """The caller may not bring a provider's key."""

    def __init__(self) -> None:
        super().__init__("api_key: you may not bring a provider's key of your own; leave it out")


class PipelineNotFound(Refusal):
    """No pipeline has this name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"pipeline: there is no {name!r}; this service has {named(known)}")


class PipelineNotReady(Refusal):
    """The pipeline is still being loaded, or could not be."""

    def __init__(self, name: str, why: str, *, loading: bool) -> None:
        super().__init__(f"pipeline: {name!r} is not ready: {why}")
        self.loading = loading


class ApiKeyRequired(Refusal):
    """The service has no key of its own for this pipeline's provider, and the request brought none."""

    def __init__(self, name: str) -> None:
        super().__init__(f"api_key: pipeline {name!r} has no provider key of its own; send yours in `api_key`")


class RunExists(Refusal):
    """The caller's id is that of a run that was asked something else."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run_id: {run_id!r} is taken by a run that was asked something else; choose another id")


class RunNotFound(Refusal):
    """No run of the caller's has this id, or it is over and no longer kept."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run_id: there is no run {run_id!r}, or it is over and was forgotten")


class TooManyRuns(Refusal):
    """The service has as many runs as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"all {limit} runs of this service are taken; try again in a moment")


class TooManyRunsOfYours(Refusal):
    """The caller has as many runs as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"you have {limit} runs, and may have no more at once; try again when one of them is over")


class TooManyRunsAMinute(Refusal):
    """The caller begins runs more often than it may. `retry_seconds` is when the next one fits."""

    def __init__(self, limit: int, retry_seconds: float) -> None:
        super().__init__(f"you may begin {limit} runs a minute; try again in {retry_seconds:.1f} s")
        self.retry_seconds = retry_seconds


class TooManyReaders(Refusal):
    """The service has as many readers as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"all {limit} readers that this service may have are there; try again in a moment")


class TooManyReadersOfYours(Refusal):
    """The caller has as many readers as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"you have {limit} readers, and may have no more at once; try again when one of them is done")


class TooManyImages(Refusal):
    """As many requests as may are being given the images behind their URLs."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the images of {limit} other requests are being fetched; try again in a moment")


class ServiceDraining(Refusal):
    """The service is shutting down."""

    def __init__(self) -> None:
        super().__init__("the service is shutting down; try again elsewhere, or in a moment")


class ComponentFailed(Exception):
    """A component failed in a pipeline that does not tell which. The cause is what it raised."""


class PipelineBuildFailed(Exception):
    """A pipeline could not be built with the caller's key. The cause is what its file raised."""


class CannotServe(Exception):
    """The service cannot begin. The text is one line for its operator: the setting, what is wrong, and the cure."""


class IdentityFileError(CannotServe):
    """A file that says who may call is wrong at start. The text names the setting and the cure, and no secret."""


class PipelineFileError(CannotServe):
    """A pipeline's file is wrong in a way that its owner can mend. The text names the cure and no secret."""


def named(names: list[str]) -> str:
    """Return the names as a phrase for people."""
    return ", ".join(sorted(names)) if names else "none"
