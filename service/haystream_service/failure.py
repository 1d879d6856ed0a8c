"""What made a component fail, told from what its exception carries. Imports no provider's package, reads no message."""

from __future__ import annotations

import math
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from haystream_service.errors import ComponentFailed, PipelineBuildFailed
from haystream_service.run.ending import Failure, FailureKind

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_RETRY_SECONDS = 3600.0

# Names of the base classes that openai, anthropic and httpx share or resemble each other in.
_TIMEOUTS = frozenset({"TimeoutError", "APITimeoutError", "TimeoutException"})
_CONNECTION_ERRORS = frozenset({"ConnectionError", "APIConnectionError", "TransportError"})


def failure_of(error: BaseException) -> Failure:
    """Find out what made a run fail."""
    chain = list(_causes(error))
    if isinstance(error, PipelineBuildFailed):
        told = (_kind_of_status(status) for link in chain if (status := _http_status(link)) is not None)
        return Failure(next(filter(None, told), FailureKind.PIPELINE_BUILD_FAILED))
    component = next((name for link in chain if isinstance(name := getattr(link, "component_name", None), str)), "")
    for link in chain:
        if (kind := _provider_kind(link)) is not None:
            return Failure(kind, component, _retry_after(link))
    is_component = component or isinstance(error, ComponentFailed)
    return Failure(FailureKind.COMPONENT_FAILED if is_component else FailureKind.DEFECT, component)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _provider_kind(error: BaseException) -> FailureKind | None:
    status = _http_status(error)
    if status is not None:
        return _kind_of_status(status)
    names = {base.__name__ for base in type(error).__mro__}
    if names & _TIMEOUTS:
        return FailureKind.PROVIDER_TIMEOUT
    if names & _CONNECTION_ERRORS:
        return FailureKind.PROVIDER_UNAVAILABLE
    return None


def _kind_of_status(status: int) -> FailureKind | None:
    match status:
        case 401 | 403:
            return FailureKind.PROVIDER_AUTH
        case 429:
            return FailureKind.PROVIDER_BUSY
        case 400 | 413 | 422:
            return FailureKind.PROVIDER_REJECTED
        case 408 | 504:
            return FailureKind.PROVIDER_TIMEOUT
        case _ if status >= 500:  # noqa: PLR2004 - HTTP's server errors
            return FailureKind.PROVIDER_UNAVAILABLE
        case _:
            return None


def _http_status(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    value = headers.get("retry-after") if headers is not None else None
    if not isinstance(value, str):
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return min(max(seconds, 0.0), LONGEST_RETRY_SECONDS) if math.isfinite(seconds) else None


def _seconds_until(date: str) -> float:
    """Return the seconds until a date in HTTP's form; not a number for anything else."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (TypeError, ValueError):  # the former in older Pythons
        return math.nan
