"""Haystack's OpenAIChatGenerator, pointed at the benchmark's own provider."""

from __future__ import annotations

import os

from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.utils import Secret

from benchmarks.provider import PROVIDER

PATIENCE_SECONDS = 600  # for a provider that stalls on purpose


def openai_generator(api_key: Secret | None = None) -> OpenAIChatGenerator:
    """Return the generator, as a user would configure it but for the address, on the server's key or on a caller's."""
    return OpenAIChatGenerator(
        api_key=api_key or Secret.from_token("benchmark"),
        api_base_url=f"http://{os.environ[PROVIDER]}/v1",
        timeout=PATIENCE_SECONDS,
        max_retries=0,
    )
