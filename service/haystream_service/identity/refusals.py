"""The fixed words of those refusals that say nothing of what was sent."""

from __future__ import annotations

from haystream_service.errors import NotAuthenticated


def credentials_missing(wanted: str) -> NotAuthenticated:
    """Say that nothing tells who calls."""
    return NotAuthenticated("CREDENTIALS_MISSING", f"nothing says who you are: {wanted}")


def token_invalid() -> NotAuthenticated:
    """Say that what is in `authorization` is no token, or none of this service's callers."""
    return NotAuthenticated(
        "TOKEN_INVALID", "`authorization` has no token that is good here; send one, as `Bearer` and the token"
    )


def token_expired() -> NotAuthenticated:
    """Say that the token was good once."""
    return NotAuthenticated("TOKEN_EXPIRED", "your token has expired; get a new one")


def certificate_invalid() -> NotAuthenticated:
    """Say that the certificate, though signed by whom it should be, names nobody."""
    return NotAuthenticated(
        "CERTIFICATE_INVALID",
        "your certificate has neither one SPIFFE id nor a DNS name as an alternative name; its common name is not read",
    )
