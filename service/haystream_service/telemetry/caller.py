"""Where the call that is being answered comes from, for the lines about it."""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import unquote

_IP = re.compile(r"ipv[46]:(?P<host>.+):\d+")


@dataclass(frozen=True, slots=True)
class Caller:
    """The method that was called, and who is at the other end of the connection, as gRPC tells it."""

    method: str
    address: str

    @property
    def peer(self) -> str:
        """The address without its port, which is another one for each connection."""
        found = _IP.fullmatch(self.address)
        return unquote(found["host"]).strip("[]") if found else self.address


caller: ContextVar[Caller | None] = ContextVar("telemetry_caller", default=None)
