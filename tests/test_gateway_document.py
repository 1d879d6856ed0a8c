"""The OpenAPI document, held against what the gateway does."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from haystream.v1 import chat_pb2
from haystream_gateway.frames import error_frame, event_frame
from haystream_gateway.problems import Code, Problem
from haystream_gateway.schemas import FRAMES
from tests.conftest import SHIPPED, browsed, served

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Served

# What its schemas cannot say: that one of two fields is wanted, or which inputs a pipeline has.
SAYS_LESS = "positive_data_acceptance"

EVENTS = [
    chat_pb2.Event(seq=1, started=chat_pb2.Started(run_id="r", pipeline="p")),
    chat_pb2.Event(seq=2, reasoning=chat_pb2.ReasoningDelta(component="llm", delta="Hm")),
    chat_pb2.Event(seq=2, tool_call=chat_pb2.ToolCallDelta(component="llm", id="c", name="search")),
    chat_pb2.Event(seq=2, tool_result=chat_pb2.ToolResult(component="llm", id="c", name="search", result="3")),
    chat_pb2.Event(seq=2, documents=chat_pb2.Documents(component="finder", documents=[chat_pb2.Document(id="d")])),
    chat_pb2.Event(
        seq=2, documents=chat_pb2.Documents(component="finder", documents=[chat_pb2.Document(id="d", score=0.5)])
    ),
    chat_pb2.Event(seq=9, gap=chat_pb2.Gap(from_seq=2, to_seq=9)),
    chat_pb2.Event(
        seq=9,
        finished=chat_pb2.Finished(
            reason=chat_pb2.FINISH_REASON_STOP, usage=[chat_pb2.Usage(component="llm", model="m", total_tokens=3)]
        ),
    ),
]


async def document_of(running: Served) -> dict[str, Any]:
    """Read the document."""
    async with browsed(running.address) as browser:
        document: dict[str, Any] = (await browser.http.get("/openapi.json")).json()
        return document


@pytest.mark.parametrize(
    "frame",
    [event_frame("r", event) for event in EVENTS]
    + [error_frame(Problem(Code.ABORTED, "RUN_CANCELLED", "words", run_id="r", last_seq=3))],
    ids=[event.WhichOneof("kind") or "" for event in EVENTS] + ["error"],
)
async def test_every_frame_is_as_it_is_described(echo: Served, frame: bytes) -> None:
    """To the field: a new one that is not described, or one that is gone, is seen here."""
    schemas = await document_of(echo)
    lines = dict(line.split(": ", 1) for line in frame.decode().splitlines() if line)
    schema = {
        "$ref": f"#/components/schemas/{FRAMES[lines['event']].__name__}",
        "components": schemas["components"],
    }
    jsonschema.Draft202012Validator(schema).validate(  # pyright: ignore[reportUnknownMemberType]  # half typed
        json.loads(lines["data"])
    )
    assert lines["id"].startswith("r:")


async def test_every_address_has_its_refusals_and_examples(echo: Served) -> None:
    """Whoever reads it sees what can happen, with an example of each."""
    document = await document_of(echo)
    assert set(document["paths"]) >= {
        "/chat",
        "/runs/{run_id}/events",
        "/runs/{run_id}/cancel",
        "/pipelines",
        "/pipelines/{name}",
        "/v1/chat/completions",
        "/v1/models",
        "/livez",
        "/readyz",
        "/metrics",
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["description"]
            for parameter in operation.get("parameters", []):
                schema = parameter["schema"]
                assert schema["type"] == "boolean" or parameter.get("examples", schema.get("examples")), (
                    path,
                    parameter,
                )
            for status, response in operation["responses"].items():
                for content in response.get("content", {}).values():
                    assert "example" in content or "examples" in content or "examples" in content["schema"], (
                        path,
                        status,
                    )


async def test_no_answer_is_undocumented_and_none_is_a_defect(tmp_path: Path) -> None:
    """Thousands of requests, right ones and wrong ones, as the document describes them."""
    async with served(SHIPPED, default_pipeline="echo") as running, browsed(running.address) as browser:
        process = await asyncio.create_subprocess_exec(
            os.path.join(os.path.dirname(sys.executable), "schemathesis"),  # noqa: PTH118, PTH120 - not its target
            *("run", f"{browser.url}/openapi.json", "--no-color", "--phases", "examples,coverage,fuzzing"),
            *("--max-examples", "40", "--exclude-checks", SAYS_LESS, "--generation-deterministic"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        report, _ = await process.communicate()
    assert process.returncode == 0, report.decode()
    assert b"12 selected / 12 total" in report
