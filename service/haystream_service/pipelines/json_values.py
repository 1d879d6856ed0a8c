"""Values as JSON can carry them, in Haystack's own dictionary form where they have one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from haystack.dataclasses import Document

LARGEST_EXACT_INT = 2**53  # JSON's numbers are doubles to most readers, and a Struct's to all


def json_safe(value: Any) -> Any:  # noqa: PLR0911 - one line per kind of value
    """Return a value as JSON can carry it, in Haystack's own dictionary form where it has one."""
    match value:
        case None | bool():
            return value
        case int():
            return value if abs(value) <= LARGEST_EXACT_INT else str(value)
        case str():
            return encodable(value)
        case float():
            return value if math.isfinite(value) else None
        case Document():
            return json_safe({"id": value.id, "content": value.content, "score": value.score, "meta": value.meta})
        case Mapping():
            return {encodable(str(name)): json_safe(item) for name, item in cast("Mapping[Any, Any]", value).items()}
        case Sequence() | set() | frozenset() if not isinstance(value, bytes | bytearray):
            return [json_safe(item) for item in cast("Collection[Any]", value)]
        case _ if callable(item := getattr(value, "item", None)) and getattr(value, "shape", None) == ():
            return json_safe(item())  # one of numpy's numbers
        case _ if callable(to_dict := getattr(value, "to_dict", None)):
            return json_safe(to_dict())
        case _:
            return f"<{type(value).__name__}>"  # neither its text nor its bytes: both may hold anything


def encodable(text: str) -> str:
    """Return text that UTF-8 can carry. Half a surrogate pair, which some providers cut an emoji into, becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
