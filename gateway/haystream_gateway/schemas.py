"""What the gateway sends, described: for the OpenAPI document. The tests hold it against what is sent."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Documented(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FieldError(_Documented):
    """What is wrong with one field, and what would be right."""

    field: str
    message: str


class ProblemDocument(_Documented):
    """Why a request is refused (RFC 9457). `retryable` says that the same request may be taken a little later."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    reason: str
    retryable: bool
    errors: list[FieldError] = []


class MetadataFrame(_Documented):
    """The first frame of a run."""

    run_id: str
    pipeline: str


class DeltaFrame(_Documented):
    """A piece of the model's reasoning."""

    component: str
    index: int
    delta: str


class ComponentFrame(_Documented):
    """Whose text follows. Only where `label_components` asks for it; without an id."""

    component: str
    index: int


class ToolCallFrame(_Documented):
    """A piece of a tool call; `id` and `name` come in its first one."""

    component: str
    index: int
    id: str
    name: str
    arguments_delta: str


class ToolResultFrame(_Documented):
    """What a tool has answered."""

    component: str
    id: str
    name: str
    result: str
    is_error: bool
    truncated: bool


class FoundDocument(_Documented):
    """A document that a component has found."""

    id: str
    content: str
    score: float | None = None
    meta: dict[str, Any] = {}
    truncated: bool


class DocumentsFrame(_Documented):
    """What a component has found, best first; before the first word of what is made of it."""

    component: str
    documents: list[FoundDocument]


class GapFrame(_Documented):
    """What a reader who came back too late has lost."""

    from_seq: int
    to_seq: int


class ErrorFrame(_Documented):
    """The last frame of a stream that failed. With `retryable` the same request may succeed a little later.

    The id is that of the frame before where the run may go on, and its reader can come back for the rest; else it has
    a number of its own, and whoever comes back with it gets 204.
    """

    code: str
    reason: str
    message: str
    retryable: bool
    run_id: str
    last_seq: int


class UsageItem(_Documented):
    """What a component has used of a model."""

    component: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class EndFrame(_Documented):
    """The last frame of a run that came to its own end. INCOMPLETE: the provider stopped without saying why."""

    reason: Literal["STOP", "LENGTH", "TOOL_CALLS", "CONTENT_FILTER", "INCOMPLETE"]
    usage: list[UsageItem]
    outputs: dict[str, Any]
    omitted_outputs: list[str]


class PipelineInShort(_Documented):
    """A pipeline; `error` says why its file, as it is now, is not served."""

    name: str
    description: str
    ready: bool
    error: str


class PipelineList(_Documented):
    """All pipelines."""

    pipelines: list[PipelineInShort]
    default_pipeline: str


class PipelineOutput(_Documented):
    """An output that `end` carries."""

    component: str
    name: str
    type: str


class PipelineInFull(_Documented):
    """A pipeline: `inputs_schema` is the JSON Schema of `inputs`, `graph` a Mermaid flowchart."""

    pipeline: PipelineInShort | None = None
    inputs_schema: dict[str, Any]
    streaming_components: list[str]
    outputs: list[PipelineOutput]
    cancellation: str
    graph: str
    haystack_version: str


FRAMES: dict[str, type[BaseModel]] = {
    "metadata": MetadataFrame,
    "reasoning": DeltaFrame,
    "tool_call": ToolCallFrame,
    "tool_result": ToolResultFrame,
    "documents": DocumentsFrame,
    "gap": GapFrame,
    "component": ComponentFrame,
    "error": ErrorFrame,
    "end": EndFrame,
}
