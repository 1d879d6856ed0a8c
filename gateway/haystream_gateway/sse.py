"""The wire format of server-sent events (WHATWG HTML, 9.2). Knows nothing of what the events mean."""

from __future__ import annotations

import json
from typing import Any

MEDIA_TYPE = "text/event-stream"

# The type stands alone: it is UTF-8 by definition, and handlers that compare it, as the documentation of
# fetch-event-source shows them, take one with a charset for a failure and ask again, every second.
# Without the no-cache some proxies store the stream, and without the X-Accel-Buffering nginx collects it first.
HEADERS = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

# One newline, not two: with two some clients deliver an event without data once they have seen an id.
KEEP_ALIVE = b": ping\n"

# Many readers take Python's idea of a line for the specification's, and with it these for its end.
_LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def frame(event: str, data: Any, event_id: str = "") -> bytes:
    """Return one event; without a name it is of the default kind.

    Its id comes last: fetch-event-source notes an id as it reads the line, and would come back with that of a frame
    which broke off in the middle.
    """
    lines = [f"event: {event}"] if event else []
    lines.append(f"data: {json_line(data)}")
    if event_id:
        lines.append(f"id: {event_id}")
    return "\n".join([*lines, "", ""]).encode()


def json_line(data: Any) -> str:
    """Return JSON as one line: it escapes every line break of its strings."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for line_end, escaped in _LINE_ENDS.items():
        text = text.replace(line_end, escaped)
    return text
