"""Reads the JSON of a request, within limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from haystream_gateway.problems import Code, Problem, Rejection, invalid
from haystream_gateway.sizes import MAX_BODY_VALUES, has_more_values

if TYPE_CHECKING:
    from starlette.requests import Request

# What the service takes in one message, and the third that base64 adds to a picture.
MAX_BODY_BYTES = 6 * 1024 * 1024
BODY_SECONDS = 30.0

# What is told of a body that is wrong in many ways. pydantic makes a list of all, or of none: of more than these it is
# not asked to.
MAX_COMPLAINTS = 6
MAX_LISTED = 100

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
            body = await _bounded_body(request)
    except TimeoutError:
        raise Rejection(BODY_TOO_SLOW) from None
    if has_more_values(body, MAX_BODY_VALUES):
        raise invalid(("body", f"expected at most {MAX_BODY_VALUES} values"))
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        raise invalid(*_complaints(error)) from None


async def _bounded_body(request: Request) -> bytes:
    # FastAPI has a limit of its own, which answers in plain text.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Rejection(BODY_TOO_LARGE)
    return bytes(body)


def _complaints(error: ValidationError) -> list[tuple[str, str]]:
    """Return the first fields that are wrong, and why."""
    if error.error_count() > MAX_LISTED:
        return [("body", f"{error.error_count()} of its fields are wrong")]
    listed = error.errors(include_url=False, include_context=False, include_input=False)
    return [(".".join(map(str, complaint["loc"])) or "body", complaint["msg"]) for complaint in listed[:MAX_COMPLAINTS]]
