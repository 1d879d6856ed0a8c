"""Who a client's certificate says that calls. That it is good, TLS has seen to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from haystream_service.identity.refusals import certificate_invalid

_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}/[A-Za-z0-9._/-]{1,1700}")
_DNS_NAME = re.compile(r"[A-Za-z0-9*._-]{1,253}")


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What TLS tells of a caller's certificate: its SPIFFE id, and its alternative names of either kind."""

    spiffe_id: str = ""
    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()


def name_in(certificate: PeerCertificate) -> str:
    """Return the caller's name: the SPIFFE id, or `dns:` and the first DNS name. Raises NotAuthenticated."""
    ids = {uri for uri in (certificate.spiffe_id, *certificate.uris) if uri.lower().startswith("spiffe:")}
    if ids:
        # A SPIFFE id is the only URI of its certificate (X509-SVID, section 2); of several none is to be trusted.
        if len({*ids, *certificate.uris}) == 1 and _SPIFFE_ID.fullmatch(spiffe_id := ids.pop()):
            return spiffe_id
        raise certificate_invalid()
    if certificate.dns_names and _DNS_NAME.fullmatch(certificate.dns_names[0]):
        return f"dns:{certificate.dns_names[0].lower()}"
    raise certificate_invalid()
