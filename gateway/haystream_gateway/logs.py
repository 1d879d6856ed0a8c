"""Log lines with fields: for people on a console, or JSON for machines. Never content, never secrets."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

REDACTED = "[redacted]"

# What keys and tokens look like, should a traceback ever hold one.
_KEYS = re.compile(r"\bsk-[\w-]{6,}|(?i:(?<=bearer )|(?<=api_key=)|(?<=api-key: ))[^\s'\"&]+")


def set_up_logging(log_format: str, level: str) -> FilteringBoundLogger:
    """Send the gateway's lines, and the warnings of the libraries under it, to standard error."""
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The console's own form of a traceback shows every local variable, and with them keys and what users wrote.
    renderer: list[Processor] = [
        structlog.processors.format_exc_info,
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
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = _KEYS.sub(REDACTED, value)
    return event


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
