"""What the gateway shows the service: certificates and a token, from files that are read again when they change."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from haystream_gateway.settings import Settings

CA, CERTIFICATE, KEY = "HAYSTREAM_GATEWAY_TLS_CA", "HAYSTREAM_GATEWAY_TLS_CERT", "HAYSTREAM_GATEWAY_TLS_KEY"
TOKEN_FILE = "HAYSTREAM_GATEWAY_TOKEN_FILE"  # noqa: S105 - a setting's name

_TOKEN = re.compile(rb"[\x21-\x7e]{1,8000}")  # with `Bearer `, no more than a caller's own may be

T = TypeVar("T")
Fingerprint: TypeAlias = tuple[tuple[int, int, int, int], ...]


class CredentialsUnusable(Exception):
    """A file is not there, or is wrong. The text is one line: the setting, the file, the cure; never what is in it."""


class Kept(Generic[T]):
    """What files say, read again where they have changed. What is wrong leaves what was before, and is logged once.

    Raises CredentialsUnusable where there is nothing to begin with.
    """

    def __init__(self, paths: tuple[Path, ...], read: Callable[[], T], log: FilteringBoundLogger) -> None:
        self._paths = paths
        self._read = read
        self._log = log
        self._fingerprint = self._seen()
        self._value = read()

    def latest(self) -> T:
        """Return what the files say, the same object as long as they have not changed."""
        seen = self._seen()
        if seen == self._fingerprint:
            return self._value
        try:
            self._value = self._read()
        except CredentialsUnusable as error:
            if self._seen() != seen:  # somebody is still writing
                return self._value
            self._log.warning("the credentials are as before, since the new ones are wrong", problem=str(error))
        else:
            self._log.info("the credentials are new", files=[str(path) for path in self._paths])
        self._fingerprint = seen
        return self._value

    def _seen(self) -> Fingerprint:
        return tuple(_version(path) for path in self._paths)


def own_token(settings: Settings, log: FilteringBoundLogger) -> Kept[str]:
    """Return the gateway's own token; empty where it has none. Raises CredentialsUnusable."""
    path = settings.gateway_token_file
    if path is None:
        return Kept((), str, log)
    return Kept((path,), lambda: _token(path), log)


def channel_credentials(settings: Settings, log: FilteringBoundLogger) -> Kept[grpc.ChannelCredentials | None]:
    """Return what a channel to the service is opened with; None for no encryption. Raises CredentialsUnusable."""
    if not settings.has_tls:
        return Kept((), lambda: None, log)
    roots, certificate, key = settings.gateway_tls_ca, settings.gateway_tls_cert, settings.gateway_tls_key
    paths = tuple(path for path in (roots, certificate, key) if path is not None)

    def read() -> grpc.ChannelCredentials:
        pair = (None, None) if certificate is None or key is None else _pair(certificate, key)
        return grpc.ssl_channel_credentials(_system_roots() if roots is None else _roots(roots), *pair)

    return Kept(paths, read, log)


def _version(path: Path) -> tuple[int, int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0, 0)
    return status.st_mtime_ns, status.st_size, status.st_dev, status.st_ino


def _content(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsUnusable(f"{setting}: {path} cannot be read ({error.strerror})") from None


def _token(path: Path) -> str:
    token = _content(TOKEN_FILE, path).strip()
    if not _TOKEN.fullmatch(token):
        raise CredentialsUnusable(f"{TOKEN_FILE}: {path} has to hold one token, without spaces, and nothing else")
    return token.decode()


def _system_roots() -> bytes | None:
    """Return the authorities that the system trusts; None for those that gRPC brings, where the system has no file."""
    path = Path(ssl.get_default_verify_paths().cafile or "")
    return path.read_bytes() if path.is_file() else None


def _roots(path: Path) -> bytes:
    pem = _content(CA, path)
    _certificates(CA, path, pem)
    return pem


def _pair(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    chain, private = _content(CERTIFICATE, certificate), _content(KEY, key)
    own, *_ = _certificates(CERTIFICATE, certificate, chain)
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        public = load_pem_private_key(private, password=None).public_key()
    except TypeError:
        raise CredentialsUnusable(f"{KEY}: {key} is protected by a password; store it without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CredentialsUnusable(f"{KEY}: {key} is no private key in PEM, or not whole") from None
    if public.public_bytes(*form) != own.public_key().public_bytes(*form):
        raise CredentialsUnusable(f"{KEY}: {key} is not the key of the certificate {certificate}")
    return private, chain


def _certificates(setting: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CredentialsUnusable(f"{setting}: {path} is no certificate in PEM, or not whole") from None
