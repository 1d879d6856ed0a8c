"""File descriptors: each connection takes one, and many systems begin with a thousand where more may be had."""

from __future__ import annotations

import resource
from contextlib import suppress


def raise_descriptor_limit() -> None:
    """Raise the limit that is in force to the most that this process may have, where the system lets it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems call it unlimited, and do not take that
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
