"""The wire format of server-sent events (WHATWG HTML, 9.2). Knows nothing of what the events mean."""

from __future__ import annotations

import json
from typing import Any

MEDIA_TYPE = "text/event-stream"

# Without the no-cache some proxies store the stream, and without the X-Accel-Buffering nginx collects it first.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

# One newline, not two: with two some clients deliver an event without data once they have seen an id.
KEEP_ALIVE = b": ping\n"


def frame(event: str, data: Any, event_id: str = "") -> bytes:
    """Return one event. JSON escapes every line break of its strings, so the data is one line."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    lines = [f"id: {event_id}"] if event_id else []
    return "\n".join([*lines, f"event: {event}", f"data: {text}", "", ""]).encode()
