"""Log lines with fields: for people on a console, or JSON for machines. Never content, never secrets."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog

from haystream_service.stories import story_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from structlog.typing import EventDict, FilteringBoundLogger, Processor


REDACTED = "[redacted]"
OWN = "haystream_service."
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
    """Send the service's lines, and where libraries under it warned, to standard error, without the secrets."""
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
    _adopt_library_logs(level, shared, renderer)
    return cast("FilteringBoundLogger", structlog.get_logger("haystream"))


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without what looks like a key, and without the secrets that are known."""
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, REDACTED).replace(repr(secret)[1:-1], REDACTED)
    return _KEYS.sub(REDACTED, text)


def _redactor(secrets: Iterable[str]) -> Processor:
    def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {name: _redacted_value(value, secrets) for name, value in event.items()}

    return redact


def _redacted_value(value: Any, secrets: Iterable[str]) -> Any:
    match value:
        case str():
            return redacted(value, secrets)
        case list() | tuple():
            items = cast("Iterable[object]", value)
            return [_redacted_value(item, secrets) for item in items]
        case dict():
            pairs = cast("dict[object, object]", value).items()
            return {_redacted_value(name, secrets): _redacted_value(item, secrets) for name, item in pairs}
        case _:
            return value


def _adopt_library_logs(level: str, shared: list[Processor], renderer: list[Processor]) -> None:
    """Give warnings of others the same shape. They quote what users wrote: their words are there at level debug alone.

    What others say at lower levels is never there.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[partial(_of_library, has_words=level == "debug"), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    least = max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])
    logging.basicConfig(handlers=[handler], level=least, force=True)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_shows_no_metadata)
    warnings.showwarning = _log_warning


def _of_library(_logger: object, _method: str, event: EventDict, *, has_words: bool) -> EventDict:
    """Say of a line which is not the service's where it was written, and of an exception its places and types."""
    record: logging.LogRecord = event["_record"]
    place = {"logger": record.name, "file": record.pathname, "line": record.lineno}
    if has_words or record.name.startswith(OWN):
        return {**event, **place}
    error = record.exc_info[1] if record.exc_info else None
    told = {} if error is None else {"exception": story_of(error)}
    kept = {name: event[name] for name in ("_record", "_from_structlog")}
    return {"event": "a library's line", **place, **told, **kept}


def _log_warning(  # noqa: PLR0913, PLR0917 - Python's own form of it
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Log what Python's `warnings` would write to standard error in its own way."""
    log = logging.getLogger("py.warnings")
    if log.isEnabledFor(logging.WARNING):
        said = (category.__name__, message)
        log.handle(log.makeRecord(log.name, logging.WARNING, filename, lineno, "%s: %s", said, None))


def _shows_no_metadata(record: logging.LogRecord) -> bool:
    """Leave out the line with which gRPC shows metadata that are not UTF-8, all of it: it may be anybody's secret."""
    return not str(record.msg).startswith("Invalid encoding")
