"""Log lines with fields: for people on a console, or JSON for machines. Never content, never secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from structlog.typing import EventDict, FilteringBoundLogger, Processor


REDACTED = "[redacted]"
SHORTEST_SECRET = 4  # anything shorter would blot out words

# What keys look like: those of OpenAI, Anthropic and their like, Haystream's own tokens, JSON Web Tokens (both parts of
# which that are JSON begin so), and what follows the words for them.
_KEYS = re.compile(
    r"\bsk-[\w-]{6,}|\bhs_[\w-]{16,}|\beyJ[\w-]+\.eyJ[\w-]+\.[\w-]*"
    r"|(?i:(?<=bearer )|(?<=api_key=)|(?<=api-key: ))[^\s'\"&]+"
)


class Secrets:
    """What no line of the log may show: some for good, and callers' keys for as long as something knows them."""

    def __init__(self, lasting: Iterable[str] = ()) -> None:
        self._counts = Counter(lasting)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._counts))

    def add(self, secret: str) -> None:
        """Hide a secret, until it is discarded as often as it was added."""
        self._counts[secret] += 1

    def discard(self, secret: str) -> None:
        """Take back what was added."""
        self._counts[secret] -= 1
        if self._counts[secret] <= 0:
            del self._counts[secret]


def set_up_logging(log_format: str, level: str, secrets: Iterable[str] = ()) -> FilteringBoundLogger:
    """Send the service's lines, and the warnings of the libraries under it, to standard error, without the secrets."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The console's own form of a traceback shows every local variable, and with them keys and what users wrote.
    renderer: list[Processor] = [
        structlog.processors.format_exc_info,
        _redactor(secrets),
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
    return cast("FilteringBoundLogger", structlog.get_logger("haystream"))


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without what looks like a key, and without the secrets that are known."""
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, REDACTED).replace(repr(secret)[1:-1], REDACTED)
    return _KEYS.sub(REDACTED, text)


def _redactor(secrets: Iterable[str]) -> Processor:
    def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
        for name, value in event.items():
            if isinstance(value, str):
                event[name] = redacted(value, secrets)
        return event

    return redact


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
    logging.getLogger("grpc._cython.cygrpc").addFilter(_shows_no_metadata)


def _shows_no_metadata(record: logging.LogRecord) -> bool:
    """Leave out the line with which gRPC shows metadata that are not UTF-8, all of it: it may be anybody's secret."""
    return not str(record.msg).startswith("Invalid encoding")
