"""`/v1`: the service as OpenAI's clients know one, with pipelines for models."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from fastapi_openai_compat import ModelObject, ModelsResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from haystream_gateway.bodies import body_of
from haystream_gateway.callers import credentials_of, metadata_of, note_run
from haystream_gateway.departure import while_caller_stays
from haystream_gateway.documentation import request_body
from haystream_gateway.edge import Here
from haystream_gateway.event_stream import Dialect
from haystream_gateway.openai.chunks import chunk_frames
from haystream_gateway.openai.completion import completion_of
from haystream_gateway.openai.documentation import COMPLETION, errors, example
from haystream_gateway.openai.errors import error_frame, settings_named
from haystream_gateway.openai.parameters import generation_settings
from haystream_gateway.openai.requests import CompletionBody
from haystream_gateway.problems import Rejection
from haystream_gateway.streams import BROKEN_OFF

if TYPE_CHECKING:
    from haystream_gateway.edge import Edge
    from haystream_gateway.upstream import Metadata

PREFIX = "/v1"
OWNER = "haystream"
BEARER = "bearer"

router = APIRouter(prefix=PREFIX, tags=["openai"])


def _model(name: str) -> ModelObject:
    # Nothing tells when a pipeline was made, and clients want a number.
    return ModelObject(id=name, name=name, object="model", created=0, owned_by=OWNER)


@router.post(
    "/chat/completions",
    response_model=None,
    responses={**COMPLETION, **errors(400, 404, 408, 409, 413, 415, 429)},
    openapi_extra=request_body(
        CompletionBody, question={"model": "echo", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
    ),
)
async def create_completion(request: Request, here: Here) -> Response:
    """Have a pipeline answer, in one piece or in chunks; it is stopped when its reader leaves.

    A provider's refusal is a status also where chunks are asked for. `Authorization` says who calls, unless
    `HAYSTREAM_GATEWAY_BEARER_IS_API_KEY` has it mean the model provider's key.
    """
    body = await body_of(request, CompletionBody)
    metadata, api_key = _caller(request, here)
    settings = generation_settings(body.parameters)
    with settings_named(settings), ExitStack() as until_answered:
        message = body.message(settings, api_key)
        call = here.upstream.chat(message, metadata)
        stream = until_answered.enter_context(closing(here.streams.open(call, message.run_id)))
        async with while_caller_stays(request, stream.close):
            if not await stream.begin():
                raise Rejection(BROKEN_OFF)
            note_run(request, stream.run_id)
            if not body.stream:
                return JSONResponse(await completion_of(stream, body.model))
            await stream.peek()
        until_answered.pop_all()
        frames = partial(chunk_frames, model=body.model, include_usage=body.stream_options.include_usage)
        return here.response(stream, Dialect(frames, error_frame))


@router.get("/models", responses={**example(ModelsResponse(object="list", data=[_model("echo")])), **errors()})
async def list_models(request: Request, here: Here) -> ModelsResponse:
    """Return the pipelines that can be called, as models."""
    metadata, _ = _caller(request, here)
    listed = await here.upstream.pipelines(metadata)
    return ModelsResponse(
        object="list", data=[_model(pipeline.name) for pipeline in listed.pipelines if pipeline.ready]
    )


@router.get("/models/{model}", responses={**example(_model("echo")), **errors(400, 404)})
async def retrieve_model(request: Request, here: Here, model: Annotated[str, Path(examples=["echo"])]) -> ModelObject:
    """Return a pipeline that can be called, as a model."""
    metadata, _ = _caller(request, here)
    return _model((await here.upstream.pipeline(model, metadata)).pipeline.name)


@router.api_route(
    "/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], include_in_schema=False
)
async def refuse(request: Request) -> None:
    """Answer for all other addresses and methods; the page's files would, otherwise."""
    knows_another_method = any(route.matches(request.scope)[0] is Match.PARTIAL for route in router.routes)
    raise HTTPException(405 if knows_another_method else 404)


def _caller(request: Request, here: Edge) -> tuple[Metadata, str]:
    """Return what the service is to know of a caller, and the key that one brings for the provider."""
    scheme, _, token = credentials_of(request).partition(" ")
    if here.settings.gateway_bearer_is_api_key and scheme.lower() == BEARER:
        return metadata_of(request, with_identity=False), token.strip()
    return metadata_of(request), ""
