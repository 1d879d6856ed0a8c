"""What holds for every answer: an id, headers that keep browsers careful, a line in the log."""

from __future__ import annotations

import re
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from haystream_gateway.callers import REQUEST_ID, RUN_ID
from haystream_gateway.sites import UNKNOWN_HOST, is_known_host

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from structlog.typing import FilteringBoundLogger

    from haystream_gateway.metrics import Metrics

REQUEST_ID_FORM = re.compile(r"[\x21-\x7e]{1,128}")

# What an address sets itself stays. The policy is for answers that are no page.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# Asked every few seconds by machines.
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})


class Manners:
    """Wraps the whole gateway, so that what its framework answers by itself has manners, too."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, hosts: Collection[str] | None, log: FilteringBoundLogger
    ) -> None:
        self._app = app if hosts is None else partial(_known, app, hosts)
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.monotonic()
        status = 0

        async def send_politely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_politely)
        except Exception:  # noqa: BLE001 - a defect: answered in fixed words, and raised again to be logged
            self._log.exception("defect", request_id=request_id)
        finally:
            self._note(scope, status, time.monotonic() - began, request_id)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        """Count an answer, and log it without its query, which may be somebody's question."""
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.answered(scope["method"] if route != "other" else "other", route, status)
        fields = {
            "method": scope["method"],
            "route": route,
            "status": status,
            "seconds": round(seconds, 3),
            "client": scope["client"][0] if scope.get("client") else "",
            "request_id": request_id,
        }
        if run_id := scope["state"].get(RUN_ID):
            fields[RUN_ID] = run_id
        say = self._log.debug if route in _QUIET else self._log.info
        say("answered", **fields)


async def _known(app: ASGIApp, hosts: Collection[str], scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that knows whom it calls."""
    if scope["type"] == "http" and not is_known_host(Headers(scope=scope), hosts):
        app = UNKNOWN_HOST.response()
    await app(scope, receive, send)


def _request_id(scope: Scope) -> str:
    """Return the caller's id of a request where it is fit to be passed on, or else a new one."""
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if REQUEST_ID_FORM.fullmatch(given) else secrets.token_hex(16)
