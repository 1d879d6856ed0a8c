"""A FastAPI server with one endpoint, as hayhooks' users and the blogs have it: plain text, a chunk at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from benchmarks.servers.listening import announced_socket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


class Body(BaseModel):
    """What every HTTP contestant is asked, Haystream's gateway included."""

    query: str
    pipeline: str


def serve(texts: Callable[[str, str], AsyncGenerator[str]]) -> None:
    """Serve what `texts(pipeline, question)` yields until a signal comes. Uvicorn picks uvloop and httptools."""
    app = FastAPI()

    async def chat(body: Body) -> StreamingResponse:
        return StreamingResponse(texts(body.pipeline, body.query), media_type="text/plain")

    app.add_api_route("/chat", chat, methods=["POST"], response_model=None)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    server.run(sockets=[announced_socket()])
