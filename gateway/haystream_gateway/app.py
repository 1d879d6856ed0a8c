"""The HTTP edge: which address does what."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import grpc.aio
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from haystream.v1 import chat_pb2
from haystream_gateway.frames import json_of, plain
from haystream_gateway.problems import Code, Problem, Rejection, invalid, problem_of
from haystream_gateway.requests import ChatBody, chat_body
from haystream_gateway.streams import EventStream
from haystream_gateway.upstream import UNARY_SECONDS, Upstream, connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Scope

    from haystream_gateway.streams import Streams

PLAYGROUND = Path(__file__).parent / "playground"
BODY_REFERENCE = "#/paths/~1chat/post/requestBody/content/application~1json/schema/$defs/{model}"
CHAT_DOCUMENTATION = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ChatBody.model_json_schema(ref_template=BODY_REFERENCE)}},
    }
}

HTTP_ERRORS = {
    404: (Code.NOT_FOUND, "NO_SUCH_ADDRESS", "there is nothing at this address"),
    405: (Code.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", "this address does not take this method"),
}
DEFECT = Problem(Code.INTERNAL, "INTERNAL", "the gateway has a defect here; its log has the details")
CROSS_SITE = Problem(
    Code.PERMISSION_DENIED, "CROSS_SITE", "a page of another site cannot start a run by an address alone"
)
NOT_READY = Problem(
    Code.UNAVAILABLE, "SERVICE_NOT_READY", "the service is loading its pipelines, or shutting down", retry_seconds=1.0
)


class Playground(StaticFiles):
    """The page at `/`, which may load nothing from anywhere else."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file of the page."""
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response


def gateway_app(target: str, streams: Streams) -> FastAPI:
    """Return the gateway to the service at a gRPC address."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with connected(target) as upstream:
            app.state.upstream, app.state.streams = upstream, streams
            yield

    # Its own pages of documentation load their scripts from elsewhere.
    app = FastAPI(
        title="Haystream gateway",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_exception_handler(Rejection, _on_rejection)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameter)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(grpc.aio.AioRpcError, _on_service_error)
    app.add_exception_handler(ClientDisconnect, _on_departure)
    app.add_exception_handler(Exception, _on_defect)
    app.add_api_route("/chat", post_chat, methods=["POST"], response_model=None, openapi_extra=CHAT_DOCUMENTATION)
    app.add_api_route("/chat", get_chat, methods=["GET"], response_model=None)
    app.add_api_route("/pipelines", list_pipelines, methods=["GET"])
    app.add_api_route("/pipelines/{name}", get_pipeline, methods=["GET"])
    app.add_api_route("/livez", live, methods=["GET"])
    app.add_api_route("/readyz", ready, methods=["GET"], response_model=None)
    app.mount("/", Playground(directory=PLAYGROUND, html=True))
    return app


def upstream_of(request: Request) -> Upstream:
    """Return the service behind the gateway."""
    upstream: Upstream = request.app.state.upstream
    return upstream


def streams_of(request: Request) -> Streams:
    """Return the gateway's open streams."""
    streams: Streams = request.app.state.streams
    return streams


async def post_chat(request: Request) -> EventStream:
    """Start a run and stream it. The run is stopped when its reader leaves."""
    body = await chat_body(request)
    return await _stream(request, body.message())


async def get_chat(request: Request, query: Annotated[str, Query(min_length=1)], pipeline: str = "") -> Response:
    """Start a run and stream it to a bare EventSource.

    An EventSource that lost its connection comes back with the last id it saw. Its run is stopped by then, and
    starting another one would bill the question twice: 204 tells it to stay away.
    """
    if "last-event-id" in request.headers:
        return Response(status_code=204)
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise Rejection(CROSS_SITE)  # an image's address on any page would be enough, and the run is billed
    return await _stream(request, chat_pb2.ChatRequest(query=query, pipeline=pipeline))


async def list_pipelines(upstream: Annotated[Upstream, Depends(upstream_of)]) -> dict[str, Any]:
    """Return all pipelines, those that failed to load included."""
    return json_of(await upstream.chat.ListPipelines(chat_pb2.ListPipelinesRequest(), timeout=UNARY_SECONDS))


async def get_pipeline(name: str, upstream: Annotated[Upstream, Depends(upstream_of)]) -> dict[str, Any]:
    """Return one pipeline: its inputs, its outputs and how it streams."""
    response = await upstream.chat.GetPipeline(chat_pb2.GetPipelineRequest(name=name), timeout=UNARY_SECONDS)
    return {**json_of(response), "inputs_schema": plain(response.inputs_schema)}


async def live() -> dict[str, str]:
    """Say that the gateway itself runs."""
    return {"status": "alive"}


async def ready(upstream: Annotated[Upstream, Depends(upstream_of)]) -> Response:
    """Say whether a chat would be taken now."""
    if await upstream.is_ready():
        return JSONResponse({"status": "ready"})
    return NOT_READY.response()


async def _stream(request: Request, message: chat_pb2.ChatRequest) -> EventStream:
    return await streams_of(request).response(upstream_of(request).chat.Chat(message), message.run_id)


# Starlette hands these any exception; each is registered for the one that it asserts.


async def _on_rejection(_: Request, error: Exception) -> Response:
    assert isinstance(error, Rejection)  # noqa: S101
    return error.problem.response()


async def _on_service_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, grpc.aio.AioRpcError)  # noqa: S101
    return problem_of(error).response()


async def _on_invalid_parameter(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return invalid(*((str(item["loc"][-1]), item["msg"]) for item in error.errors())).problem.response()


async def _on_departure(*_: object) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _on_defect(*_: object) -> Response:
    return DEFECT.response()  # the server logs the traceback


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code, reason, message = HTTP_ERRORS.get(error.status_code, (Code.UNKNOWN, "HTTP_ERROR", error.detail))
    return Problem(code, reason, message, http_status=error.status_code).response()
