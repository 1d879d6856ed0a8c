"""What those ask who run the gateway: does it live, is it ready, what has it done."""

from __future__ import annotations

from fastapi import APIRouter, Response

from haystream_gateway.documentation import METRICS, example, problems
from haystream_gateway.edge import Here, check_strangers
from haystream_gateway.metrics import MEDIA_TYPE
from haystream_gateway.problems import Code, Problem, Rejection
from haystream_gateway.streams import DRAINING

router = APIRouter(tags=["operations"])

NOT_READY = Problem(
    Code.UNAVAILABLE, "SERVICE_NOT_READY", "the service is loading its pipelines, or shutting down", retry_seconds=1.0
)


@router.get("/livez", responses=example({"status": "alive"}))
async def live() -> dict[str, str]:
    """Say that the gateway itself runs."""
    return {"status": "alive"}


# Machines that only look at the status ask so.
router.add_api_route("/livez", live, methods=["HEAD"], include_in_schema=False)


@router.get("/readyz", responses={**example({"status": "ready"}), **problems()})
async def ready(here: Here) -> dict[str, str]:
    """Say whether a chat would be taken now."""
    if here.streams.is_draining:
        raise Rejection(DRAINING)
    if not await here.upstream.is_ready():
        raise Rejection(NOT_READY)
    await check_strangers(here)
    return {"status": "ready"}


router.add_api_route("/readyz", ready, methods=["HEAD"], include_in_schema=False)


@router.get("/metrics", response_class=Response, responses=METRICS)
async def metrics(here: Here) -> Response:
    """Count open streams, frames, bytes, endings and requests, in Prometheus' form."""
    return Response(here.metrics.exposition(), media_type=MEDIA_TYPE)
