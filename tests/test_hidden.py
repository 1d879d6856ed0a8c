"""What is hidden from the log, and what is not: secrets by their names, in whatever form a line has them."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from haystream_gateway.settings import Settings as GatewaySettings
from haystream_service.errors import MalformedMessage
from haystream_service.secret_names import ENDINGS, NO_SECRETS, secrets_of
from haystream_service.settings import Settings as ServiceSettings
from haystream_service.telemetry.caller import Caller
from haystream_service.telemetry.flood import LINES_A_SECOND, FloodGate
from haystream_service.telemetry.report import Report
from tests.issuers import Heard

if TYPE_CHECKING:
    import pytest

WRITE = """
from haystream_service.logs import set_up_logging
log = set_up_logging("json", "info", ["swordfish"])
log.info("x", items=["a swordfish", ("swordfish",)], fields={"swordfish": {"b": ["sk-0123456789"]}}, number=3)
"""


def test_secrets_are_told_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment and in .env; the settings that only sound like secrets are none."""
    (tmp_path / ".env").write_text("OPENAI_API_KEY=of-the-file\nHAYSTREAM_TLS_KEY=key.pem\nOTHER=word\n")
    monkeypatch.chdir(tmp_path)
    environment = {"A_TOKEN": "of-the-environment", "HAYSTREAM_TLS_KEY": "/etc/key.pem", "PATH": "/bin", "B_KEY": ""}
    environment["HAYSTREAM_GATEWAY_BEARER_IS_API_KEY"] = "true"
    assert set(secrets_of(environment)) == {"of-the-environment", "of-the-file"}


def test_the_settings_that_are_no_secrets_are_paths_and_switches() -> None:
    """All of those that are called as secrets are, of both commands, and no other."""
    fields = {**ServiceSettings.model_fields, **GatewaySettings.model_fields}
    called_so = {f"HAYSTREAM_{name.upper()}": field.annotation for name, field in fields.items()}
    assert {
        name for name, kind in called_so.items() if name.endswith(ENDINGS) and kind in {Path, Path | None, bool}
    } == NO_SECRETS


async def test_secrets_are_found_in_lists_and_tables() -> None:
    """However deep, and as names of fields."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITE, stderr=asyncio.subprocess.PIPE)
    _, log = await process.communicate()
    line = json.loads(log)
    assert line["items"] == ["a [redacted]", ["[redacted]"]]
    assert line["fields"] == {"[redacted]": {"b": ["[redacted]"]}}
    assert line["number"] == 3


async def test_a_flood_of_refusals_is_counted_instead_of_written() -> None:
    """So many lines a second of a reason; the next one says how many were left out. Other reasons are not kept down."""
    heard, seconds = Heard(), [100.0]
    gate = FloodGate(lambda: seconds[0])
    report = Report(heard.log, gate)
    for _ in range(1000):
        report.refused(MalformedMessage(), request_id="r", principal="", pipeline="")
    assert heard.lines.qsize() == LINES_A_SECOND
    assert gate.left_out("ANOTHER") == 0
    seconds[0] += 1
    for _ in range(2):
        report.refused(MalformedMessage(), request_id="r", principal="", pipeline="")
    told = [await heard.next() for _ in range(LINES_A_SECOND + 2)]
    assert [line.get("left_out") for line in told] == [None] * LINES_A_SECOND + [1000 - LINES_A_SECOND, None]


async def test_a_flood_of_defects_is_counted_as_well() -> None:
    """Who meets one can meet it as often as they like, and each has a story."""
    heard, seconds = Heard(), [100.0]
    report = Report(heard.log, FloodGate(lambda: seconds[0]))
    for _ in range(1000):
        report.defect(RuntimeError(), request_id="r")
    assert heard.lines.qsize() == LINES_A_SECOND
    seconds[0] += 1
    report.defect(RuntimeError(), request_id="r")
    told = [await heard.next() for _ in range(LINES_A_SECOND + 1)]
    assert [line.get("left_out") for line in told] == [None] * LINES_A_SECOND + [1000 - LINES_A_SECOND]


def test_a_peer_is_shown_without_its_port() -> None:
    """Where it has one: sockets of files are shown as they are."""
    told = ("ipv4:10.0.0.7:5555", "ipv6:%5B::1%5D:5555", "ipv6:[fe80::1]:1", "unix:/run/x")
    assert [Caller("Chat", address).peer for address in told] == ["10.0.0.7", "::1", "fe80::1", "unix:/run/x"]
