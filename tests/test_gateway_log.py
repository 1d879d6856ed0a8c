"""The gateway's log: no secret in it wherever it hides, and no exception's words below level debug."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from haystream_gateway import logs as gateway_logs
from haystream_gateway.stories import MOST_EXCEPTIONS, story_of
from haystream_service import logs as service_logs

SECRETS = {
    "provider": "sk-proj-swordfish",
    "own": "hs_" + "swordfish" * 4,
    "token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzd29yZGZpc2gifQ.swordfish",
    "header": "Bearer swordfish",
    "address": "https://example.org/?api_key=swordfish",
}

LOGS = """
import json, logging, sys
from haystream_gateway.logs import set_up_logging

fields = json.loads(sys.argv[2])
log = set_up_logging("json", sys.argv[1])
log.warning("fields", **fields)
try:
    try:
        raise KeyError("marlin")
    except KeyError as error:
        raise ExceptionGroup("marlin", [OSError(fields["text"])]) from error
except ExceptionGroup:
    log.exception("defect", request_id="req-1")
    logging.getLogger("uvicorn.error").exception("defect of a library")
"""


def lines_of(level: str, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a process of its own logs: fields, and twice an exception, one of them by a library."""
    command = [sys.executable, "-c", LOGS, level, json.dumps(fields)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stderr
    return [json.loads(line) for line in told.splitlines()]


def test_the_gateway_knows_a_secret_by_what_the_service_knows_it_by() -> None:
    """Neither imports the other, and neither is to learn of a new kind alone."""
    assert vars(gateway_logs)["_KEYS"] == vars(service_logs)["_KEYS"]


@pytest.mark.parametrize("kind", SECRETS)
def test_no_secret_is_logged_wherever_it_hides(kind: str) -> None:
    """In a text, a list, an object, the name of a field of it, or an exception's words."""
    secret = SECRETS[kind]
    deep = {"list": [f"a {secret}", {"deeper": secret}], secret: 1}
    lines = lines_of("debug", {"text": f"it was {secret}", "nested": deep})
    assert "swordfish" not in json.dumps(lines)
    assert lines[0]["nested"]["list"][1]["deeper"].endswith("[redacted]")
    assert "marlin" in lines[1]["exception"]


def test_what_an_exception_says_is_logged_at_level_debug_alone() -> None:
    """Below that its place and its type, and those of all that led to it; of a library's as well."""
    _, own, of_library = lines_of("info", {"text": "marlin"})
    for line in (own, of_library):
        assert 'File "<string>", line 12' in line["exception"]
        assert line["exception"].splitlines()[-1] == "ExceptionGroup"
        assert {"KeyError", "OSError"} <= set(line["exception"].splitlines())
        assert "marlin" not in json.dumps(line)
    assert own["request_id"] == "req-1"


def test_a_story_ends_however_long_the_chain_and_wherever_it_leads() -> None:
    """Also where an exception is its own cause."""
    error = round_trip = ValueError()
    for _ in range(2 * MOST_EXCEPTIONS):
        error.__cause__ = cause = ValueError()
        error = cause
    assert len(story_of(round_trip).splitlines()) == MOST_EXCEPTIONS
    error.__cause__ = error
    assert story_of(error) == "ValueError"
