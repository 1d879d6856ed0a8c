"""The command: reads the environment, serves, and ends on SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import uvloop
from pydantic import ValidationError
from pydantic_settings import CliApp

from haystream_service.descriptors import SPARE, descriptors_left, raise_descriptor_limit
from haystream_service.errors import CannotServe
from haystream_service.logs import Secrets, set_up_logging
from haystream_service.secret_names import secrets_of
from haystream_service.settings import Settings, complaint_about, is_loopback
from haystream_service.telemetry.export import Export, wants_traces

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from structlog.typing import FilteringBoundLogger

    from haystream_service.server import Service
    from haystream_service.telemetry.tracing import Traces

    Look: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

LEAVE_SECONDS = 1.0  # what threads without work and libraries take to end, and much more


def main() -> NoReturn:
    """Serve until a signal says otherwise; exit 0 then, and 1 with one line where it cannot begin."""
    # Haystack reports to its makers at import unless told not to; who wants that sets the variable.
    os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
    # Else it gives its loggers a handler of its own, which shows content and keys. The log here is the service's alone.
    os.environ["HAYSTACK_LOGGING_IGNORE_STRUCTLOG"] = "true"
    # Else gRPC writes a line of its own for each handshake that fails, as any stranger can have it. Read at its import.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        settings = CliApp.run(Settings)
    except ValidationError as error:
        _refuse(complaint_about(error))
    hidden = Secrets(secrets_of(os.environ))
    log = set_up_logging(settings.log_format, settings.log_level, hidden)
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        complaint = runner.run(_serve(settings, log, hidden))
        if complaint:
            _complain(complaint)
        _leave_soon(1 if complaint else 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which the loop no longer hears
    sys.exit(1 if complaint else 0)


async def _serve(settings: Settings, log: FilteringBoundLogger, hidden: Secrets) -> str:
    """Serve until a signal; return a complaint where that was not possible."""
    loop = asyncio.get_running_loop()
    stop, look_again = _stop_on_signals(loop), LookAgain(loop)
    from haystream_service.server import serving  # noqa: PLC0415 - after the environment is set, and signals are heard

    try:
        async with (
            _traces() as traces,
            serving(settings, log, hidden, traces) as service,
            look_again.within(
                partial(service.registry.look_again, retry_failed=True), service.authenticator.look_again
            ),
        ):
            _greet(settings, service, log)
            settling = asyncio.create_task(_settle(service.loaded), name="settle")
            await stop.wait()
            settling.cancel()
            log.info("draining", runs=len(service.runs), seconds=settings.drain_seconds)
    except CannotServe as error:
        return str(error)
    log.info("stopped")
    return ""


def _greet(settings: Settings, service: Service, log: FilteringBoundLogger) -> None:
    """Say where the service serves, and what everybody should know who lets others reach it."""
    host = settings.listen.rpartition(":")[0]
    if not is_loopback(settings.listen):
        if not settings.has_authentication:
            log.warning("there is no authentication: whoever reaches this address can run pipelines", address=host)
        elif service.encryption is None:
            log.warning("there is no encryption: whoever is on the way can read tokens and answers", address=host)
    left, wanted = descriptors_left(), settings.max_connections + SPARE
    if left is not None and left < wanted:
        log.warning("there are too few file descriptors for max_connections", left=left, wanted=wanted)
    log.info("serving", address=f"{host}:{service.port}", pipelines=str(settings.pipelines))
    if service.health_port is not None:
        log.info("health", at=f"{settings.health_listen.rpartition(':')[0]}:{service.health_port}")
    if service.metrics_port is not None:
        log.info("metrics", url=f"http://{settings.metrics_listen.rpartition(':')[0]}:{service.metrics_port}/metrics")


@asynccontextmanager
async def _traces() -> AsyncGenerator[Traces | None]:
    """Send traces where the environment wants them, and at the end what is left of them. Raises CannotServe."""
    if not wants_traces(os.environ):
        yield None
        return
    export = Export()
    from haystream_service.telemetry.tracing import Traces  # noqa: PLC0415 - it needs the extra `otel`

    try:
        yield Traces(export.provider)
    finally:
        await asyncio.to_thread(export.close)


class LookAgain:
    """SIGHUP: looks at once for changed pipelines, those included that could not be loaded, and for who may call.

    Heard from the beginning to the end: unheard, it would end the process.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ways: tuple[Look, ...] = ()
        self._looks: set[asyncio.Task[None]] = set()
        loop.add_signal_handler(signal.SIGHUP, self._on_signal)

    def _on_signal(self) -> None:
        for way in self._ways:
            task = asyncio.create_task(way(), name="look again")
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)

    @asynccontextmanager
    async def within(self, *ways: Look) -> AsyncGenerator[None]:
        """Have it done in these ways while the block lasts."""
        self._ways = ways
        try:
            yield
        finally:
            self._ways = ()
            for look in self._looks:
                look.cancel()
            await asyncio.gather(*self._looks, return_exceptions=True)


async def _settle(loaded: asyncio.Event) -> None:
    """Spare what stays from the garbage collector, which would stop everything for a tenth of a second each time."""
    await loaded.wait()
    gc.collect()
    gc.freeze()


def _leave_soon(code: int) -> None:
    """Have the process end in a moment, whatever it still waits for.

    Python waits for every thread that is no daemon: a component's own that hangs, one that reads from a disk that is
    gone. None of them can be told from one that is about to end.
    """
    leaving = threading.Timer(LEAVE_SECONDS, os._exit, (code,))
    leaving.daemon = True
    leaving.start()


def _stop_on_signals(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Return an event that the first SIGTERM or Ctrl-C sets. The second ends the process where it stands.

    That one is heard without the loop, which may be held up, or over.
    """
    stop, heard = asyncio.Event(), False

    def on_signal(*_: object) -> None:
        nonlocal heard
        if heard:
            os._exit(1)
        heard = True
        with suppress(RuntimeError):  # the loop is closed, and the process as good as gone
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


def _refuse(complaint: str) -> NoReturn:
    _complain(complaint)
    sys.exit(1)


def _complain(complaint: str) -> None:
    print(f"haystream-service: {complaint}", file=sys.stderr)  # noqa: T201 - there may be no log yet


if __name__ == "__main__":
    main()
