"""What an operator can set, and the one place that reads the environment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - TCP's highest port
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:8000")
    return value


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
    target: str = Field(default="127.0.0.1:50051", min_length=1, description="gRPC address of the service")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severity to log")


def complaint_about(error: ValidationError) -> str:
    """Return one line that names the first setting which makes no sense."""
    first = error.errors(include_url=False)[0]
    name = "_".join(str(part) for part in first["loc"]).upper()
    return f"HAYSTREAM_{name}: {first['msg']} (it is {first['input']!r})"
