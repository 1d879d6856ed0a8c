"""Reads the JSON of a request, within limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from haystream_gateway.problems import Code, Problem, Rejection, invalid

if TYPE_CHECKING:
    from starlette.requests import Request

# What the service takes in one message, and the third that base64 adds to a picture.
MAX_BODY_BYTES = 6 * 1024 * 1024
BODY_SECONDS = 30.0

UNSUPPORTED_MEDIA_TYPE = Problem(
    Code.INVALID_ARGUMENT,
    "UNSUPPORTED_MEDIA_TYPE",
    "Content-Type: expected application/json",
    errors=[{"field": "Content-Type", "message": "expected application/json"}],
    own_http_status=415,
)
BODY_TOO_LARGE = Problem(
    Code.INVALID_ARGUMENT,
    "BODY_TOO_LARGE",
    f"body: expected at most {MAX_BODY_BYTES} bytes",
    errors=[{"field": "body", "message": f"expected at most {MAX_BODY_BYTES} bytes"}],
    own_http_status=413,
)
BODY_TOO_SLOW = Problem(
    Code.INVALID_ARGUMENT,
    "BODY_TOO_SLOW",
    f"body: expected all of it within {BODY_SECONDS:.0f} seconds",
    errors=[{"field": "body", "message": f"expected all of it within {BODY_SECONDS:.0f} seconds"}],
    own_http_status=408,
)

Body = TypeVar("Body", bound=BaseModel)


async def body_of(request: Request, form: type[Body], seconds: float = BODY_SECONDS) -> Body:
    """Read the JSON of a request. Raises Rejection for what is too large, too slow, not JSON, not UTF-8, or wrong."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        # A page of another site can post a form, or plain text, without asking; JSON it cannot.
        raise Rejection(UNSUPPORTED_MEDIA_TYPE)
    try:
        async with asyncio.timeout(seconds):
            return form.model_validate_json(await _bounded_body(request))
    except TimeoutError:
        raise Rejection(BODY_TOO_SLOW) from None
    except ValidationError as error:
        raise invalid(*map(_complaint, error.errors(include_url=False, include_context=False))) from None


async def _bounded_body(request: Request) -> bytes:
    # FastAPI has a limit of its own, which answers in plain text.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Rejection(BODY_TOO_LARGE)
    return bytes(body)


def _complaint(error: Any) -> tuple[str, str]:
    return ".".join(str(part) for part in error["loc"]) or "body", error["msg"]
