"""The provider's process, and what it reports of clients that hung up."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.process import ServerFailed, module, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.process import ServerProcess


PROVIDER = "BENCHMARK_PROVIDER"  # the variable that tells servers its address


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider that runs."""

    address: str
    _closings: dict[str, asyncio.Future[int]]

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.address.rpartition(":")[2])

    def closing(self, name: str) -> asyncio.Future[int]:
        """Return when the socket of the answer of this name was closed in the middle, once it is."""
        return self._closings.setdefault(name, asyncio.get_running_loop().create_future())


@asynccontextmanager
async def providing() -> AsyncGenerator[Provider]:
    """Run the provider."""
    async with running("provider", module("benchmarks.servers.provider"), {}) as process:
        provider = Provider(f"127.0.0.1:{int(await process.next_line())}", {})
        listening = asyncio.create_task(_listen(process, provider))
        try:
            yield provider
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _listen(process: ServerProcess, provider: Provider) -> None:
    while True:
        try:
            report = json.loads(await process.next_line())
        except ServerFailed:
            return
        closing = provider.closing(report["name"])
        if not closing.done():
            closing.set_result(report["closed_ns"])
