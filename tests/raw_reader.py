"""A gRPC caller on a raw socket, which reads when it is told to and not before."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, TrailersReceived

if TYPE_CHECKING:
    from collections.abc import Generator

    from haystream.v1 import chat_pb2

STOCK_WINDOW_BYTES = 4 * 1024 * 1024  # what a stock client lets a server send before it has read


class RawReader:
    """One Chat on a connection of its own. Blocks: to be used in a thread."""

    def __init__(self, connection: socket.socket, authority: str, request: chat_pb2.ChatRequest) -> None:
        self._socket = connection
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._http.initiate_connection()
        self._http.update_settings({4: STOCK_WINDOW_BYTES})  # SETTINGS_INITIAL_WINDOW_SIZE
        self._http.increment_flow_control_window(STOCK_WINDOW_BYTES)
        message = request.SerializeToString()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", authority),
            (":path", "/haystream.v1.ChatService/Chat"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        self._http.send_headers(1, headers)
        self._http.send_data(1, b"\0" + len(message).to_bytes(4) + message, end_stream=True)
        self._socket.sendall(self._http.data_to_send())

    def read_to_end(self) -> tuple[int, dict[str, str]]:
        """Read all that comes; return how many bytes of messages there were, and the trailers."""
        size, trailers, is_open = 0, dict[str, str](), True
        while is_open and (received := self._socket.recv(65536)):
            for event in self._http.receive_data(received):
                if isinstance(event, DataReceived) and event.flow_controlled_length:
                    size += event.flow_controlled_length
                    self._http.acknowledge_received_data(event.flow_controlled_length, 1)
                elif isinstance(event, TrailersReceived):
                    trailers = {str(name): str(value) for name, value in event.headers or ()}
                elif isinstance(event, StreamEnded):
                    is_open = False
            self._socket.sendall(self._http.data_to_send())
        return size, trailers


@contextmanager
def raw_reader(address: str, request: chat_pb2.ChatRequest) -> Generator[RawReader]:
    """Ask on a raw socket, and read nothing yet."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        yield RawReader(connection, address, request)
