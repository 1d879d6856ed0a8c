"""What an operator can set, and the one place that reads the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - TCP's highest port
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:50051")
    return value


HostAndPort = Annotated[str, AfterValidator(_host_and_port)]


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
    pipelines: Path = Field(default=Path("pipelines"), description="folder with one file per pipeline")
    default_pipeline: str = Field(
        default="", description="pipeline of requests that name none; unset: `local`, or the only one there is"
    )
    watch_pipelines: bool = Field(default=True, description="serve what changes in the folder without a restart")
    build_seconds: PositiveFloat = Field(default=60, description="longest that building a pipeline may take")
    keyed_pipelines: PositiveInt = Field(default=100, description="pipelines kept for callers with keys of their own")
    keyed_seconds: PositiveFloat = Field(
        default=600, description="time that such a pipeline is kept after its last run"
    )
    image_bytes: PositiveInt = Field(default=8 << 20, description="largest image that is fetched from a URL")
    image_hosts: str = Field(
        default="",
        description="private hosts, comma-separated, that images may be fetched from; public ones always may",
    )
    max_runs: PositiveInt = Field(default=1000, description="runs at once; one more is refused")
    max_sync_runs: PositiveInt = Field(default=32, description="threads for components that cannot be async")
    max_run_seconds: PositiveFloat = Field(default=600, description="longest a run may take")
    queue_bytes: PositiveInt = Field(default=1 << 20, description="memory of a run for what is not read yet")
    replay_bytes: PositiveInt = Field(
        default=1 << 20, description="memory of a run for what was read, so that readers can come back"
    )
    replay_seconds: PositiveFloat = Field(default=300, description="time that the log of an ended run is kept")
    replay_total_bytes: PositiveInt = Field(default=1 << 28, description="memory of all logs of ended runs")
    heartbeat_seconds: PositiveFloat = Field(default=15, description="silence after which a heartbeat is sent")
    slow_reader_seconds: PositiveFloat = Field(default=60, description="longest that a reader may take nothing")
    drain_seconds: PositiveFloat = Field(default=30, description="time that running runs get to finish on shutdown")
    log_format: Literal["console", "json"] = Field(default="console", description="lines for people or machines")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severity to log")


def complaint_about(error: ValidationError) -> str:
    """Return one line that names the first setting which makes no sense."""
    first = error.errors(include_url=False)[0]
    name = "_".join(str(part) for part in first["loc"]).upper()
    return f"HAYSTREAM_{name}: {first['msg']} (it is {first['input']!r})"
