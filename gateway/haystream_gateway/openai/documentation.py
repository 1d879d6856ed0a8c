"""OpenAI's dialect in the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi_openai_compat import ChatCompletion
from pydantic.json_schema import models_json_schema

from haystream_gateway import sse
from haystream_gateway.openai.errors import error_of
from haystream_gateway.openai.schemas import Chunk, ErrorDocument
from haystream_gateway.problems import Code, Problem

if TYPE_CHECKING:
    from fastapi import FastAPI
    from pydantic import BaseModel

PREFIX = "OpenAI"  # since some of these have the names of the gateway's own
REF = f"#/components/schemas/{PREFIX}" + "{model}"


_MODELS = (ChatCompletion, Chunk, ErrorDocument)

_ERRORS = {
    400: (Code.INVALID_ARGUMENT, "INVALID_REQUEST", "Something about the request is wrong; `param` names it."),
    401: (Code.UNAUTHENTICATED, "CREDENTIALS_MISSING", "The caller is not known."),
    403: (Code.PERMISSION_DENIED, "PIPELINE_FORBIDDEN", "The caller may not do this."),
    404: (Code.NOT_FOUND, "PIPELINE_NOT_FOUND", "There is no such model."),
    408: (Code.INVALID_ARGUMENT, "BODY_TOO_SLOW", "The body took too long to come."),
    409: (Code.ALREADY_EXISTS, "RUN_EXISTS", "The run's id is taken by another question."),
    413: (Code.INVALID_ARGUMENT, "BODY_TOO_LARGE", "The body is too large."),
    415: (Code.INVALID_ARGUMENT, "UNSUPPORTED_MEDIA_TYPE", "The body is not JSON."),
    429: (Code.RESOURCE_EXHAUSTED, "TOO_MANY_RUNS", "There is no room now; `Retry-After` says when to come back."),
    499: (Code.CANCELLED, "INTERNAL", "The call was cancelled."),
    500: (Code.INTERNAL, "COMPONENT_FAILED", "A defect, or a component that failed."),
    501: (Code.UNIMPLEMENTED, "INTERNAL", "The service is older than this gateway."),
    503: (Code.UNAVAILABLE, "PROVIDER_UNAVAILABLE", "The service or the provider is away, or shutting down."),
    504: (Code.DEADLINE_EXCEEDED, "PROVIDER_TIMEOUT", "The service or the provider does not answer in time."),
}
_SERVICE_ERRORS = (401, 403, 499, 500, 501, 503, 504)

_HEAD = {"id": "chatcmpl-sky-1", "created": 1790000000, "model": "local"}
_WORDS = "Because of Rayleigh scattering."
_COMPLETION = {
    **_HEAD,
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": _WORDS, "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 24, "completion_tokens": 8, "total_tokens": 32},
    "haystream": {"run_id": "sky-1"},
}
_CHUNK = """\
data: {"id":"chatcmpl-sky-1","object":"chat.completion.chunk","created":1790000000,"model":"local","choices":\
"""
_ANSWER = (
    f'{_CHUNK}[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}],'
    '"haystream":{"run_id":"sky-1"}}\n\n'
    f'{_CHUNK}[{{"index":0,"delta":{{"content":"{_WORDS}"}},"finish_reason":null}}],'
    '"haystream":{"component":"llm"}}\n\n'
    f'{_CHUNK}[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'
    "data: [DONE]\n\n"
)


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": REF.format(model=model.__name__)}


_FRAME = {
    "type": "string",
    "contentMediaType": "application/json",
    "contentSchema": {"anyOf": [_schema(Chunk), _schema(ErrorDocument)]},
}
COMPLETION: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The completion; with `stream` its chunks, and `[DONE]` after the last one.",
        "content": {
            "application/json": {"schema": _schema(ChatCompletion), "example": _COMPLETION},
            sse.MEDIA_TYPE: {
                "itemSchema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"anyOf": [{"const": "[DONE]"}, _FRAME]}},
                },
                "examples": {"answer": {"summary": "An answer to its end", "serializedValue": _ANSWER}},
            },
        },
    }
}


def example(answer: BaseModel) -> dict[int | str, dict[str, Any]]:
    """Return the answer of an address, by an example."""
    return {200: {"content": {"application/json": {"example": answer.model_dump()}}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the refusals of an address that calls the service, besides those that all such have."""
    described: dict[int | str, dict[str, Any]] = {
        status: _error(status) for status in sorted({*statuses, *_SERVICE_ERRORS})
    }
    return {**described, "default": _error(500)}  # FastAPI would name an error of its own else


def _error(status: int) -> dict[str, Any]:
    code, reason, description = _ERRORS[status]
    error = error_of(Problem(code, reason, description, own_http_status=status))
    content = {"schema": _schema(ErrorDocument), "example": {"error": error}}
    return {"description": description, "content": {"application/json": content}}


def document(app: FastAPI) -> None:
    """Add the models of this dialect to the app's OpenAPI document."""
    others = app.openapi

    def openapi() -> dict[str, Any]:
        whole = others()
        listed = models_json_schema([(model, "validation") for model in _MODELS], ref_template=REF)[1]["$defs"]
        whole["components"]["schemas"].update({PREFIX + name: definition for name, definition in listed.items()})
        return whole

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way of extending it
