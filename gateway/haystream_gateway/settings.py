"""What an operator can set, and the one place that reads the environment."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_TARGET = re.compile(r"(?!https?:)((dns|ipv4|ipv6|unix|unix-abstract|xds):)?[^\s:][^\s]*|(dns|unix|xds)://[^\s]+")
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_ORIGIN = re.compile(r"https?://[^\s/?#@]+")


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - TCP's highest port
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:8000")
    return value


def _listed(value: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in value.split(",") if item.strip())


def _origins(value: str) -> str:
    for origin in _listed(value):
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError("expected origins such as https://example.org, without a path, or *")
    return value


def _target(value: str) -> str:
    if not _TARGET.fullmatch(value):
        raise ValueError("expected HOST:PORT, or a gRPC address such as dns:///name:50051")
    return value


def _networks(value: str) -> str:
    for network in _listed(value):
        try:
            ip_network(network, strict=False)
        except ValueError:
            raise ValueError("expected addresses or networks such as 10.0.0.0/8") from None
    return value


def _name_or_none(value: str) -> str:
    if value and not _NAME.fullmatch(value):
        raise ValueError("expected a name such as service.internal")
    return value


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """Shows the streams of a Haystream service to browsers as server-sent events.

    Every option is also an environment variable, HAYSTREAM_ and its name in capitals, or a line of a .env file.
    """

    model_config = SettingsConfigDict(
        env_prefix="HAYSTREAM_",
        env_file=".env",
        frozen=True,
        extra="ignore",
        cli_prog_name="haystream-gateway",
        cli_kebab_case=True,
        cli_hide_none_type=True,
    )

    gateway_listen: Annotated[str, AfterValidator(_host_and_port)] = Field(
        default="127.0.0.1:8000", description="address to serve HTTP on; port 0 takes a free one"
    )
    gateway_allow_unauthenticated: bool = Field(
        default=False,
        description="serve an address that others reach, where the service asks nobody who they are, or the gateway "
        "lends them its own token or certificate",
    )
    target: Annotated[str, AfterValidator(_target)] = Field(
        default="127.0.0.1:50051",
        description="gRPC address of the service; dns:///name:port for all of a name's addresses",
    )
    gateway_tls: bool = Field(
        default=False, description="call the service encrypted, by a certificate of whom the system trusts"
    )
    gateway_tls_ca: Path | None = Field(
        default=None, description="the same, by a certificate of these authorities, PEM, read again on change"
    )
    gateway_tls_cert: Path | None = Field(
        default=None, description="the gateway's own certificate for the service, PEM, read again on change"
    )
    gateway_tls_key: Path | None = Field(default=None, description="its private key, PEM")
    gateway_tls_server_name: Annotated[str, AfterValidator(_name_or_none)] = Field(
        default="", description="name that the service's certificate has to have; unset: that of the target"
    )
    gateway_token_file: Path | None = Field(
        default=None, description="file with the gateway's own token, for callers who bring none; read again on change"
    )
    gateway_hosts: str = Field(
        default="",
        description="names, comma-separated, that browsers may call it by; unset: on the loopback no other than "
        "localhost, elsewhere any",
    )
    gateway_cors_origins: Annotated[str, AfterValidator(_origins)] = Field(
        default="", description="origins, comma-separated, whose pages may call; * for all, unset for none but its own"
    )
    gateway_trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        default="", description="addresses or networks, comma-separated, whose X-Forwarded-For and -Proto count"
    )
    gateway_reconnect_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = Field(
        default=10, description="time that a run of GET /chat waits for its reader to come back"
    )
    gateway_silence_seconds: Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)] = Field(
        default=90, description="longest that the service may say nothing, its heartbeats included"
    )
    gateway_bearer_is_api_key: bool = Field(
        default=False,
        description="take the bearer token of /v1 for the model provider's key, which every pipeline then has to take",
    )
    slow_reader_seconds: Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)] = Field(
        default=60, description="longest that a reader may take nothing"
    )
    log_format: Literal["console", "json"] = Field(default="console", description="lines for people or machines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severity to log")

    @property
    def has_tls(self) -> bool:
        """Whether the service is called encrypted."""
        return self.gateway_tls or self.gateway_tls_ca is not None

    @property
    def is_open_relay(self) -> bool:
        """Whether others than this machine's own may call the service in the gateway's name."""
        has_identity = self.gateway_token_file is not None or self.gateway_tls_cert is not None
        return has_identity and not _is_loopback(self._host)

    @property
    def is_for_strangers(self) -> bool:
        """Whether others than this machine's own reach the gateway, and nobody has said that they need no name."""
        return not (_is_loopback(self._host) or self.gateway_allow_unauthenticated)

    @property
    def _host(self) -> str:
        return self.gateway_listen.rpartition(":")[0].strip("[]")

    @property
    def cors_origins(self) -> tuple[str, ...]:
        """The origins whose pages may call, as browsers write them."""
        return _listed(self.gateway_cors_origins.lower())

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """The names that browsers may call the gateway by, besides its addresses; None for all."""
        listed = _listed(self.gateway_hosts.lower())
        return listed if listed or _is_loopback(self._host) else None

    @property
    def trusted_proxies(self) -> tuple[str, ...]:
        """The addresses and networks whose forwarded headers count."""
        return _listed(self.gateway_trusted_proxies)

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        """Raise ValueError, which names the setting that is missing or too much."""
        if (self.gateway_tls_cert is None) != (self.gateway_tls_key is None):
            missing = "KEY" if self.gateway_tls_key is None else "CERT"
            raise ValueError(
                f"HAYSTREAM_GATEWAY_TLS_{missing}: HAYSTREAM_GATEWAY_TLS_CERT and HAYSTREAM_GATEWAY_TLS_KEY come "
                "together; set both or none"
            )
        for name, value in (("CERT", self.gateway_tls_cert), ("SERVER_NAME", self.gateway_tls_server_name)):
            if value and not self.has_tls:
                raise ValueError(
                    f"HAYSTREAM_GATEWAY_TLS_{name}: it needs encryption; set HAYSTREAM_GATEWAY_TLS=true, or "
                    "HAYSTREAM_GATEWAY_TLS_CA"
                )
        if self.is_open_relay and not self.gateway_allow_unauthenticated:
            raise ValueError(
                f"HAYSTREAM_GATEWAY_LISTEN: whoever reaches {self.gateway_listen} could call the service in the "
                "gateway's name; set neither HAYSTREAM_GATEWAY_TOKEN_FILE nor HAYSTREAM_GATEWAY_TLS_CERT, or say "
                "HAYSTREAM_GATEWAY_ALLOW_UNAUTHENTICATED=true"
            )
        return self


def complaint_about(error: ValidationError) -> str:
    """Return one line that names the first setting which makes no sense."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # what does not belong together
        return str(first.get("ctx", {})["error"])
    name = "_".join(str(part) for part in first["loc"]).upper()
    return f"HAYSTREAM_{name}: {first['msg']} (it is {first['input']!r})"
