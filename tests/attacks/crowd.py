"""Many connections from a process of their own: opened, held until its input ends, and closed all at once."""

from __future__ import annotations

import socket
import sys

from tests.attacks.wire import OPENING

WAIT_SECONDS = 20.0


def main(address: str, count: int) -> None:
    """Connect so often; print how many connections are held, and how many were closed in the face."""
    host, _, port = address.rpartition(":")
    connections = [socket.create_connection((host, int(port)), timeout=WAIT_SECONDS) for _ in range(count)]
    held = sum(_is_held(connection) for connection in connections)
    print(held, count - held, flush=True)  # noqa: T201 - what the test reads
    sys.stdin.read()
    for connection in connections:
        connection.close()


def _is_held(connection: socket.socket) -> bool:
    try:
        connection.sendall(OPENING)
        return bool(connection.recv(64))
    except ConnectionError:
        return False


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
