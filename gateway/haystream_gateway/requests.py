"""What a browser may ask, checked and turned into the contract's request."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from haystream.v1 import chat_pb2
from haystream_gateway.messages import Message, conversation_of
from haystream_gateway.problems import invalid
from haystream_gateway.sizes import MAX_MESSAGES, MAX_NAMES, MAX_VALUES
from haystream_gateway.structs import Structs

MAX_GRACE_SECONDS = 86_400
MAX_SEQ = 2**63 - 1

_ON_DISCONNECT = {"cancel": chat_pb2.ON_DISCONNECT_CANCEL, "continue": chat_pb2.ON_DISCONNECT_CONTINUE}
_EVENT_ID = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9]{1,19})")


LabelComponents: TypeAlias = Annotated[
    bool, Field(description="Send a `component` frame before text whenever another component speaks.")
]


class RunOptions(BaseModel):
    """What goes with a question, in whichever dialect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_key: Annotated[SecretStr | None, Field(description="The model provider's key, for this run alone.")] = None
    inputs: Annotated[
        dict[str, dict[str, Any]],
        Field(
            max_length=MAX_VALUES,
            description="Further inputs: component, socket, value.",
            examples=[{"retriever": {"top_k": 3}}],
        ),
    ] = {}
    streaming_components: Annotated[
        list[str], Field(max_length=MAX_NAMES, fail_fast=True, description="Empty: all that can stream.")
    ] = []
    run_id: Annotated[str, Field(description="An id of your own. The same again attaches, with the same question.")] = (
        ""
    )
    on_disconnect: Annotated[
        Literal["cancel", "continue"], Field(description="What becomes of the run when its reader leaves.")
    ] = "cancel"
    disconnect_grace_seconds: Annotated[
        float | None,
        Field(ge=0, le=MAX_GRACE_SECONDS, description="How long a run that continues waits for a reader."),
    ] = None


class ChatBody(RunOptions):
    """What `POST /chat` takes: a query or messages, and what goes with them."""

    query: Annotated[str | None, Field(description="A single question.", examples=["Why is the sky blue?"])] = None
    messages: Annotated[
        Annotated[list[Message], Field(max_length=MAX_MESSAGES, fail_fast=True)] | None,
        Field(description="A chat so far, the newest message last."),
    ] = None
    pipeline: Annotated[str, Field(description="Empty: the default one.")] = ""
    generation_kwargs: Annotated[
        dict[str, Any],
        Field(max_length=MAX_VALUES, description="For every streaming generator.", examples=[{"temperature": 0.2}]),
    ] = {}
    label_components: LabelComponents = False

    def message(self) -> chat_pb2.ChatRequest:
        """Return the contract's request. Raises Rejection where there is not exactly one input, or one is wrong."""
        if (self.query is None) == (self.messages is None):
            raise invalid(("query", "set either `query` or `messages`"))
        structs = Structs()
        request = chat_pb2.ChatRequest(
            pipeline=self.pipeline,
            api_key=self.api_key.get_secret_value() if self.api_key is not None else "",
            streaming_components=self.streaming_components,
            run_id=self.run_id or new_run_id(),
            on_disconnect=_ON_DISCONNECT[self.on_disconnect],
        )
        if self.messages is None:
            request.query = self.query or ""
        else:
            request.conversation.CopyFrom(conversation_of(self.messages, structs))
        structs.fill(request.inputs, "inputs", self.inputs)
        structs.fill(request.generation_kwargs, "generation_kwargs", self.generation_kwargs)
        if self.disconnect_grace_seconds is not None:
            request.disconnect_grace.CopyFrom(duration(self.disconnect_grace_seconds))
        return request


class ChatQuery(BaseModel):
    """What `GET /chat` takes: as much as an EventSource can say."""

    model_config = ConfigDict(frozen=True)

    query: Annotated[str, Field(min_length=1, description="The question.", examples=["Why is the sky blue?"])]
    pipeline: Annotated[str, Field(description="Empty: the default one.", examples=["echo"])] = ""
    run_id: Annotated[str, Field(description="An id of your own for the run.", examples=["sky-1"])] = ""
    label_components: LabelComponents = False

    def message(self, grace_seconds: float) -> chat_pb2.ChatRequest:
        """Return the contract's request: the run waits that long for a reader who was cut off."""
        return chat_pb2.ChatRequest(
            query=self.query,
            pipeline=self.pipeline,
            run_id=self.run_id or new_run_id(),
            on_disconnect=chat_pb2.ON_DISCONNECT_CONTINUE,
            disconnect_grace=duration(grace_seconds),
        )


class EventsQuery(BaseModel):
    """What `GET /runs/{run_id}/events` takes."""

    model_config = ConfigDict(frozen=True)

    after: Annotated[int, Field(ge=0, le=MAX_SEQ, description="The `seq` after which to begin.", examples=[3])] = 0
    label_components: LabelComponents = False


def new_run_id() -> str:
    """Return an id that nobody can guess, for a run that its caller has not named.

    Where a connection is lost before the service's first word the channel asks again, and the run is found by its id.
    """
    return secrets.token_hex(12)


def duration(seconds: float) -> Duration:
    """Return seconds as the contract has them, to the millisecond."""
    value = Duration()
    value.FromMilliseconds(round(seconds * 1000))
    return value


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader is: the run, and the number of the last event that it has."""

    run_id: str
    seq: int


def place_of(event_id: str) -> Place:
    """Return the place that a frame's id holds. Raises Rejection for one that no frame had."""
    match = _EVENT_ID.fullmatch(event_id)
    if match is None:
        raise invalid(("Last-Event-ID", "expected the id of a frame: <run_id>:<seq>"))
    return Place(match[1], int(match[2]))
