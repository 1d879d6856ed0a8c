"""Single files that an operator may exchange: whether one is another, and what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def fingerprint_of(file: Path) -> tuple[int, ...]:
    """Return what changes with a file, through all links; one that is not there has a fingerprint, too."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_dev, status.st_ino


def read_at_most(file: Path, max_bytes: int) -> bytes:
    """Return what a file holds. Raises OSError, also where that is more."""
    with file.open("rb") as opened:
        content = opened.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(0, f"it has more than {max_bytes} bytes")
    return content
