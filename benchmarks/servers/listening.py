"""How the benchmark's own servers take a free port and tell which it is."""

from __future__ import annotations

import socket

BACKLOG = 4096  # a thousand readers come at once


def announced_socket() -> socket.socket:
    """Listen on a free port of this machine alone, and print it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    # asyncio sets this only on sockets that were made with TCP's number, which these are not.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    announce(listener.getsockname()[1])
    return listener


def announce(port: int) -> None:
    """Print the port: whoever started this process waits for the line."""
    print(port, flush=True)
