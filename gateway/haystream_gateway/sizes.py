"""How much a body may bring: all that the service takes, and little more, so that reading it holds up nobody."""

from __future__ import annotations

import re
from itertools import islice

# As the service has them, which refuses in words what is over them.
MAX_NAMES = 100  # of components
MAX_TOOL_CALLS = 100  # of a message
MAX_DEPTH = 24  # objects and lists inside each other
MAX_VALUES = 20_000  # in all objects and lists of a request that are not of the contract's own making

# The service's own bounds are lower, its operator's to set, or not by message: a tool's result may have many parts.
MAX_MESSAGES = 10_000
MAX_PARTS = 10_000

# Those messages, parts and values, with all the fields that they can have. JSON that is made of more, such as a million
# empty lists, takes a hundred times its size when it is read, and seconds.
MAX_BODY_VALUES = 150_000

# On to the next sign that a value follows, over all strings, or to the end. Nothing is tried twice: it takes one way
# through the text, whatever that is.
_NEXT = re.compile(rb'(?:[^",\[{]++|"(?:[^"\\]++|\\.)*+"?)*+(?:([,\[{])|\Z)', re.DOTALL)


def has_more_values(text: bytes, limit: int) -> bool:
    """Tell whether JSON has more values than that inside others, before anything is made of them."""
    at_most = sum(text.count(sign) for sign in (b",", b"[", b"{"))
    if at_most <= limit:
        return False
    values = (match for match in _NEXT.finditer(text) if match[1])
    return next(islice(values, limit, None), None) is not None
