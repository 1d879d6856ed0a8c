"""`/pipelines`: what can be called."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from haystream_gateway.callers import metadata_of
from haystream_gateway.documentation import PIPELINE, PIPELINES, problems
from haystream_gateway.edge import Here
from haystream_gateway.frames import json_of, plain

router = APIRouter(prefix="/pipelines", tags=["pipelines"])


@router.get("", responses={**PIPELINES, **problems()})
async def list_pipelines(request: Request, here: Here) -> dict[str, Any]:
    """Return all pipelines, those that failed to load included."""
    return json_of(await here.upstream.pipelines(metadata_of(request)))


@router.get("/{name}", responses={**PIPELINE, **problems(400, 404, 422)})
async def get_pipeline(request: Request, here: Here, name: Annotated[str, Path(examples=["echo"])]) -> dict[str, Any]:
    """Return one pipeline: its inputs, its outputs and how it streams."""
    response = await here.upstream.pipeline(name, metadata_of(request))
    return {**json_of(response), "inputs_schema": plain(response.inputs_schema)}
