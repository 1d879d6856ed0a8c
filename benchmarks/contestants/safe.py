"""The service made safe, by one means or several, and callers to match."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.contestants.entrant import HAYSTREAM, SERVICE, Entrant, free_port, service
from benchmarks.contestants.lane import ServedLane
from benchmarks.process import module
from benchmarks.readers.grpc_line import Way, grpc_lines, no_token
from benchmarks.safeguards import Certificates, Issuer, TokensFile, taking_spans

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from benchmarks.contestants.entrant import Environment
    from benchmarks.contestants.lane import Lane


@dataclass(frozen=True, slots=True)
class ScrapedLane(ServedLane):
    """A service whose metrics are served at a port."""

    metrics_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What makes it safe. `tokens`: those of a file, or an issuer's, the same again or a new one with each call."""

    tokens: str = ""
    is_encrypted: bool = False
    is_scraped: bool = False
    is_traced: bool = False
    command: Sequence[str] = tuple(SERVICE)

    @asynccontextmanager
    async def start(self, environment: Environment) -> AsyncGenerator[Lane]:
        """Run the service with all that, read over gRPC."""
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haystream-bench-")))
            token, identity = await asyncio.to_thread(self._identity, folder)
            certificates = Certificates(folder) if self.is_encrypted else None
            way = Way(token, certificates.trusting() if certificates else None)
            metrics_port = free_port() if self.is_scraped else None
            settings = {
                **environment,
                **identity,
                **(certificates.settings if certificates else {}),
                **({"HAYSTREAM_METRICS_LISTEN": f"127.0.0.1:{metrics_port}"} if metrics_port else {}),
                **(await stack.enter_async_context(taking_spans()) if self.is_traced else {}),
            }
            process, port = await stack.enter_async_context(service(settings, self.command, way))
            lane = ScrapedLane((process,), partial(grpc_lines, port, way=way), metrics_port=metrics_port)
            stack.callback(lane.hang_up)
            yield lane

    def _identity(self, folder: Path) -> tuple[Callable[[], str], dict[str, str]]:
        if not self.tokens:
            return no_token, {}
        if self.tokens == "file":
            file = TokensFile(folder)
            return (lambda: file.token), file.settings
        issuer = Issuer(folder)
        return (issuer.new_token if self.tokens == "new" else issuer.same_token), issuer.settings


PLAIN = HAYSTREAM
UNCOUNTED = Entrant(
    "haystream-uncounted", "without metrics", Means(command=module("benchmarks.servers.uncounted")).start
)
TOKENS = Entrant("haystream-tokens", "with a tokens file", Means(tokens="file").start)
SIGNED = Entrant("haystream-jwt", "with a JSON Web Token, again", Means(tokens="same").start)
NEWLY_SIGNED = Entrant("haystream-jwt-new", "with a new JSON Web Token", Means(tokens="new").start)
ENCRYPTED = Entrant("haystream-tls", "with TLS", Means(is_encrypted=True).start)
SCRAPED = Entrant("haystream-metrics", "with metrics, scraped", Means(is_scraped=True).start)
TRACED = Entrant("haystream-traces", "with traces", Means(is_traced=True).start)
ENCRYPTED_SCRAPED = Entrant(
    "haystream-tls-metrics", "with TLS and metrics", Means(is_encrypted=True, is_scraped=True).start
)
ALL = Entrant(
    "haystream-all",
    "with all: JWT, TLS, metrics, traces",
    Means(tokens="same", is_encrypted=True, is_scraped=True, is_traced=True).start,
)
