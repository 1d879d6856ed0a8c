"""`/chat` and `/runs`: a run's events as frames, from its beginning or from where its reader was."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response

from haystream_gateway.bodies import body_of
from haystream_gateway.callers import check_site, metadata_of
from haystream_gateway.documentation import (
    EVENT_ID_PATTERN,
    EVENT_STREAM,
    NOTHING_MORE,
    RUN_ID_PATTERN,
    example,
    problems,
    request_body,
)
from haystream_gateway.edge import Here
from haystream_gateway.event_stream import Dialect
from haystream_gateway.frames import error_frame, event_frames
from haystream_gateway.problems import Rejection, invalid
from haystream_gateway.requests import ChatBody, ChatQuery, EventsQuery, place_of

if TYPE_CHECKING:
    from haystream.v1 import chat_pb2
    from haystream_gateway.edge import Edge

router = APIRouter(tags=["chat"])

RunId = Annotated[str, Path(pattern=f"^{RUN_ID_PATTERN}$", examples=["sky-1"])]
LastEventId = Annotated[
    str,
    Header(
        description="The id of the last frame that its reader has; browsers send it.",
        examples=["sky-1:3"],
        json_schema_extra={"pattern": f"^$|{EVENT_ID_PATTERN}"},
    ),
]


@router.post(
    "/chat",
    response_class=Response,
    responses={
        **EVENT_STREAM,
        **NOTHING_MORE,
        **problems(400, 404, 408, 409, 413, 415, 422, 429),
    },
    openapi_extra=request_body(
        ChatBody,
        question={"query": "Why is the sky blue?"},
        chat={"messages": [{"role": "user", "content": "Why is the sky blue?"}], "pipeline": "echo"},
    ),
)
async def post_chat(request: Request, here: Here, last_event_id: LastEventId = "") -> Response:
    """Start a run and stream it; it is stopped when its reader leaves, unless the body asks otherwise.

    With the `run_id` of a run that was asked the same this attaches to it, and streams it from its beginning. With a
    `Last-Event-ID` it attaches from there, and never starts a run.
    """
    body = await body_of(request, ChatBody)
    message = body.message()
    if last_event_id:
        run_id, _ = place_of(last_event_id)
        if body.run_id not in {"", run_id}:
            raise invalid(("Last-Event-ID", f"expected the id of a frame of the run {body.run_id}"))
        return await _attached(request, here, last_event_id, labels=body.label_components)
    return await _started(request, here, message, labels=body.label_components)


@router.get(
    "/chat",
    response_class=Response,
    responses={**EVENT_STREAM, **NOTHING_MORE, **problems(400, 404, 409, 422, 429)},
)
async def get_chat(
    request: Request, here: Here, query: Annotated[ChatQuery, Query()], last_event_id: LastEventId = ""
) -> Response:
    """Start a run and stream it to a bare EventSource.

    The run waits for a reader who was cut off for `HAYSTREAM_GATEWAY_RECONNECT_SECONDS`. An EventSource comes back to
    the same address by itself, with the id of the last frame that it has, and gets what follows.
    """
    check_site(request, here.settings.cors_origins)
    if last_event_id:
        return await _attached(request, here, last_event_id, labels=query.label_components)
    message = query.message(here.settings.gateway_reconnect_seconds)
    return await _started(request, here, message, labels=query.label_components)


@router.get(
    "/runs/{run_id}/events",
    response_class=Response,
    responses={**EVENT_STREAM, **NOTHING_MORE, **problems(404, 422)},
)
async def run_events(
    request: Request,
    here: Here,
    run_id: RunId,
    query: Annotated[EventsQuery, Query()],
    last_event_id: LastEventId = "",
) -> Response:
    """Attach to a run: first what was missed, then what comes. `Last-Event-ID` counts for more than `after`."""
    if last_event_id:
        if place_of(last_event_id)[0] != run_id:
            raise invalid(("Last-Event-ID", f"expected the id of a frame of the run {run_id}"))
        return await _attached(request, here, last_event_id, labels=query.label_components)
    return await _resumed(request, here, run_id, query.after, labels=query.label_components)


@router.post("/runs/{run_id}/cancel", responses={**example({"run_id": "sky-1"}), **problems(404, 422)})
async def cancel_run(request: Request, here: Here, run_id: RunId) -> dict[str, str]:
    """Stop a run, and the model with it. A run that has ended already stays as it is."""
    check_site(request, here.settings.cors_origins)
    await here.upstream.cancel(run_id, metadata_of(request))
    return {"run_id": run_id}


async def _started(request: Request, here: Edge, message: chat_pb2.ChatRequest, *, labels: bool) -> Response:
    call = here.upstream.chat(message, metadata_of(request))
    stream = await here.streams.opened(call, message.run_id)
    return Response(status_code=204) if stream is None else here.response(stream, _dialect(labels))


async def _attached(request: Request, here: Edge, event_id: str, *, labels: bool) -> Response:
    """Stream what follows a frame. Who has seen a run's last word, which has a number of its own, has all: 204."""
    run_id, seq = place_of(event_id)
    try:
        return await _resumed(request, here, run_id, seq, labels=labels)
    except Rejection as rejection:
        if any(error["field"] == "after_seq" for error in rejection.problem.errors):
            return Response(status_code=204)
        raise


async def _resumed(request: Request, here: Edge, run_id: str, after_seq: int, *, labels: bool) -> Response:
    call = here.upstream.resume(run_id, after_seq, metadata_of(request))
    stream = await here.streams.opened(call, run_id, after_seq)
    return Response(status_code=204) if stream is None else here.response(stream, _dialect(labels))


def _dialect(labels: bool) -> Dialect:
    return Dialect(partial(event_frames, label_components=labels), error_frame)
