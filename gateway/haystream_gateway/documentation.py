"""The OpenAPI document: what the code does not say by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from haystream_gateway import metrics, sse
from haystream_gateway.problems import MEDIA_TYPE
from haystream_gateway.schemas import FRAMES, PipelineInFull, PipelineList, ProblemDocument

if TYPE_CHECKING:
    from fastapi import FastAPI
    from pydantic import BaseModel

DESCRIPTION = """\
Haystack pipelines and agents as server-sent events, for browsers, and in OpenAI's dialect.

Every stream ends with exactly one `end` or `error` frame. What is refused before a stream begins is an HTTP status with
a problem document (RFC 9457), and under `/v1` with an error as OpenAI's. `X-Request-ID` and `traceparent` go through to
the service; every answer carries the former. `Authorization` goes to the service as the caller's identity.
"""

# The version that knows event streams.
OPENAPI_VERSION = "3.2.0"

RUN_ID_PATTERN = "[A-Za-z0-9._-]{1,64}"
EVENT_ID_PATTERN = f"^{RUN_ID_PATTERN}:[0-9]{{1,19}}$"

COMPONENTS = "#/components/schemas/"
REF = COMPONENTS + "{model}"


_ANSWER = """\
event: metadata
data: {"run_id":"sky-1","pipeline":"local"}
id: sky-1:1

event: data
data: "Because of"
id: sky-1:3

: ping
event: data
data: " Rayleigh scattering."
id: sky-1:5

event: end
data: {"reason":"STOP","usage":[],"outputs":{},"omitted_outputs":[]}
id: sky-1:6

"""
_FAILURE = """\
event: metadata
data: {"run_id":"sky-1","pipeline":"local"}
id: sky-1:1

event: error
data: {"code":"UNAVAILABLE","reason":"PROVIDER_UNAVAILABLE","message":"the model's provider cannot be reached",\
"retryable":true,"run_id":"sky-1","last_seq":1}
id: sky-1:2

