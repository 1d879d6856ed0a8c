"""The Structs of a request: within bounds, of numbers that JSON has, and as plain values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

from haystream_service.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.struct_pb2 import Struct, Value

# Protobuf itself reads no message that is nested deeper than 100, which is 33 objects or 48 lists: gRPC would refuse it
# in words that name nothing.
MAX_DEPTH = 24
# Each takes some 3 µs to look at, on the loop: a request's are not to hold up the others for long.
MAX_VALUES = 20_000


# Of a name in what a caller is told: it may have megabytes.
NAME_CHARACTERS = 64

Path: TypeAlias = tuple[str | int, ...]


class StructCheck:
    """Looks through the Structs of one request, which have a number of values to share.

    What is looked at has its place as a tuple; it is written out for what is wrong alone, since it may be long.
    """

    def __init__(self) -> None:
        self._values_left = MAX_VALUES

    def violations(self, field: str, struct: Struct) -> Iterator[Violation]:
        """Name what is wrong in a Struct, a field of the request."""
        return self._struct_violations((field,), struct, 1)

    def _struct_violations(self, path: Path, struct: Struct, depth: int) -> Iterator[Violation]:
        yield from self._count(path, len(struct.fields))
        if self._values_left >= 0:
            for name, value in struct.fields.items():
                yield from self._value_violations((*path, name), value, depth)

    def _value_violations(self, path: Path, value: Value, depth: int) -> Iterator[Violation]:
        match value.WhichOneof("kind"):
            case "number_value" if not math.isfinite(value.number_value):
                yield Violation(_written(path), "expected a finite number")
            case "struct_value" | "list_value" if depth == MAX_DEPTH:
                yield Violation(_written(path), f"expected at most {MAX_DEPTH} objects and lists inside each other")
            case "struct_value":
                yield from self._struct_violations(path, value.struct_value, depth + 1)
            case "list_value":
                items = value.list_value.values
                yield from self._count(path, len(items))
                if self._values_left >= 0:
                    for index, item in enumerate(items):
                        yield from self._value_violations((*path, index), item, depth + 1)
            case _:
                pass

    def _count(self, path: Path, values: int) -> Iterator[Violation]:
        """Name the first field that is too much; what comes after it is not looked at."""
        if 0 <= self._values_left < values:
            cure = f"expected at most {MAX_VALUES} values in all objects and lists of a request"
            yield Violation(_written(path), cure)
        self._values_left -= values


def _written(path: Path) -> str:
    field, *parts = path
    return "".join([str(field), *(f"[{part}]" if isinstance(part, int) else f".{_clipped(part)}" for part in parts)])


def _clipped(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"


def plain(struct: Struct) -> dict[str, Any]:
    """Return a Struct as a dictionary; whole numbers, which a Struct holds as floats, become ints again."""
    return {name: _plain_value(value) for name, value in struct.fields.items()}


def _plain_value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_plain_value(item) for item in value.list_value.values]
        case _:
            return None
