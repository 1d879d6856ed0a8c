"""Makes a certificate authority for development, and certificates for a service and its callers."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path("certs")
LIFETIME = timedelta(days=30)
TRUST_DOMAIN = "spiffe://haystream.local"
CALLERS = ("gateway", "billing")

ADVICE = """\
{folder}/ has a certificate authority for development, valid for {days} days. The service, encrypted, for callers with
certificates of that authority alone:

  HAYSTREAM_TLS_CERT={folder}/service.pem
  HAYSTREAM_TLS_KEY={folder}/service.key
  HAYSTREAM_TLS_CLIENT_CA={folder}/ca.pem

The gateway, as one of them:

  HAYSTREAM_GATEWAY_TLS_CA={folder}/ca.pem
  HAYSTREAM_GATEWAY_TLS_CERT={folder}/gateway.pem
  HAYSTREAM_GATEWAY_TLS_KEY={folder}/gateway.key

Another caller is {folder}/billing.pem with {folder}/billing.key. Nothing of this is for production."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write both as NAME.pem and NAME.key, the key for its owner's eyes alone; return their paths."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        write(certificate, self.certificate, 0o644)
        write(key, self.key, 0o600)
        return certificate, key


class Authority:
    """Signs certificates, with a key that is written nowhere."""

    def __init__(self, name: str = "Haystream development", lifetime: timedelta = LIFETIME) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self._lifetime = lifetime
        certificate = (
            _begun(self._name, self._name, self._key.public_key(), datetime.now(UTC), lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)

    def service(
        self,
        hosts: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
        *,
        begins: datetime | None = None,
        lifetime: timedelta | None = None,
    ) -> Pair:
        """Return a certificate of a service that is called by any of the names and addresses."""
        names = [_host(host) for host in hosts]
        return self._issued("haystream service", names, ExtendedKeyUsageOID.SERVER_AUTH, begins, lifetime)

    def caller(self, name: str, *, spiffe_id: str = "", dns: Sequence[str] = ()) -> Pair:
        """Return a certificate of somebody who calls."""
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in dns]
        if spiffe_id:
            names.append(x509.UniformResourceIdentifier(spiffe_id))
        return self._issued(name, names, ExtendedKeyUsageOID.CLIENT_AUTH, None, None)

    def _issued(
        self,
        name: str,
        names: Sequence[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        begins: datetime | None,
        lifetime: timedelta | None,
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        begun = _begun(
            _named(name), self._name, key.public_key(), begins or datetime.now(UTC), lifetime or self._lifetime
        )
        if names:
            begun = begun.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = (
            begun.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Pair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def write(path: Path, content: bytes, mode: int) -> None:
    """Put a file in place in one step, with its rights from the beginning."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    new.replace(path)


def make(folder: Path) -> None:
    """Make everything anew: certificates of an authority from before are worth nothing then."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority()
    write(folder / "ca.pem", authority.certificate, 0o644)
    authority.service().write(folder, "service")
    for name in CALLERS:
        authority.caller(name, spiffe_id=f"{TRUST_DOMAIN}/{name}").write(folder, name)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - timedelta(minutes=5))  # others' clocks may be late
        .not_valid_after(begins + lifetime)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    make(chosen)
    print(ADVICE.format(folder=chosen, days=LIFETIME.days))
