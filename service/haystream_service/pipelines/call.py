"""What a caller asks of a pipeline, in plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Call:
    """One request's wishes.

    `messages` are Haystack ChatMessages in their dictionary form, and empty where the caller asks a plain `query`.
    """

    query: str = ""
    messages: Sequence[Mapping[str, Any]] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    generation_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    api_key: str = field(default="", repr=False)
    streaming_components: Sequence[str] = ()
    include_outputs_from: Sequence[str] = ()
