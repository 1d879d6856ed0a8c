"""TLS for the service's port: certificates that can be exchanged while it serves, and who callers' own say they are."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from haystream_service.certificates import (
    CertificateFiles,
    Certificates,
    CertificateUnusable,
    now,
    read_certificates,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from structlog.typing import FilteringBoundLogger

    from haystream_service.settings import Settings


class Encryption:
    """The certificates in force. They are looked at again with each new connection; those that stand stay as they are.

    What has become of the files is said once per change. Raises CertificateUnusable where there is nothing to begin
    with.
    """

    def __init__(self, files: CertificateFiles, log: FilteringBoundLogger) -> None:
        self._files = files
        self._log = log
        self._lock = threading.Lock()  # several connections may begin at once, on threads of gRPC's
        self._fingerprint = files.fingerprint()
        self._current = read_certificates(files)
        self._warned = ""
        self._warn()

    @property
    def expires_at(self) -> datetime:
        """When the certificate that new connections get is over."""
        return self._current.expires_at

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is opened with. It knows TLS 1.2 and 1.3."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._current),
            self._fetch,  # type: ignore[arg-type]  # None stands for no change, which its stub does not know
            require_client_authentication=self._files.client_ca is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return certificates that have changed. gRPC calls it from a thread of its own, before each handshake."""
        with self._lock:
            has_changed = self._has_changed()
            self._warn()
            return _configuration(self._current) if has_changed else None

    def _has_changed(self) -> bool:
        """Read the files where they are others than before, and keep what was before where they are wrong."""
        fingerprint = self._files.fingerprint()
        if fingerprint == self._fingerprint:
            return False
        try:
            fresh = read_certificates(self._files)
        except CertificateUnusable as error:
            if self._files.fingerprint() == fingerprint:  # else somebody is still writing
                self._fingerprint = fingerprint
                self._log.warning("the certificates are as before, since the new ones are wrong", problem=str(error))
            return False
        self._fingerprint = fingerprint
        self._current = fresh
        self._log.info("the certificates are new", expires=fresh.expires_at.isoformat())
        return True

    def _warn(self) -> None:
        """Say what is about to go wrong, once."""
        outlook = self._current.outlook(self._files, now())
        if outlook and outlook != self._warned:
            self._log.warning("a certificate needs to be looked after", problem=outlook)
        self._warned = outlook


def encryption_of(settings: Settings, log: FilteringBoundLogger) -> Encryption | None:
    """Return the encryption that is set; None for none. Raises CertificateUnusable."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Encryption(CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca), log)


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    """Return certificates in gRPC's form, which can be given away once."""
    pairs = [(certificates.key, certificates.chain)]
    return grpc.ssl_server_certificate_configuration(pairs, certificates.client_ca)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who a caller's certificate says it is. Nothing of it is set where there was no certificate, or no encryption."""

    spiffe_id: str = ""
    dns_names: tuple[str, ...] = ()


def peer_of(auth_context: Mapping[str, Iterable[bytes]]) -> Peer:
    """Return who calls, from `context.auth_context()`. gRPC has verified the certificate by then.

    It takes a URI for a SPIFFE id only where that is a certificate's only one, as SPIFFE wants.
    """
    spiffe_ids = list(auth_context.get("peer_spiffe_id", ()))
    names = auth_context.get("peer_dns", ())
    return Peer(
        spiffe_id=spiffe_ids[0].decode() if len(spiffe_ids) == 1 else "",
        dns_names=tuple(name.decode("ascii", "replace") for name in names),
    )
