"""What an exception tells without its words: those quote what users wrote, and what providers answered to it."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_EXCEPTIONS = 20  # of a chain, or of a group


def story_of(error: BaseException) -> str:
    """Return where it was raised and what it is, and the same of what led to it, the first cause first."""
    links = list(_chain(error))
    return "\n".join(_link(link) for link in reversed(links[:MOST_EXCEPTIONS]))


def _link(error: BaseException) -> str:
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return "".join(traceback.format_tb(error.__traceback__)) + name


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and all behind it, as Python itself would show them; of a group, also its members."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        if isinstance(link, BaseExceptionGroup):
            waiting.extend(cast("BaseExceptionGroup[BaseException]", link).exceptions[:MOST_EXCEPTIONS])
        waiting.append(link.__cause__ or (None if link.__suppress_context__ else link.__context__))
