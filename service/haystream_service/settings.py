"""What an operator can set, and the one place that reads the environment."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# Whoever holds the keys that check a signature of these cannot sign. With the others (HS256 and its like) they could.
JWT_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

_KEY_SET = re.compile(r"https://[^\s/?#@]+[^\s]*|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/[^\s]*)?")


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - TCP's highest port
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:50051")
    return value


def _host_and_port_or_none(value: str) -> str:
    return _host_and_port(value) if value else value


def _algorithms(value: str) -> str:
    if not listed(value) or not set(listed(value)) <= set(JWT_ALGORITHMS):
        raise ValueError(f"expected some of {', '.join(JWT_ALGORITHMS)}")
    return value


def _key_set(value: str) -> str:
    if "://" in value and not _KEY_SET.fullmatch(value):
        raise ValueError("expected a file, or an address that begins with https://")
    return value


def listed(value: str) -> tuple[str, ...]:
    """Return the items of a setting that is a list, separated by commas."""
    return tuple(item.strip() for item in value.split(",") if item.strip())


def is_loopback(address: str) -> bool:
    """Tell whether nobody but this machine reaches an address, HOST:PORT."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


# gRPC holds a number, and a time in milliseconds, in 31 bits, and ends the process for the highest.
MOST = 1_000_000
LONGEST_SECONDS = 2_000_000

HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
MaybeHostAndPort = Annotated[str, AfterValidator(_host_and_port_or_none)]
Number = Annotated[int, Field(gt=0, le=MOST)]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Serves the Haystack pipelines of a folder over gRPC.

    Every option is also an environment variable, HAYSTREAM_ and its name in capitals, or a line of a .env file.
    """

    model_config = SettingsConfigDict(
        env_prefix="HAYSTREAM_",
        env_file=".env",
        frozen=True,
        extra="ignore",
        cli_prog_name="haystream-service",
        cli_kebab_case=True,
        cli_hide_none_type=True,
    )

    listen: HostAndPort = Field(default="127.0.0.1:50051", description="address to serve gRPC on; port 0: a free one")
    allow_unauthenticated: bool = Field(
        default=False, description="serve an address that others reach without asking who calls"
    )
    health_listen: MaybeHostAndPort = Field(
        default="", description="address to answer health checks on without encryption; unset: none"
    )
    metrics_listen: MaybeHostAndPort = Field(
        default="", description="address to serve Prometheus' metrics on, at /metrics; unset: none"
    )
    reflection: bool = Field(default=True, description="tell callers the contract (grpc.reflection), as grpcurl asks")
    tokens_file: Path | None = Field(
        default=None, description="YAML file of who may call: names, hashes of tokens, rights; read again on change"
    )
    jwt_issuer: str = Field(default="", description="who has to have issued a JSON Web Token (iss)")
    jwt_audience: str = Field(default="", description="whom it has to be for (aud)")
    jwt_jwks: Annotated[str, AfterValidator(_key_set)] = Field(
        default="", description="the issuer's keys, a JWKS: file, read again on change, or https address"
    )
    jwt_algorithms: Annotated[str, AfterValidator(_algorithms)] = Field(
        default="RS256,ES256,EdDSA", description="algorithms, comma-separated, that it may be signed with"
    )
    jwt_principal_claim: str = Field(default="sub", min_length=1, description="claim that says who calls")
    tls_cert: Path | None = Field(
        default=None, description="certificate chain of the service, PEM, read again on change; unset: no encryption"
    )
    tls_key: Path | None = Field(default=None, description="its private key, PEM")
    tls_client_ca: Path | None = Field(
        default=None,
        description="whose certificates all callers have to show, also with tokens; PEM; unset: none",
    )
    pipelines: Path = Field(default=Path("pipelines"), description="folder with one file per pipeline")
    default_pipeline: str = Field(
        default="", description="pipeline of requests that name none; unset: `local`, or the only one there is"
    )
    watch_pipelines: bool = Field(default=True, description="serve what changes in the folder without a restart")
    build_seconds: Seconds = Field(default=60, description="longest that building a pipeline may take")
    keyed_pipelines: PositiveInt = Field(default=100, description="pipelines kept for callers with keys of their own")
    keyed_seconds: Seconds = Field(default=600, description="time that such a pipeline is kept after its last run")
    image_bytes: PositiveInt = Field(default=8 << 20, description="largest image that is fetched from a URL")
    image_hosts: str = Field(
        default="",
        description="private hosts, comma-separated, that images may be fetched from; public ones always may",
    )
    max_runs: PositiveInt = Field(default=1000, description="runs at once; one more is refused")
    principal_max_runs: PositiveInt | None = Field(
        default=None, description="runs at once of one caller, unless the tokens' file says else; unset: as many as fit"
    )
    principal_runs_per_minute: PositiveInt | None = Field(
        default=None, description="runs that one caller may begin in a minute, unless the file says else; unset: any"
    )
    max_connections: Number = Field(default=4000, description="connections at once; one more is closed")
    max_streams: Number = Field(default=2000, description="calls at once on one connection; one more waits")
    connection_age_seconds: Annotated[float, Field(ge=0.01, le=LONGEST_SECONDS, allow_inf_nan=False)] = Field(
        default=3600, description="age at which a connection is replaced by another; its streams go on"
    )
    max_query_bytes: PositiveInt = Field(default=1 << 20, description="longest query, and longest text of a message")
    max_messages: PositiveInt = Field(default=1000, description="most messages of a conversation")
    max_sync_runs: PositiveInt = Field(default=32, description="threads for components that cannot be async")
    max_run_seconds: Seconds = Field(default=600, description="longest a run may take")
    queue_bytes: PositiveInt = Field(default=1 << 20, description="memory of a run for what is not read yet")
    queue_total_bytes: PositiveInt = Field(default=1 << 28, description="memory of all runs for what is not read yet")
    replay_bytes: PositiveInt = Field(
        default=1 << 20, description="memory of a run for what was read, so that readers can come back"
    )
    replay_seconds: Seconds = Field(default=300, description="time that the log of an ended run is kept")
    replay_total_bytes: PositiveInt = Field(
        default=1 << 28, description="memory of all runs' logs; those of ended runs go first"
    )
    max_readers: PositiveInt = Field(default=4000, description="readers of runs at once; one more is refused")
    heartbeat_seconds: Seconds = Field(default=15, description="silence after which a heartbeat is sent")
    slow_reader_seconds: Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)] = Field(
        default=60, description="longest that a reader may take nothing"
    )
    drain_seconds: Seconds = Field(default=30, description="time that running runs get to finish on shutdown")
    workers: int = Field(default=1, ge=1, le=1, description="processes; this version has one")
    log_format: Literal["console", "json"] = Field(default="console", description="lines for people or machines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severity to log")

    @property
    def has_authentication(self) -> bool:
        """Whether the service asks who calls."""
        return self.tokens_file is not None or bool(self.jwt_issuer) or self.tls_client_ca is not None

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        """Raise ValueError, which names the setting that is missing or too much."""
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "TLS_KEY" if self.tls_key is None else "TLS_CERT"
            raise ValueError(
                f"HAYSTREAM_{missing}: HAYSTREAM_TLS_CERT and HAYSTREAM_TLS_KEY come together; set both or none"
            )
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("HAYSTREAM_TLS_CERT: callers' certificates (HAYSTREAM_TLS_CLIENT_CA) need encryption")
        token = {"ISSUER": self.jwt_issuer, "AUDIENCE": self.jwt_audience, "JWKS": self.jwt_jwks}
        if any(token.values()) and not all(token.values()):
            missing = next(name for name, value in token.items() if not value)
            raise ValueError(f"HAYSTREAM_JWT_{missing}: HAYSTREAM_JWT_ISSUER, _AUDIENCE and _JWKS come together")
        if not (is_loopback(self.listen) or self.has_authentication or self.allow_unauthenticated):
            raise ValueError(
                f"HAYSTREAM_LISTEN: whoever reaches {self.listen} could run pipelines; set HAYSTREAM_TOKENS_FILE, "
                "HAYSTREAM_JWT_* or HAYSTREAM_TLS_CLIENT_CA, or say HAYSTREAM_ALLOW_UNAUTHENTICATED=true"
            )
        return self


def complaint_about(error: ValidationError) -> str:
    """Return one line that names the first setting which makes no sense."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # what does not belong together
        return str(first.get("ctx", {}).get("error"))
    name = "_".join(str(part) for part in first["loc"]).upper()
    return f"HAYSTREAM_{name}: {first['msg']} (it is {first['input']!r})"
