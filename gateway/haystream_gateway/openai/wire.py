"""OpenAI's frames: server-sent events that are data alone, and a last one that is no JSON."""

from __future__ import annotations

import json
from typing import Any

DONE = b"data: [DONE]\n\n"

# Lines end with these for readers that take Python's idea of a line for the specification's, httpx's among them.
_LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def data_frame(data: dict[str, Any]) -> bytes:
    """Return JSON as one event. It escapes every line break of its strings, so the data is one line."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for line_end, escaped in _LINE_ENDS.items():
        text = text.replace(line_end, escaped)
    return f"data: {text}\n\n".encode()
