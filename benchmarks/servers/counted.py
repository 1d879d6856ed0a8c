"""Runs the service, which then counts its pipelines for callers' keys on SIGUSR1: a line of JSON on standard output."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from haystack.components.generators.chat import OpenAIChatGenerator

import haystream_service.server
from haystream_service.__main__ import main
from haystream_service.server import Service, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from structlog.typing import FilteringBoundLogger

    from haystream_service.logs import Secrets
    from haystream_service.pipelines.keyed import KeyedPipelines
    from haystream_service.settings import Settings
    from haystream_service.telemetry.tracing import Traces


@asynccontextmanager
async def serving_counted(
    settings: Settings, log: FilteringBoundLogger, hidden: Secrets | None = None, traces: Traces | None = None
) -> AsyncGenerator[Service]:
    """Serve as the service does."""
    async with serving(settings, log, hidden, traces) as service:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell, service.keyed)
        yield service


def tell(keyed: KeyedPipelines) -> None:
    """Print how many pipelines are kept, and how many generators there are in memory, with and without garbage.

    The service's own generators are not among them: what it has loaded at its start is frozen, and the collector does
    not know it any more.
    """
    in_memory = generators()
    gc.collect()
    print(json.dumps({"kept": len(keyed), "in_memory": in_memory, "alive": generators()}), flush=True)


def generators() -> int:
    """Return the number of generators that the collector knows."""
    return sum(type(one) is OpenAIChatGenerator for one in gc.get_objects())


if __name__ == "__main__":
    haystream_service.server.serving = serving_counted  # which the command imports when it starts
    main()
