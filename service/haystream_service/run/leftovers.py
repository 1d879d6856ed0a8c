"""What a component was reading when its callback stopped it."""

from __future__ import annotations

import io
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast


def close_iterators(error: BaseException) -> None:
    """Close the iterators that an error has passed on its way: a provider's stream above all.

    They would be closed with the frames that hold them; but openai's holds itself, so its connection would stay open,
    and the model go on, until the garbage collector comes by.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        values: list[Any] = list(frame.f_locals.values())
        for value in values:
            if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
                close = getattr(cast("Any", value), "close", None)
                with suppress(BaseException):  # on its way out it may even speak once more: nobody waits for it
                    if callable(close):
                        close()
