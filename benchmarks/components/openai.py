"""Haystack's OpenAIChatGenerator, pointed at the benchmark's own provider."""

from __future__ import annotations

import os

from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.utils import Secret

from benchmarks.provider import PROVIDER

PATIENCE_SECONDS = 600  # for a provider that stalls on purpose


def openai_generator() -> OpenAIChatGenerator:
    """Return the generator, as a user would configure it but for the address."""
    return OpenAIChatGenerator(
        api_key=Secret.from_token("benchmark"),
        api_base_url=f"http://{os.environ[PROVIDER]}/v1",
        timeout=PATIENCE_SECONDS,
        max_retries=0,
    )
