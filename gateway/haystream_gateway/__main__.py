"""The command: reads the environment, serves, and ends on SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import uvloop
from pydantic import ValidationError
from pydantic_settings import CliApp

from haystream_gateway.descriptors import raise_descriptor_limit
from haystream_gateway.logs import set_up_logging
from haystream_gateway.settings import Settings, complaint_about

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def main() -> NoReturn:
    """Serve until a signal says otherwise; exit 0 then, and 1 with one line where it cannot begin."""
    # Else gRPC writes a line of its own for each handshake that fails. Read at its import.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        settings = CliApp.run(Settings)
    except ValidationError as error:
        _refuse(complaint_about(error))
    log = set_up_logging(settings.log_format, settings.log_level)
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        complaint = runner.run(_serve(settings, log))
    if complaint:
        _refuse(complaint)
    sys.exit(0)


async def _serve(settings: Settings, log: FilteringBoundLogger) -> str:
    """Serve until a signal; return a complaint where that was not possible."""
    stop = _stop_on_signals(asyncio.get_running_loop())
    from haystream_gateway.credentials import CredentialsUnusable  # noqa: PLC0415 - after the environment is set
    from haystream_gateway.server import AddressInUse, serving  # noqa: PLC0415

    try:
        async with serving(settings, log) as gateway:
            host = settings.gateway_listen.rpartition(":")[0]
            log.info("serving", address=f"http://{host}:{gateway.port}", target=settings.target)
            await stop.wait()
            log.info("draining", streams=len(gateway.streams))
    except (AddressInUse, CredentialsUnusable) as error:
        return str(error)
    log.info("stopped")
    return ""


def _stop_on_signals(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Return an event that the first SIGTERM or Ctrl-C sets. The second ends the process where it stands."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    return stop


def _refuse(complaint: str) -> NoReturn:
    print(f"haystream-gateway: {complaint}", file=sys.stderr)  # noqa: T201 - there may be no log yet
    sys.exit(1)


if __name__ == "__main__":
    main()
