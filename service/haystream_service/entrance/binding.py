"""Addresses to serve gRPC on: taken, or refused in one line."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from haystream_service.errors import CannotServe

if TYPE_CHECKING:
    import grpc.aio


class AddressInUse(CannotServe):
    """The address to serve on is taken, or cannot be had."""


def bind(server: grpc.aio.Server, setting: str, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
    """Have a server listen, encrypted where there are credentials; return its port. Raises AddressInUse."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, int(port)), family=family).close()  # gRPC's core would say more than one line
        return (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except (OSError, RuntimeError):
        raise AddressInUse(f"{setting}: {address} is taken or cannot be bound") from None
