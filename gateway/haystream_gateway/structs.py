"""Fills the contract's Structs with what JSON has: as many values, and as deep, as the service takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from haystream_gateway.problems import invalid
from haystream_gateway.sizes import MAX_DEPTH, MAX_VALUES, has_more_values

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct

TOO_MANY = f"expected at most {MAX_VALUES} values in all objects and lists of a request"


class Structs:
    """Fills the Structs of one request, which have a number of values to share.

    Raises Rejection for too many of them, for what nests too deep, and for numbers and texts that a Struct cannot hold.
    """

    def __init__(self) -> None:
        self._values_left = MAX_VALUES

    def fill(self, struct: Struct, field: str, values: dict[str, Any]) -> None:
        """Fill a Struct, the field of that name."""
        self._check(field, values)
        try:
            struct.update(values)
        except OverflowError:
            raise invalid((field, "expected numbers that a double can hold")) from None
        except UnicodeEncodeError:
            raise invalid((field, "expected text that UTF-8 can hold")) from None

    def fill_from_text(self, struct: Struct, field: str, text: str) -> None:
        """Fill a Struct with a JSON object that was sent as text."""
        try:
            if has_more_values(text.encode(), MAX_VALUES):
                raise invalid((field, TOO_MANY))
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise invalid((field, "expected a JSON object, as text"))
        self.fill(struct, field, cast("dict[str, Any]", values))

    def _check(self, field: str, values: dict[str, Any]) -> None:
        """Look at one level after the other, and at no more of them than there may be values."""
        level: list[dict[str, Any] | list[Any]] = [values]
        for _ in range(MAX_DEPTH):
            inner: list[dict[str, Any] | list[Any]] = []
            for container in level:
                self._values_left -= len(container)
                if self._values_left < 0:
                    raise invalid((field, TOO_MANY))
                items = list(container.values()) if isinstance(container, dict) else container
                inner += (item for item in items if isinstance(item, dict | list))
            if not inner:
                return
            level = inner
        raise invalid((field, f"expected at most {MAX_DEPTH} objects and lists inside each other"))
