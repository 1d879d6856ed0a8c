"""Certificates in a folder of the test's own, and channels that trust them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tools.certs import Authority, Pair

if TYPE_CHECKING:
    from pathlib import Path

GATEWAY_ID = "spiffe://haystream.local/gateway"


@dataclass
class Certs:
    """A folder with an authority, and a service's certificate of it."""

    folder: Path
    authority: Authority = field(default_factory=Authority)

    def __post_init__(self) -> None:
        (self.folder / "ca.pem").write_bytes(self.authority.certificate)
        self.authority.service().write(self.folder, "service")

    @property
    def settings(self) -> dict[str, Any]:
        """What a service needs to show the certificate."""
        return {"tls_cert": self.folder / "service.pem", "tls_key": self.folder / "service.key"}

    @property
    def mutual(self) -> dict[str, Any]:
        """What it needs to ask for callers' certificates, too."""
        return {**self.settings, "tls_client_ca": self.folder / "ca.pem"}


@pytest.fixture
def certs(tmp_path: Path) -> Certs:
    """An authority, and a service's certificate of it, in files."""
    return Certs(tmp_path)


def trusting(certs: Certs) -> dict[str, Any]:
    """What a gateway needs to trust the service."""
    return {"gateway_tls_ca": certs.folder / "ca.pem"}


def identified(certs: Certs) -> dict[str, Any]:
    """What it needs to show a certificate of its own, too, once that is in the folder."""
    own = {"gateway_tls_cert": certs.folder / "gateway.pem", "gateway_tls_key": certs.folder / "gateway.key"}
    return {**trusting(certs), **own}


def channel_to(
    port: int, roots: bytes, caller: Pair | None = None, host: str = "localhost", target: str = ""
) -> grpc.aio.Channel:
    """Return a channel of its own connection to an encrypted port, which trusts an authority."""
    pair = (caller.key, caller.certificate) if caller else (None, None)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", host))
    return grpc.aio.secure_channel(
        target or f"127.0.0.1:{port}", grpc.ssl_channel_credentials(roots, *pair), options=options
    )


async def names_of(channel: grpc.aio.Channel) -> list[str]:
    """Ask for the pipelines; return their names."""
    request = chat_pb2.ListPipelinesRequest()
    response = await chat_pb2_grpc.ChatServiceStub(channel).ListPipelines(request, timeout=10)
    return [pipeline.name for pipeline in response.pipelines]


async def refused(channel: grpc.aio.Channel) -> bool:
    """Tell whether no call comes through."""
    async with channel:
        try:
            await names_of(channel)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
    return False
