"""Runs the service, which tells on SIGUSR1 what it holds: a line of JSON on standard output."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import haystream_service.server
from haystream_service.__main__ import main
from haystream_service.server import Service, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from structlog.typing import FilteringBoundLogger

    from haystream_service.logs import Secrets
    from haystream_service.settings import Settings
    from haystream_service.telemetry.tracing import Traces

COMPONENTS = "haystream-sync"  # the names of the components' threads begin so


@asynccontextmanager
async def serving_watched(
    settings: Settings, log: FilteringBoundLogger, hidden: Secrets | None = None, traces: Traces | None = None
) -> AsyncGenerator[Service]:
    """Serve as the service does."""
    async with serving(settings, log, hidden, traces) as service:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell, service)
        yield service


def tell(service: Service) -> None:
    """Print what is open now."""
    held = {
        "runs": len(service.runs),
        "logs": len(service.store),
        "keyed": len(service.keyed),
        "orphans": service.threads.orphans,
        "tasks": len(asyncio.all_tasks()),
        "pooled": sum(thread.name.startswith(COMPONENTS) for thread in threading.enumerate()),
    }
    print(json.dumps(held), flush=True)


if __name__ == "__main__":
    haystream_service.server.serving = serving_watched  # which the command imports when it starts
    main()
