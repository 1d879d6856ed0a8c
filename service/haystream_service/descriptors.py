"""File descriptors: each connection takes one, and many systems begin with a thousand where more may be had."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

OPEN = Path("/dev/fd")
SPARE = 200  # for providers, files and what libraries open


def raise_descriptor_limit() -> None:
    """Raise the limit that is in force to the most that this process may have, where the system lets it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems call it unlimited, and do not take that
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def descriptors_left() -> int | None:
    """Return how many more this process may open; None where that is not known or has no end."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return None if limit == resource.RLIM_INFINITY else limit - len(list(OPEN.iterdir()))
    except OSError:
        return None
