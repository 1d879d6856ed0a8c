"""The HTTP edge, put together: addresses, what becomes of errors, and the manners of all answers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import grpc.aio
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from haystream_gateway.credentials import channel_credentials, own_token
from haystream_gateway.documentation import DESCRIPTION, document
from haystream_gateway.edge import Edge, check_strangers
from haystream_gateway.endpoints import chat, openai, operations, pipelines
from haystream_gateway.endpoints.playground import Playground
from haystream_gateway.manners import Manners
from haystream_gateway.metrics import Metrics
from haystream_gateway.openai.documentation import document as document_openai
from haystream_gateway.openai.errors import response_of
from haystream_gateway.openai.requests import CompletionBody
from haystream_gateway.problems import DEFECT, Code, Problem, Rejection, invalid, problem_of
from haystream_gateway.requests import ChatBody
from haystream_gateway.strangers import Strangers
from haystream_gateway.streams import Streams
from haystream_gateway.upstream import connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import ASGIApp
    from structlog.typing import FilteringBoundLogger

    from haystream_gateway.settings import Settings

CALLING = (chat.router, openai.router, pipelines.router)
ROUTERS = (*CALLING, operations.router)

HTTP_ERRORS = {
    404: (Code.NOT_FOUND, "NO_SUCH_ADDRESS", "there is nothing at this address"),
    405: (Code.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", "this address does not take this method"),
}

# What pages of other origins may read of an answer.
EXPOSED_HEADERS = ("Retry-After", "X-Request-ID", "X-Should-Retry")


def gateway_app(settings: Settings, log: FilteringBoundLogger) -> tuple[ASGIApp, Streams]:
    """Return the gateway to the service at a gRPC address, and its open streams. Raises CredentialsUnusable."""
    credentials, token = channel_credentials(settings, log), own_token(settings, log)
    metrics = Metrics()
    streams = Streams(settings.gateway_silence_seconds, metrics.ended)
    metrics.watch(streams)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with connected(
            settings.target, credentials.latest, token.latest, settings.gateway_tls_server_name
        ) as upstream:
            strangers = Strangers(upstream, log) if settings.is_for_strangers else None
            app.state.edge = Edge(settings, upstream, streams, metrics, log, strangers)
            yield

    # Its own pages of documentation load their scripts from elsewhere.
    app = FastAPI(
        title="Haystream gateway",
        version="1",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.add_exception_handler(Rejection, _on_rejection)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameter)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(grpc.aio.AioRpcError, _on_service_error)
    app.add_exception_handler(ClientDisconnect, _on_departure)
    app.add_exception_handler(Exception, _on_defect)
    for router in CALLING:
        app.include_router(router, dependencies=[Depends(check_strangers)])
    app.include_router(operations.router)
    app.mount("/", Playground())
    document(app, ChatBody, CompletionBody)
    document_openai(app)
    return Manners(_with_cors(app, settings.cors_origins), metrics, settings.hosts, log), streams


def _with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=EXPOSED_HEADERS
    )


def _answer(request: Request, problem: Problem) -> Response:
    """Return a problem in the shape that the clients of an address know."""
    is_openai = f"{request.url.path}/".startswith(f"{openai.PREFIX}/")
    return response_of(problem) if is_openai else problem.response()


# Starlette hands these any exception; each is registered for the one that it asserts.


async def _on_rejection(request: Request, error: Exception) -> Response:
    assert isinstance(error, Rejection)  # noqa: S101
    return _answer(request, error.problem)


async def _on_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, grpc.aio.AioRpcError)  # noqa: S101
    return _answer(request, problem_of(error))


async def _on_invalid_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return _answer(request, invalid(*((str(item["loc"][-1]), item["msg"]) for item in error.errors())).problem)


async def _on_defect(request: Request, _: Exception) -> Response:
    return _answer(request, DEFECT)  # Starlette raises it once more, and so it is logged


async def _on_departure(*_: object) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    methods = _methods_of(request)
    # The page's files lie below everything: what they do not have may be an address that takes other methods.
    status = HTTPStatus.METHOD_NOT_ALLOWED if methods and request.method not in methods else error.status_code
    code, reason, message = HTTP_ERRORS.get(status, (Code.UNKNOWN, "HTTP_ERROR", error.detail))
    response = _answer(request, Problem(code, reason, message, own_http_status=status))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(sorted(methods or {"GET", "HEAD"}))
    return response


def _methods_of(request: Request) -> set[str]:
    """Return what an address is documented to take; nothing where it is one of the page's files, or none."""
    methods: set[str] = set()
    for route in (route for router in ROUTERS for route in router.routes):
        if isinstance(route, Route) and route.include_in_schema and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return methods
