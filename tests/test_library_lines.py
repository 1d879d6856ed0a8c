"""What libraries and pipelines' authors log: where that was, and their words at level debug alone."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from haystream.v1 import chat_pb2, chat_pb2_grpc
from tests.calls import all_events
from tests.processes import address_of, started

if TYPE_CHECKING:
    from pathlib import Path

QUERY, KEY, RAISED = "marker-of-the-query", "sk-marker-of-the-key", "marker-of-the-error"

LOUD = f'''
"""Warns of what it is asked, in every way that there is."""

import logging
import warnings

import haystack.logging
from haystack import Pipeline, component

WORDS = "{RAISED}"  # not where it is raised: lines of code are shown
FOREIGN, HAYSTACKS = logging.getLogger("somebody.else"), haystack.logging.getLogger("haystack.loud")


@component
class Loud:
    def __init__(self, api_key):
        self.key = api_key.resolve_value() if api_key else ""

    @component.output_types(replies=list[str])
    def run(self, query: str, streaming_callback=None):
        said = f"{{query}} {{self.key}}"
        FOREIGN.info("never there: %s", said)
        FOREIGN.warning("alpha: %s", said)
        HAYSTACKS.warning("beta: {{said}}", said=said)
        warnings.warn(f"gamma: {{said}}", stacklevel=1)
        try:
            raise ValueError(WORDS)
        except ValueError:
            FOREIGN.exception("delta: %s", said)
        return {{"replies": ["done"]}}


def build(api_key=None):
    pipeline = Pipeline()
    pipeline.add_component("llm", Loud(api_key))
    return pipeline
'''


async def log_of(folder: Path, **settings: str) -> str:
    """Have the real command asked once by a caller with a key; return its log."""
    (folder / "loud.py").write_text(LOUD)
    async with started("haystream_service", HAYSTREAM_PIPELINES=str(folder), **settings) as process:
        assert process.stderr is not None
        address, told = await address_of(process), ""
        while "pipeline ready" not in told:
            told = (await process.stderr.readline()).decode()
        async with grpc.aio.insecure_channel(address) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            await all_events(stub.Chat(chat_pb2.ChatRequest(query=QUERY, api_key=KEY)))
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
    assert process.returncode == 0
    return log.decode()


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_a_line_of_a_library_says_where_it_is_from_and_not_what_it_says(tmp_path: Path, log_format: str) -> None:
    """Each once, with logger, level, file and number, those of Haystack and of Python's warnings as well."""
    log = await log_of(tmp_path, HAYSTREAM_LOG_FORMAT=log_format)
    lines = [line for line in log.splitlines() if "a library's line" in line]
    assert len(lines) == 4
    assert all("loud.py" in line for line in lines)
    assert "ValueError" in log
    for marker in (QUERY, KEY, RAISED, "alpha", "beta", "gamma", "delta", "never there"):
        assert marker not in log
    if log_format == "json":
        told = [json.loads(line) for line in lines]
        assert [(line["logger"], line["level"]) for line in told] == [
            ("somebody.else", "warning"),
            ("haystack.loud", "warning"),
            ("py.warnings", "warning"),
            ("somebody.else", "error"),
        ]
        numbers: list[int] = [line["line"] for line in told]
        said = [str(LOUD).splitlines()[number - 1] for number in numbers]
        assert all(word in text for word, text in zip(("alpha", "beta", "gamma", "delta"), said, strict=True))


async def test_at_level_debug_a_library_is_heard_out(tmp_path: Path) -> None:
    """Once, with its words and those of exceptions, and still without keys."""
    log = await log_of(tmp_path, HAYSTREAM_LOG_FORMAT="json", HAYSTREAM_LOG_LEVEL="debug")
    told = [json.loads(line) for line in log.splitlines()]
    of_libraries = [line for line in told if line.get("file", "").endswith("loud.py")]
    assert [line["event"] for line in of_libraries] == [
        f"alpha: {QUERY} [redacted]",
        f"beta: {QUERY} [redacted]",
        f"UserWarning: gamma: {QUERY} [redacted]",
        f"delta: {QUERY} [redacted]",
    ]
    assert f"ValueError: {RAISED}" in of_libraries[-1]["exception"]
    assert "never there" not in log
    assert KEY not in log
