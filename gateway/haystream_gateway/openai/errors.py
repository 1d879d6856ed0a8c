"""Problems in OpenAI's shape: as an answer with a status, or as the last frame of a stream that had begun."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse

from haystream_gateway.openai.ending import EXTRAS
from haystream_gateway.problems import Code, Rejection, clipped
from haystream_gateway.sse import frame

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    from haystream_gateway.problems import Problem

BAD_REQUEST = 400
SERVER_ERRORS = 500
GENERATION_KWARGS = "generation_kwargs"

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@dataclass(frozen=True, slots=True)
class _Known:
    """What OpenAI's callers know a reason by, where that is not the reason itself."""

    param: str | None
    code: str = ""
    message: str = ""


_KNOWN = {
    "API_KEY_REQUIRED": _Known(
        "haystream.api_key", message="this model has no provider key of its own; send yours in `haystream.api_key`"
    ),
    "COMPLETION_TOO_LARGE": _Known("stream"),
    "PIPELINE_LOADING": _Known("model"),
    "PIPELINE_NOT_FOUND": _Known("model", "model_not_found"),
    "PIPELINE_NOT_LOADED": _Known("model"),
    "RUN_EXISTS": _Known("haystream.run_id"),
}

# The contract's fields, by the names that OpenAI's callers send; None for what is no field of the body's.
_PARAMS = {
    "Authorization": None,
    "Content-Type": None,
    "body": None,
    "pipeline": "model",
    "conversation": "messages",
    "disconnect_grace": f"{EXTRAS}.disconnect_grace_seconds",
}
_EXTRA_PARAMS = frozenset({"inputs", "streaming_components", "run_id", "api_key", "on_disconnect"})

# What is inside a message.
_INDEX = re.compile(r"\.(\d+)(?=\.|$)")
_RESULT_ID = re.compile(r"\.tool_results\[\d+\]\.id$")
_NAME = re.compile(r"[A-Za-z_]+")


def response_of(problem: Problem) -> JSONResponse:
    """Return a problem as an answer. OpenAI's clients repeat by themselves only what may succeed then."""
    should_retry = "false" if problem.retry_seconds is None else "true"
    headers = {**problem.headers, "X-Should-Retry": should_retry}
    return JSONResponse({"error": error_of(problem)}, _status(problem), headers)


def error_frame(problem: Problem) -> bytes:
    """Return the frame that ends a stream which failed."""
    return frame("", {"error": error_of(problem)})


def error_of(problem: Problem) -> dict[str, Any]:
    """Return OpenAI's error object."""
    known = _KNOWN.get(problem.reason, _Known(None))
    complaints = [(_param(error["field"]), error["message"]) for error in problem.errors]
    message = known.message or problem.message
    if complaints and not known.param:
        message = "; ".join(f"{param}: {words}" if param else words for param, words in complaints)
    return {
        "message": message.replace("pipeline: ", "model: ", 1),
        "type": _type(_status(problem)),
        "param": known.param or next((param for param, _ in complaints), None),
        "code": known.code or problem.reason.lower(),
    }


@contextmanager
def settings_named(settings: Collection[str]) -> Generator[None]:
    """Have a refusal of generation settings name the one that is meant: no caller here has sent `generation_kwargs`."""
    try:
        yield
    except Rejection as rejection:
        errors = [
            {**error, "field": clipped(_setting(error["message"], settings))}
            if error["field"] == GENERATION_KWARGS
            else error
            for error in rejection.problem.errors
        ]
        raise Rejection(replace(rejection.problem, errors=errors)) from None


def _setting(complaint: str, settings: Collection[str]) -> str:
    """Return the first setting that a complaint names, or else, since it is about all of them, the first one."""
    words = set(_NAME.findall(complaint))
    return next((name for name in settings if name in words), next(iter(settings), GENERATION_KWARGS))


def _status(problem: Problem) -> int:
    """Return the status that OpenAI's clients know: 400 for whatever is wrong about a request."""
    is_invalid = problem.code in {Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE} and not problem.own_http_status
    return BAD_REQUEST if is_invalid else problem.http_status


def _type(status: int) -> str:
    return _TYPES.get(status, "server_error" if status >= SERVER_ERRORS else "invalid_request_error")


def _param(field: str) -> str | None:
    """Return the parameter that a field is sent as; None for what is none."""
    if field in _PARAMS:
        return _PARAMS[field]
    head = re.split(r"[.\[]", field, maxsplit=1)[0]
    if head in _EXTRA_PARAMS:
        return f"{EXTRAS}.{field}"
    return _RESULT_ID.sub(".tool_call_id", _INDEX.sub(r"[\1]", field))
