"""Reads a gateway's frames, with a reader that is not ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx_sse

if TYPE_CHECKING:
    from httpx_sse import ServerSentEvent

    from tests.conftest import Browser


async def frames_of(browser: Browser, **body: Any) -> list[ServerSentEvent]:
    """Post a chat and read all of its frames."""
    async with httpx_sse.aconnect_sse(browser.http, "POST", "/chat", json=body) as source:
        source.response.raise_for_status()
        return [frame async for frame in source.aiter_sse()]


def text_of(frames: list[ServerSentEvent]) -> str:
    """Join the text of a stream."""
    return "".join(json.loads(frame.data) for frame in frames if frame.event == "data")
