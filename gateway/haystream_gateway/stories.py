"""What an exception tells without its words, which quote what users wrote: its type and its places in the code."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_EXCEPTIONS = 20  # of a chain, or of groups


def story_of(error: BaseException) -> str:
    """Return the places and the types of an exception and of all that led to it, the newest last."""
    told: dict[int, str] = {}
    waiting = [error]
    while waiting and len(told) < MOST_EXCEPTIONS:
        link = waiting.pop(0)
        if id(link) not in told:
            told[id(link)] = "".join(traceback.format_tb(link.__traceback__)) + _name(link)
            waiting += _behind(link)
    return "\n".join(reversed(told.values()))


def _name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")


def _behind(error: BaseException) -> list[BaseException]:
    members: Sequence[BaseException] = ()
    if isinstance(error, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return [*members[:MOST_EXCEPTIONS], *([] if before is None else [before])]
