"""TLS for the service's port: certificates that can be exchanged while it serves, and who callers' own say they are."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import grpc

from haystream_service.entrance.certificates import (
    CertificateFiles,
    Certificates,
    CertificateUnusable,
    now,
    read_certificates,
)
from haystream_service.identity.certificate import PeerCertificate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from structlog.typing import FilteringBoundLogger

    from haystream_service.rpc import Context
    from haystream_service.settings import Settings

SHOWN = "x509_pem_cert"


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
        self._given: Certificates | None = None  # what gRPC has, which learns of new ones at a handshake alone
        self._warned = ""
        self._warn()

    @property
    def expires_at(self) -> datetime:
        """When the certificate that new connections get is over: as the files are now."""
        return self._look().expires_at

    @property
    def client_ca_expires_at(self) -> datetime | None:
        """When the last of callers' authorities is over, where they need certificates: as the files are now."""
        return self._look().client_ca_expires_at

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is opened with. It knows TLS 1.2 and 1.3."""
        self._given = self._current
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._current),
            self._fetch,  # type: ignore[arg-type]  # None stands for no change, which its stub does not know
            require_client_authentication=self._files.client_ca is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return certificates that have changed. gRPC calls it from a thread of its own, before each handshake."""
        with self._lock:
            current = self._look_again()
            if current is self._given:
                return None
            self._given = current
            return _configuration(current)

    def _look(self) -> Certificates:
        """Return the certificates in force, from files that were looked at just now."""
        with self._lock:
            return self._look_again()

    def _look_again(self) -> Certificates:
        self._read_again()
        self._warn()
        return self._current

    def _read_again(self) -> None:
        """Read the files where they are others than before, and keep what was before where they are wrong."""
        fingerprint = self._files.fingerprint()
        if fingerprint == self._fingerprint:
            return
        try:
            fresh = read_certificates(self._files)
        except CertificateUnusable as error:
            if self._files.fingerprint() == fingerprint:  # else somebody is still writing
                self._fingerprint = fingerprint
                self._log.warning("the certificates are as before, since the new ones are wrong", problem=str(error))
            return
        self._fingerprint = fingerprint
        self._current = fresh
        self._log.info("the certificates are new", expires=fresh.expires_at.isoformat())

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


def certificate_of(context: Context) -> PeerCertificate | None:
    """Return what a caller's certificate says, which TLS has verified by then; None where there was none.

    gRPC takes a URI for a SPIFFE id only where that is a certificate's only one, as SPIFFE wants.
    """
    told: Mapping[str, Iterable[bytes]] = context.auth_context()
    if SHOWN not in told:
        return None
    return PeerCertificate(
        spiffe_id="".join(_texts(told.get("peer_spiffe_id", ()))),
        dns_names=_texts(told.get("peer_dns", ())),
        uris=_texts(told.get("peer_uri", ())),
    )


def _texts(values: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(value.decode("ascii", "replace") for value in values)
