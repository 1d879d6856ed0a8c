"""What the pipelines of all generations share: what they know, and components that do what their question says."""

import threading
from dataclasses import dataclass, field
from typing import Any

from haystack import Document, component
from haystack.dataclasses import StreamingChunk

WAIT_SECONDS = 30  # a thread that waits for its test; a test that fails must not keep it for ever

MEET = "meet"
STAY_BEHIND = "stay behind"
PARTIES = 150  # of a meeting: more than the 100 visits that a pipeline allows each of its components in one run

TALK = "talk"
TALKED_TEXT = "x" * 1000
TALKED_CHUNKS = 16_000

FAIL = "fail"
FOREIGN_WORDS = "the password is swordfish"

DOCUMENTS = [
    Document(id="sky", content="The sky is blue because air scatters blue light the most."),
    Document(id="sea", content="The sea is salty because rivers carry salt into it."),
]


@dataclass
class Stage:
    """What the components of one test share with it."""

    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(PARTIES))
    others_left: threading.Event = field(default_factory=threading.Event)
    talked_all: threading.Event = field(default_factory=threading.Event)


_stage: list[Stage] = []


def new_stage() -> Stage:
    """Return the stage of the test that begins; the components of an earlier one keep theirs."""
    _stage[:] = [Stage()]
    return _stage[0]


@component
class Door:
    """Lets its run through at once, or holds it until all have come, and one of them until all others have left."""

    @component.output_types(query=str)
    def run(self, query: str) -> dict[str, str]:
        stage = _stage[0]
        if query in {MEET, STAY_BEHIND}:
            stage.meeting.wait(WAIT_SECONDS)
        if query == STAY_BEHIND:
            assert stage.others_left.wait(WAIT_SECONDS)
        return {"query": query}


@component
class Actor:
    """Says the question back, talks a lot or fails, in a thread."""

    @component.output_types(replies=list[str], meta=list[dict[str, Any]])
    def run(self, query: str, streaming_callback: Any = None) -> dict[str, list[Any]]:
        if query == FAIL:
            raise RuntimeError(FOREIGN_WORDS)
        stage = _stage[0]
        if query == TALK:
            for _ in range(TALKED_CHUNKS):
                streaming_callback(StreamingChunk(content=TALKED_TEXT))
            stage.talked_all.set()
        else:
            streaming_callback(StreamingChunk(content=query))
        return {"replies": [query], "meta": [{"finish_reason": "length"}]}


@component
class Audience:
    """Takes one of the two things that the actor before it brings."""

    @component.output_types(heard=list[str])
    def run(self, replies: list[str]) -> dict[str, list[str]]:
        return {"heard": replies}
