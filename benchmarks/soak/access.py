"""How the soak gets in: what the servers are started with, and what callers bring. The one place that says so."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from benchmarks.safeguards import Certificates, Issuer, TokensFile, taking_spans

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),  # a channel's connections are its own: cutting one cuts nobody else off
)
HOST = "localhost"  # whom the certificate is for
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "500"}  # ms: the first spans are sent before anything is measured


@dataclass(frozen=True, slots=True)
class Access:
    """Settings of the servers by their variables, and callers' ways in.

    `metadata` goes with every call, `headers` with every HTTP request. With `credentials` channels are encrypted; the
    servers' certificates are for `authority`.
    """

    service: Mapping[str, str] = field(default_factory=dict[str, str])
    gateway: Mapping[str, str] = field(default_factory=dict[str, str])
    metadata: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    credentials: grpc.ChannelCredentials | None = None
    authority: str = ""

    def channel(self, target: str, options: Sequence[tuple[str, str | int]] = ()) -> grpc.aio.Channel:
        """Open a channel."""
        chosen = [*OPTIONS, *options]
        if self.credentials is None:
            return grpc.aio.insecure_channel(target, options=chosen)
        if self.authority:
            chosen.append(("grpc.ssl_target_name_override", self.authority))
        return grpc.aio.secure_channel(target, self.credentials, options=chosen)


@asynccontextmanager
async def safe_access(folder: Path) -> AsyncGenerator[Access]:
    """Encrypt everything between callers, gateways and services, ask who calls, and take the services' spans.

    Who calls over gRPC has a token of the file, and who calls a gateway has a JSON Web Token.
    """
    tokens, issuer, certificates = TokensFile(folder), Issuer(folder), Certificates(folder)
    async with taking_spans() as traced:
        yield Access(
            service={**tokens.settings, **issuer.settings, **certificates.settings, **traced, **SOON},
            gateway={
                "HAYSTREAM_GATEWAY_TLS_CA": str(certificates.authority_file),
                "HAYSTREAM_GATEWAY_TLS_SERVER_NAME": HOST,
            },
            metadata=(("authorization", f"Bearer {tokens.token}"),),
            headers={"Authorization": f"Bearer {issuer.token}"},
            credentials=grpc.ssl_channel_credentials(certificates.authority),
            authority=HOST,
        )
