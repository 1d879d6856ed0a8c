"""Which values of the environment and of the .env file are secrets: told by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_settings import DotEnvSettingsSource

from haystream_service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ENDINGS = ("KEY", "TOKEN", "SECRET", "PASSWORD")

# Settings that are called so and are a file's path, or a word such as `true`: hiding those makes lines unreadable.
NO_SECRETS = frozenset({"HAYSTREAM_TLS_KEY", "HAYSTREAM_GATEWAY_TLS_KEY", "HAYSTREAM_GATEWAY_BEARER_IS_API_KEY"})


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """Return what no line of the log may show: what the environment or .env calls a key, a token, a secret."""
    return [*_secrets_in(environment), *_secrets_in(DotEnvSettingsSource(Settings).env_vars)]


def _secrets_in(values: Mapping[str, str | None]) -> Iterator[str]:
    for name, value in values.items():
        if value and name.upper().endswith(ENDINGS) and name.upper() not in NO_SECRETS:
            yield value
