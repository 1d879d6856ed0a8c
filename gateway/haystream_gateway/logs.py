"""Log lines with fields: for people on a console, or JSON for machines. Never content, never secrets."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, cast

import structlog

from haystream_gateway.stories import story_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, Processor

REDACTED = "[redacted]"

# What keys look like: those of OpenAI, Anthropic and their like, Haystream's own tokens, JSON Web Tokens (both parts of
# which that are JSON begin so), and what follows the words for them. The service has the same.
_KEYS = re.compile(
    r"\bsk-[\w-]{6,}|\bhs_[\w-]{16,}|\beyJ[\w-]+\.eyJ[\w-]+\.[\w-]*"
    r"|(?i:(?<=bearer )|(?<=api_key=)|(?<=api-key: ))[^\s'\"&]+"
)


def set_up_logging(log_format: str, level: str) -> FilteringBoundLogger:
    """Send the gateway's lines, and the warnings of the libraries under it, to standard error.

    An exception's own words may quote what users wrote: they are there at level debug alone.
    """
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The console's own form of a traceback shows every local variable, and with them keys and what users wrote.
    renderer: list[Processor] = [
        structlog.processors.format_exc_info if level == "debug" else structlog.processors.ExceptionRenderer(_told),
        _redact,
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
    ]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _adopt_library_logs(shared, renderer)
    return cast("FilteringBoundLogger", structlog.get_logger("haystream.gateway"))


def _redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    return {name: _redacted(value) for name, value in event.items()}


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return _KEYS.sub(REDACTED, value)
        case list() | tuple():
            return [_redacted(item) for item in cast("Iterable[object]", value)]
        case dict():
            pairs = cast("dict[object, object]", value).items()
            return {_redacted(name): _redacted(item) for name, item in pairs}
        case _:
            return value


def _told(exc_info: ExcInfo) -> str:
    return story_of(exc_info[1])


def _adopt_library_logs(shared: list[Processor], renderer: list[Processor]) -> None:
    """Give the standard library's warnings the same shape. Lower levels of others hold what users wrote."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
