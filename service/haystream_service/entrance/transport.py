"""What gRPC's server is told of the connections, streams and frames that it is to bear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haystream_service.sizes import MAX_REQUEST_BYTES

if TYPE_CHECKING:
    from haystream_service.settings import Settings

MAX_METADATA_BYTES = 16 * 1024
HANDSHAKE_SECONDS = 10
IDLE_SECONDS = 30 * 60


def options_of(settings: Settings) -> list[tuple[str, int]]:
    """Return the options of a server. Each is known to do what it says: gRPC ignores names that it does not know."""
    return [
        ("grpc.so_reuseport", 0),  # otherwise a second service would share the port without a word
        # Each connection has a file descriptor and some 15 KB, before anybody knows who it is. One more is closed as
        # soon as it was accepted.
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        # A stream costs memory and a task before its handler can refuse it. The client's side holds one more back.
        ("grpc.max_concurrent_streams", settings.max_streams),
        # Whoever connects and says nothing, or stops in the middle of a handshake, holds a connection: for two minutes
        # otherwise. The second is for one that never says that it has read the settings.
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.http2.settings_timeout", HANDSHAKE_SECONDS * 1000),
        # Clients that are done may forget to hang up. One with an open stream, a Health.Watch too, is not idle.
        ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
        # A caller's certificate is looked at once, with its connection; a balancer chooses a service so, too. When a
        # connection is that old its client is asked to open another, and what goes on goes on.
        ("grpc.max_connection_age_ms", round(settings.connection_age_seconds * 1000)),
        # The size is checked as headers arrive. Between a soft and a hard limit gRPC would refuse at random.
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        # A call whose request is not read yet holds 64 KiB of it; where gRPC measures the way, and finds it fast, all
        # of it. One that is read has room for its rest at once.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_receive_message_length", 4 * MAX_REQUEST_BYTES),
        # More than about 1,000 calls that nobody has accepted yet are cancelled at random below these.
        ("grpc.server.max_pending_requests", 10_000),
        ("grpc.server.max_pending_requests_hard_limit", 20_000),
        # gRPC takes one call in a few turns of the loop, and cancels those that it has not taken for 30 s. A service
        # that is busy to its limits needs longer for a thousand that come at once; who cannot wait has a deadline.
        ("grpc.server_max_unrequested_time_in_server", 600),
        # A peer that froze or lost its network is noticed within 25 s. The keepalive timeout alone never fires.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),
        # A peer that pings more often, thrice, is sent away (`max_ping_strikes` is 2): each ping costs an answer.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