"""


def _frames_in_words() -> str:
    rows = ["| event | data |", "|---|---|", "| `data` | a JSON string: the text to append |"]
    for name, model in FRAMES.items():
        words = " ".join((model.__doc__ or "").split())
        rows.append(f"| `{name}` | [{model.__name__}]({COMPONENTS}{model.__name__}): {words} |")
    return "\n".join(rows)


def _frame_schema(event: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "id": {"type": "string", "pattern": EVENT_ID_PATTERN},
            "event": {"const": event},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
        },
    }


EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "Frames, each with the id `<run_id>:<seq>`, an event and JSON data; comments fill silence. "
            f"The last is `end` or `error`.\n\n{_frames_in_words()}"
        ),
        "content": {
            sse.MEDIA_TYPE: {
                "itemSchema": {
                    "oneOf": [
                        _frame_schema("data", {"type": "string", "description": "The text to append."}),
                        *(_frame_schema(name, {"$ref": COMPONENTS + model.__name__}) for name, model in FRAMES.items()),
                    ]
                },
                "examples": {
                    "answer": {"summary": "An answer to its end", "serializedValue": _ANSWER},
                    "failure": {"summary": "An answer that fails", "serializedValue": _FAILURE},
                },
            }
        },
    }
}
NOTHING_MORE: dict[int | str, dict[str, Any]] = {204: {"description": "Its reader has all of the run already."}}
METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format.",
        "content": {
            metrics.MEDIA_TYPE: {"schema": {"type": "string"}, "example": "haystream_gateway_open_streams 3.0\n"}
        },
    }
}


def _json(model: type[BaseModel], description: str, example: Any) -> dict[int | str, dict[str, Any]]:
    content = {"schema": {"$ref": COMPONENTS + model.__name__}, "example": example}
    return {200: {"description": description, "content": {"application/json": content}}}


_ECHO = {"name": "echo", "description": "Says the question back, word by word.", "ready": True, "error": ""}
PIPELINES = _json(PipelineList, "All pipelines.", {"pipelines": [_ECHO], "default_pipeline": "echo"})
PIPELINE = _json(
    PipelineInFull,
    "The pipeline.",
    {
        "pipeline": _ECHO,
        "inputs_schema": {"type": "object", "properties": {}},
        "streaming_components": ["llm"],
        "outputs": [{"component": "llm", "name": "replies", "type": "list[ChatMessage]"}],
        "cancellation": "CANCELLATION_IMMEDIATE",
        "graph": "flowchart TD\n",
        "haystack_version": "3.4.0",
    },
)

_PROBLEMS = {
    400: ("The request cannot be served as things are.", "FAILED_PRECONDITION", "API_KEY_REQUIRED"),
    401: ("The caller is not known.", "UNAUTHENTICATED", "CREDENTIALS_MISSING"),
    403: ("The caller may not do this.", "PERMISSION_DENIED", "CROSS_SITE"),
    404: ("There is no such pipeline or run.", "NOT_FOUND", "RUN_NOT_FOUND"),
    408: ("The body took too long to come.", "INVALID_ARGUMENT", "BODY_TOO_SLOW"),
    409: ("The run's id is taken by another question.", "ALREADY_EXISTS", "RUN_EXISTS"),
    413: ("The body is too large.", "INVALID_ARGUMENT", "BODY_TOO_LARGE"),
    415: ("The body is not JSON.", "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE"),
    422: ("Something about the request is wrong; `errors` names it.", "INVALID_ARGUMENT", "INVALID_REQUEST"),
    429: ("There is no room now; `Retry-After` says when to come back.", "RESOURCE_EXHAUSTED", "TOO_MANY_RUNS"),
    499: ("The call was cancelled.", "CANCELLED", "INTERNAL"),
    500: ("A defect.", "INTERNAL", "INTERNAL"),
    501: ("The service is older than this gateway.", "UNIMPLEMENTED", "INTERNAL"),
    503: ("The service is away, loading or shutting down.", "UNAVAILABLE", "SERVICE_UNREACHABLE"),
    504: ("The service does not answer in time.", "DEADLINE_EXCEEDED", "SERVICE_SILENT"),
}


# What every call of the service can come to.
_SERVICE_STATUSES = (401, 403, 499, 500, 501, 503, 504)


def example(answer: dict[str, str]) -> dict[int | str, dict[str, Any]]:
    """Return the response of an address that answers with a few words."""
    return {200: {"description": "Done.", "content": {"application/json": {"example": answer}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the refusals of an address that calls the service, besides those that all such have."""
    return {status: _problem(status) for status in sorted({*statuses, *_SERVICE_STATUSES})}


def _problem(status: int) -> dict[str, Any]:
    description, code, reason = _PROBLEMS[status]
    example = {
        "type": "about:blank",
        "title": reason.replace("_", " ").capitalize(),
        "status": status,
        "detail": description,
        "code": code,
        "reason": reason,
        "retryable": status in {429, 503, 504},
    }
    content = {"schema": {"$ref": COMPONENTS + "ProblemDocument"}, "example": example}
    return {"description": description, "content": {MEDIA_TYPE: content}}


def request_body(model: type[BaseModel], **examples: Any) -> dict[str, Any]:
    """Describe the JSON that an address reads by itself."""
    content: dict[str, Any] = {"schema": {"$ref": COMPONENTS + model.__name__}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def document(app: FastAPI, *bodies: type[BaseModel]) -> None:
    """Complete the app's OpenAPI document with the models that its routes only refer to."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, bodies)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way of extending it


def _document(app: FastAPI, bodies: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version=OPENAPI_VERSION,
        description=app.description,
        routes=app.routes,
    )
    models: list[type[BaseModel]] = [ProblemDocument, PipelineList, PipelineInFull, *FRAMES.values(), *bodies]
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=REF)
    schema.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
    return schema
