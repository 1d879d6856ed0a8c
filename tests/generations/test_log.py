"""The log on every generation of Haystack: each would configure it when it is imported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.test_library_lines import KEY, QUERY, log_of

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_log_is_the_services_alone(tmp_path: Path) -> None:
    """A warning of Haystack's is there once and without its words, and the service's own lines are there."""
    log = await log_of(tmp_path, HAYSTREAM_LOG_FORMAT="json")
    told = [json.loads(line) for line in log.splitlines()]
    assert [line["event"] for line in told if line.get("logger") == "haystack.loud"] == ["a library's line"]
    assert [line["ending"] for line in told if line["event"] == "run ended"] == ["STOP"]
    for marker in (QUERY, KEY):
        assert marker not in log
