"""The wire format of server-sent events, read back by a reader that is not ours."""

from __future__ import annotations

import json

import httpx
import httpx_sse
from hypothesis import given
from hypothesis import strategies as st

from haystream_gateway.sse import KEEP_ALIVE, frame


def read(wire: bytes) -> list[httpx_sse.ServerSentEvent]:
    """Read a whole stream."""
    response = httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, content=wire)
    return list(httpx_sse.EventSource(response).iter_sse())


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_whatever_a_model_says_is_read_back_as_it_was(texts: list[str]) -> None:
    """Line breaks, NUL, U+2028 and emoji included, with comments between the events."""
    wire = b"".join(frame("data", text, f"r:{number}") + KEEP_ALIVE for number, text in enumerate(texts))
    events = read(wire)
    assert [json.loads(event.data) for event in events] == texts
    assert [event.id for event in events] == [f"r:{number}" for number in range(len(texts))]
    assert {event.event for event in events} <= {"data"}


def test_an_event_is_three_lines_and_an_empty_one() -> None:
    """Exactly as the contract shows it; without an id there is no line for it."""
    assert frame("end", {"a": [1, None]}, "r:9") == b'id: r:9\nevent: end\ndata: {"a":[1,null]}\n\n'
    assert frame("error", {}) == b"event: error\ndata: {}\n\n"


def test_a_comment_delivers_no_event() -> None:
    """Also not to a reader that has seen an id before."""
    assert len(read(frame("data", "x", "r:1") + KEEP_ALIVE + KEEP_ALIVE)) == 1
