"""`/chat` and `/runs`: a run's events as frames, from its beginning or from where its reader was."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response

from haystream_gateway import sse
from haystream_gateway.bodies import body_of
from haystream_gateway.callers import metadata_of, note_run
from haystream_gateway.departure import while_caller_stays
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
from haystream_gateway.requests import ChatBody, ChatQuery, EventsQuery, Place, place_of
from haystream_gateway.sites import check_site

if TYPE_CHECKING:
    from haystream.v1 import chat_pb2
    from haystream_gateway.edge import Edge
    from haystream_gateway.upstream import EventCall

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
    `Last-Event-ID` it attaches from there, and never starts a run; where there is nothing more, no frame comes.
    """
    body = await body_of(request, ChatBody)
    message = body.message()
    if last_event_id:
        if body.run_id not in {"", place_of(last_event_id).run_id}:
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
    check_site(request.method, request.headers, here.settings.cors_origins)
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
        if place_of(last_event_id).run_id != run_id:
            raise invalid(("Last-Event-ID", f"expected the id of a frame of the run {run_id}"))
        return await _attached(request, here, last_event_id, labels=query.label_components)
    return await _resumed(request, here, Place(run_id, query.after), labels=query.label_components)


@router.post("/runs/{run_id}/cancel", responses={**example({"run_id": "sky-1"}), **problems(404, 422)})
async def cancel_run(request: Request, here: Here, run_id: RunId) -> dict[str, str]:
    """Stop a run, and the model with it. A run that has ended already stays as it is."""
    check_site(request.method, request.headers, here.settings.cors_origins)
    note_run(request, run_id)
    await here.upstream.cancel(run_id, metadata_of(request))
    return {"run_id": run_id}


async def _started(request: Request, here: Edge, message: chat_pb2.ChatRequest, *, labels: bool) -> Response:
    call = here.upstream.chat(message, metadata_of(request))
    return await _streamed(request, here, call, Place(message.run_id, 0), labels=labels)


async def _attached(request: Request, here: Edge, event_id: str, *, labels: bool) -> Response:
    """Stream what follows a frame. Who has seen a run's last word, which has a number of its own, has all."""
    place = place_of(event_id)
    try:
        return await _resumed(request, here, place, labels=labels)
    except Rejection as rejection:
        is_beyond = any(error["field"] == "after" for error in rejection.problem.errors)
        if is_beyond and await _has_failed(request, here, Place(place.run_id, place.seq - 1)):
            return _nothing_more(request)
        raise


async def _has_failed(request: Request, here: Edge, place: Place) -> bool:
    """Tell whether nothing follows an event but the word that the run has failed."""
    call = here.upstream.resume(place.run_id, place.seq, metadata_of(request))
    with closing(here.streams.open(call, place.run_id, place.seq)) as stream:
        return await stream.begin() and stream.has_failed


async def _resumed(request: Request, here: Edge, place: Place, *, labels: bool) -> Response:
    call = here.upstream.resume(place.run_id, place.seq, metadata_of(request))
    return await _streamed(request, here, call, place, labels=labels)


async def _streamed(request: Request, here: Edge, call: EventCall, place: Place, *, labels: bool) -> Response:
    with ExitStack() as until_answered:
        stream = until_answered.enter_context(closing(here.streams.open(call, place.run_id, place.seq)))
        async with while_caller_stays(request, stream.close):
            has_more = await stream.begin()
        if not has_more:
            return _nothing_more(request)
        note_run(request, stream.run_id)
        until_answered.pop_all()
    return here.response(stream, Dialect(partial(event_frames, label_components=labels), error_frame))


def _nothing_more(request: Request) -> Response:
    """Tell a reader that it has all: by 204, or by no frame to who posts, since fetch-event-source fails on a 204."""
    if request.method == "GET":
        return Response(status_code=204)
    return Response(sse.KEEP_ALIVE, headers=sse.HEADERS)
