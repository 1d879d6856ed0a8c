"""Which pages may ask. Only browsers can be lured: every other program sends what it likes."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from haystream_gateway.problems import Code, Problem, Rejection

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.datastructures import Headers

CROSS_SITE = Problem(
    Code.PERMISSION_DENIED,
    "CROSS_SITE",
    "a page of another site cannot do this; HAYSTREAM_GATEWAY_CORS_ORIGINS lists those that can",
)
UNKNOWN_HOST = Problem(
    Code.PERMISSION_DENIED,
    "UNKNOWN_HOST",
    "Host: this gateway is not called so; HAYSTREAM_GATEWAY_HOSTS lists its names",
    errors=[{"field": "Host", "message": "expected an address, localhost, or a name of HAYSTREAM_GATEWAY_HOSTS"}],
    own_http_status=421,
)


def check_site(method: str, headers: Headers, allowed_origins: Collection[str]) -> None:
    """Raise Rejection where another site's page asks by an address or a form alone, which needs nobody's leave.

    An image's address would be enough otherwise to start a run, which is billed. Browsers say by `Sec-Fetch-Site` where
    a page comes from, but only to addresses that are secure or local. To others they send `Origin` with every form, and
    with what they load by an address alone nothing but the `Referer`: a page can keep that back, but not make one up.
    What is accepted says nothing: any page may ask for an event stream.
    """
    origin, site = headers.get("origin", ""), headers.get("sec-fetch-site", "")
    if origin and ("*" in allowed_origins or origin in allowed_origins):
        return
    if site:
        is_own = site in {"same-origin", "none"}
    elif origin:
        is_own = _is_own_page(origin, headers)
    else:
        is_own = method != "GET" or not _is_browsers(headers) or _is_own_page(headers.get("referer", ""), headers)
    if not is_own:
        raise Rejection(CROSS_SITE)


def is_known_host(headers: Headers, names: Collection[str]) -> bool:
    """Tell whether a browser calls the gateway by a name of its own.

    A page whose name was made to lead here (DNS rebinding) is of the same origin to its browser, and gives itself away
    by that name alone.
    """
    if not _is_browsers(headers):
        return True
    host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    return host in names or host == "localhost" or _is_address(host)


def _is_own_page(page: str, headers: Headers) -> bool:
    """Tell whether a page, or its origin, is one of the gateway's own."""
    return urlsplit(page).netloc == headers.get("host", "")


def _is_browsers(headers: Headers) -> bool:
    """Tell whether a request comes from a browser: all of them call themselves that, and no page can change it."""
    return "Mozilla/" in headers.get("user-agent", "") or "sec-fetch-site" in headers


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
