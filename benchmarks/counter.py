"""A number that one process writes and another reads: eight bytes of a file in shared memory."""

from __future__ import annotations

import mmap
import struct
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

NUMBER = struct.Struct("<Q")


def new_counter(path: Path) -> None:
    """Make a counter that stands at zero."""
    path.write_bytes(NUMBER.pack(0))


def read_counter(path: Path) -> int:
    """Return what a counter shows now."""
    number: int = NUMBER.unpack(path.read_bytes())[0]
    return number


@contextmanager
def counting(path: str) -> Generator[Callable[[int], None]]:
    """Write the counter for as long as the block lasts; costs no system call per number."""
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), NUMBER.size) as memory:
        yield lambda number: NUMBER.pack_into(memory, 0, number)


@contextmanager
def noting_stop(path: str) -> Generator[None]:
    """Where the block is left before its end, write when: nanoseconds of the clock that all processes share."""
    try:
        yield
    except BaseException:  # a cancellation, above all, and whatever else stops a model
        if path:
            # One write, since somebody waits for the whole number; or nobody any more, and then the file is gone.
            with suppress(FileNotFoundError), Path(path).open("r+b") as file:
                file.write(NUMBER.pack(time.monotonic_ns()))
        raise
