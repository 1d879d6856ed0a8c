"""Serves the metrics over HTTP, at one address and one path. Knows nothing of what is in them."""

from __future__ import annotations

import asyncio
import errno
import io
import socket
import threading
import time
from contextlib import asynccontextmanager, suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from anyio import to_thread
from prometheus_client import make_wsgi_app  # pyright: ignore[reportUnknownVariableType]  # half typed
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    Application = Callable[..., Iterable[bytes]]
    StartResponse = Callable[[str, list[tuple[str, str]]], Any]

PATH = "/metrics"
MAX_REQUESTS = 8  # at once; a connection more is closed
REQUEST_SECONDS = 5  # that one may take to ask, or take nothing
REST_SECONDS = 1.0  # where there are no descriptors for another connection
CLOSE_SECONDS = 0.5  # that the answers take which are being given at the end, and much more

_NOTHING_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@asynccontextmanager
async def exposed(registry: CollectorRegistry, address: str) -> AsyncGenerator[int]:
    """Serve a registry at HOST:PORT while the block lasts; yields the port. Raises OSError where it is taken.

    The loop takes connections, and a thread answers each: Prometheus' own server, without one that polls. At the end
    nobody is waited for, for longer than CLOSE_SECONDS.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    server = _Server(registry, host, int(port))
    server.listen_to(asyncio.get_running_loop())
    try:
        yield server.server_port
    finally:
        server.stop_listening()
        # Not on the loop, which a second signal has to reach, nor in its threads, all of which components may have.
        await to_thread.run_sync(server.server_close)


class _Server(ThreadingMixIn, WSGIServer):
    """Answers a few requests at once, each in a thread that ends with it.

    `_answering` are the connections that are open: each has one of the places until it is closed.
    """

    timeout = 0  # what is asked for is there: the loop says when
    request_queue_size = 64

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        app = cast("Application", make_wsgi_app(_WithoutCreationTimes(registry)))
        self._answering: dict[socket.socket, threading.Thread] = {}
        self._closing = threading.Lock()  # a socket that is closed meanwhile could by now be somebody else's
        super().__init__((host, port), _Handler)
        self.set_app(_only_metrics(app))

    def server_bind(self) -> None:
        """Bind, without the look-up of the host's name that HTTP servers do: it may take seconds."""
        self.socket.setblocking(False)  # who is gone before the loop takes the connection must not make it wait
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def listen_to(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take connections when a loop says that there are some."""
        self._loop = loop
        self._rest: asyncio.TimerHandle | None = None
        loop.add_reader(self.fileno(), self.handle_request)

    def stop_listening(self) -> None:
        """Take no more, and let go of those who are there: one that says nothing would be waited for."""
        self._loop.remove_reader(self.fileno())
        if self._rest is not None:
            self._rest.cancel()
        with self._closing:
            for connection in self._answering:
                with suppress(OSError):  # it is gone already
                    connection.shutdown(socket.SHUT_RDWR)

    def server_close(self) -> None:
        """Close, and wait for the threads, but not long: one may look at a disk that is gone."""
        super().server_close()
        with self._closing:
            threads = list(self._answering.values())
        until = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0, until - time.monotonic()))

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection; where that cannot be had, rest: it goes on waiting, and the loop would say so for ever."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in _NOTHING_LEFT:
                self._loop.remove_reader(self.fileno())
                self._rest = self._loop.call_later(
                    REST_SECONDS, self._loop.add_reader, self.fileno(), self.handle_request
                )
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Tell whether there is a place for one more."""
        return len(self._answering) < MAX_REQUESTS

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread. Where there can be none, the connection is closed, and its place is free."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="haystream-scrape"
        )
        with self._closing:  # it may be done before it is noted
            thread.start()
            self._answering[request] = thread

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._closing:
            self._answering.pop(request, None)
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a connection go that broke, or was silent for too long."""


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def setup(self) -> None:
        """Have what is asked read within a time for the whole of it."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_WithinTime(self.connection))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing: who scrapes is no event."""


class _WithinTime(io.RawIOBase):
    """What comes over a connection, until its time is over: a byte every other second is no request."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ends_seconds = time.monotonic() + REQUEST_SECONDS

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read what there is. Raises TimeoutError."""
        seconds = self._ends_seconds - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self._connection.settimeout(seconds)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(REQUEST_SECONDS)  # the answer has a time of its own


class _WithoutCreationTimes(Collector):
    """What a registry has, but not when each counter began: that doubles the page, and nothing here needs it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Return it."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _only_metrics(app: Application) -> Application:
    """Answer one path, as a whole."""

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"not found\n"]
        return app({**environ, "QUERY_STRING": ""}, start_response)

    return answer
