"""Any message that a descriptor allows, and many that no client would make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

DEPTH = 4  # of messages in messages; a Struct may hold itself
ITEMS = 3

# Words that mean something here, so that not every request ends at the first look.
WORDS = st.sampled_from(["", "canary", "census", "llm", "query", "tweet", "a-run"])

SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 5) | st.integers(-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, (1 << 64) - 1),
}


def messages(descriptor: Descriptor, depth: int = DEPTH) -> st.SearchStrategy[Message]:
    """Return a strategy for the messages of a type, any of whose fields may be set."""
    form = GetMessageClass(descriptor)
    fields = {field.name: _values(field, depth) for field in descriptor.fields if _has_room(field, depth)}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: form(**_one_of_each(descriptor, values)))


def _one_of_each(descriptor: Descriptor, values: dict[str, Any]) -> dict[str, Any]:
    """Leave out all fields but one of each oneof."""
    for choice in descriptor.oneofs:
        for field in [field.name for field in choice.fields if field.name in values][1:]:
            del values[field]
    return values


def _has_room(field: FieldDescriptor, depth: int) -> bool:
    return depth > 0 or field.message_type is None


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return st.dictionaries(_words(), _single(value, depth), max_size=ITEMS)
    return st.lists(_single(field, depth), max_size=ITEMS) if field.is_repeated else _single(field, depth)


def _single(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if (form := field.message_type) is not None:
        return st.deferred(lambda: messages(form, depth - 1))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=100) if field.type == FieldDescriptor.TYPE_BYTES else _words()
    return SCALARS[field.cpp_type]


def _words() -> st.SearchStrategy[str]:
    return WORDS | st.text(max_size=30)
