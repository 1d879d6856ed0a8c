"""What a browser may ask, checked and turned into the contract's request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from haystream.v1 import chat_pb2
from haystream_gateway.problems import Code, Problem, Rejection, invalid

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct
    from starlette.requests import Request

# What the service takes in one message, and a little for JSON's quotes.
MAX_BODY_BYTES = 5 * 1024 * 1024

MAX_DEPTH = 20  # each level takes up to three of the hundred that protobuf reads

_ROLES = {
    "system": chat_pb2.ROLE_SYSTEM,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
}
_ON_DISCONNECT = {"cancel": chat_pb2.ON_DISCONNECT_CANCEL, "continue": chat_pb2.ON_DISCONNECT_CONTINUE}


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: str


class ChatBody(BaseModel):
    """What `POST /chat` takes: a query or messages, and what goes with them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str | None = None
    messages: Annotated[list[Message], Field(max_length=10_000)] | None = None
    pipeline: str = ""
    api_key: SecretStr | None = None
    inputs: dict[str, dict[str, Any]] = {}
    generation_kwargs: dict[str, Any] = {}
    streaming_components: list[str] = []
    run_id: str = ""
    on_disconnect: Literal["cancel", "continue"] = "cancel"
    disconnect_grace_seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None

    def message(self) -> chat_pb2.ChatRequest:
        """Return the contract's request. Raises Rejection where there is not exactly one input."""
        if (self.query is None) == (self.messages is None):
            raise invalid(("query", "set either `query` or `messages`"))
        request = chat_pb2.ChatRequest(
            pipeline=self.pipeline,
            api_key=self.api_key.get_secret_value() if self.api_key is not None else "",
            streaming_components=self.streaming_components,
            run_id=self.run_id,
            on_disconnect=_ON_DISCONNECT[self.on_disconnect],
        )
        if self.query is not None:
            request.query = self.query
        for message in self.messages or ():
            request.conversation.messages.append(
                chat_pb2.ChatMessage(role=_ROLES[message.role], parts=[chat_pb2.ContentPart(text=message.content)])
            )
        if self.messages is not None:
            request.conversation.SetInParent()
        _fill(request.inputs, "inputs", self.inputs)
        _fill(request.generation_kwargs, "generation_kwargs", self.generation_kwargs)
        if self.disconnect_grace_seconds is not None:
            grace = Duration()
            grace.FromMilliseconds(round(self.disconnect_grace_seconds * 1000))
            request.disconnect_grace.CopyFrom(grace)
        return request


def _fill(struct: Struct, field: str, values: dict[str, Any]) -> None:
    """Fill a Struct. Raises Rejection for what its numbers cannot hold, or its messages cannot nest."""
    try:
        if _depth(values) > MAX_DEPTH:
            raise invalid((field, f"expected at most {MAX_DEPTH} levels of objects and lists"))
        struct.update(values)
    except OverflowError:
        raise invalid((field, "expected numbers that a double can hold")) from None


def _depth(value: Any) -> int:
    match value:
        case dict():
            return 1 + max(map(_depth, cast("dict[str, Any]", value).values()), default=0)
        case list():
            return 1 + max(map(_depth, cast("list[Any]", value)), default=0)
        case _:
            return 0


async def chat_body(request: Request) -> ChatBody:
    """Read the body of `POST /chat`. Raises Rejection for one that is too large, not JSON, not UTF-8, or wrong."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        # A page of another site can post a form, or plain text, without asking; JSON it cannot.
        raise Rejection(
            Problem(
                Code.INVALID_ARGUMENT,
                "UNSUPPORTED_MEDIA_TYPE",
                "Content-Type: expected application/json",
                http_status=415,
            )
        )
    try:
        return ChatBody.model_validate_json(await _bounded_body(request))
    except ValidationError as error:
        raise invalid(*map(_complaint, error.errors(include_url=False, include_context=False))) from None


async def _bounded_body(request: Request) -> bytes:
    # FastAPI has a limit of its own, which answers in plain text.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            cure = f"expected at most {MAX_BODY_BYTES} bytes"
            errors = [{"field": "body", "message": cure}]
            raise Rejection(
                Problem(Code.INVALID_ARGUMENT, "BODY_TOO_LARGE", f"body: {cure}", errors=errors, http_status=413)
            )
    return bytes(body)


def _complaint(error: Any) -> tuple[str, str]:
    return ".".join(str(part) for part in error["loc"]) or "body", error["msg"]
