"""Certificates as they lie in files: read, checked against their keys, and judged by how long they last.

What is said of them names files and settings, and never shows what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from haystream_service.errors import CannotServe
from haystream_service.files import fingerprint_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CERTIFICATE, KEY, CLIENT_CA = "HAYSTREAM_TLS_CERT", "HAYSTREAM_TLS_KEY", "HAYSTREAM_TLS_CLIENT_CA"

EXPIRES_SOON = timedelta(days=7)

Fingerprint: TypeAlias = tuple[tuple[int, ...], ...]


class CertificateUnusable(CannotServe):
    """A file that encryption needs is not there, or is wrong. The text is one line: the setting, the file, the cure."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a service's certificate and key are, and the certificates of who signs callers' own."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def named(self) -> tuple[tuple[str, Path], ...]:
        """Each file with the setting that names it."""
        pair = ((CERTIFICATE, self.certificate), (KEY, self.key))
        return pair if self.client_ca is None else (*pair, (CLIENT_CA, self.client_ca))

    def fingerprint(self) -> Fingerprint:
        """Return what changes with any of the files."""
        return tuple(fingerprint_of(path) for _, path in self.named)


@dataclass(frozen=True, slots=True)
class Certificates:
    """A certificate chain with its key, and callers' authorities where they have to show certificates: PEM.

    `expires_at` is when the first of the chain is over, `client_ca_expires_at` when the last of the authorities is.
    """

    chain: bytes
    key: bytes
    client_ca: bytes | None
    begins_at: datetime
    expires_at: datetime
    client_ca_expires_at: datetime | None

    def outlook(self, files: CertificateFiles, now: datetime) -> str:
        """Return what an operator has to be warned of; empty where all is well."""
        if now < self.begins_at:
            return f"{CERTIFICATE}: {files.certificate} is not valid before {self.begins_at:%Y-%m-%d %H:%M} UTC"
        for setting, path, end in (
            (CERTIFICATE, files.certificate, self.expires_at),
            (CLIENT_CA, files.client_ca, self.client_ca_expires_at),
        ):
            if end is not None and end - now < EXPIRES_SOON:
                verb = "has expired" if end <= now else "expires"
                return f"{setting}: {path} {verb} on {end:%Y-%m-%d %H:%M} UTC; put a new one in its place"
        return ""


def read_certificates(files: CertificateFiles) -> Certificates:
    """Return what the files hold. Raises CertificateUnusable where that would not encrypt."""
    chain, key = _read(CERTIFICATE, files.certificate), _read(KEY, files.key)
    certificates = _certificates(CERTIFICATE, files.certificate, chain)
    _check_key(files, certificates[0], key)
    client_ca, client_ca_expires_at = None, None
    if files.client_ca is not None:
        client_ca = _read(CLIENT_CA, files.client_ca)
        authorities = _certificates(CLIENT_CA, files.client_ca, client_ca)
        client_ca_expires_at = max(authority.not_valid_after_utc for authority in authorities)
    return Certificates(
        chain,
        key,
        client_ca,
        begins_at=max(certificate.not_valid_before_utc for certificate in certificates),
        expires_at=min(certificate.not_valid_after_utc for certificate in certificates),
        client_ca_expires_at=client_ca_expires_at,
    )


def now() -> datetime:
    """Return the time that certificates are judged by."""
    return datetime.now(UTC)


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateUnusable(f"{setting}: {path} cannot be read ({error.strerror})") from None


def _certificates(setting: str, path: Path, pem: bytes) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateUnusable(f"{setting}: {path} is no certificate in PEM, or not whole") from None


def _check_key(files: CertificateFiles, certificate: x509.Certificate, pem: bytes) -> None:
    """Raise CertificateUnusable where a key is no key that gRPC takes, or another certificate's."""
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise CertificateUnusable(f"{KEY}: {files.key} is protected by a password; store it without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateUnusable(f"{KEY}: {files.key} is no private key in PEM, or not whole") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise CertificateUnusable(f"{KEY}: {files.key} has to be a key of RSA or of an elliptic curve (ECDSA)")
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise CertificateUnusable(f"{KEY}: {files.key} is not the key of the certificate {files.certificate}")
