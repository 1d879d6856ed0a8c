"""How the soak gets in: what the servers are started with, and what callers bring. The one place that says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import grpc.aio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),  # a channel's connections are its own: cutting one cuts nobody else off
)


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


PLAIN = Access()
