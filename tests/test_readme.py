"""What the README shows, word for word; only the ports are those of the test."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from haystream.v1 import chat_pb2
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import ROOT, SHIPPED, browsed, served
from tests.readme import blocks
from tools.certs import make

if TYPE_CHECKING:
    from pathlib import Path

CALLS = [block for block in blocks("sh") if not block.startswith("make ") and shutil.which(block.split()[0])]
COMMANDS = [block for block in CALLS if "certs/token" not in block]
WITH_TOKEN = [block for block in CALLS if "certs/token" in block]
NEW_TOKEN = f"{sys.executable} -c 'from haystream_service.identity.new_token import main; main()'"
SIGNS = ("event: end", "FINISH_REASON_", "haystream.v1.ChatService", "default_pipeline")


def test_the_readme_has_what_is_tested_here() -> None:
    """Otherwise these tests would pass by testing nothing."""
    for commands in (COMMANDS, WITH_TOKEN):
        assert {block.split()[0].rpartition("/")[2] for block in commands} >= {"buf"}
    assert len(blocks("python")) == 3
    assert len(blocks("js")) == 2  # run in a browser, in tests/browser
    assert len(blocks("yaml")) == 1


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_works_as_it_stands(command: str) -> None:
    """Pasted from the root of the project while `make run` goes on."""
    async with served(SHIPPED) as running, browsed(running.address) as browser:
        command = command.replace("127.0.0.1:50051", running.address).replace("http://127.0.0.1:8000", browser.url)
        output = await _output_of("/bin/sh", "-c", command)
    assert any(sign in output for sign in SIGNS)


async def test_the_commands_with_a_token_work_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token that is made lets its holder in, encrypted, over gRPC and through the gateway; without it nobody is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    make(tmp_path / "certs")
    [start] = [block for block in blocks("sh") if "certs/tokens.yaml" in block]
    [new_token] = [line for line in start.splitlines() if "haystream-token" in line]
    await _output_of("/bin/sh", "-c", new_token.replace(".venv/bin/haystream-token", NEW_TOKEN), folder=tmp_path)
    settings = {name.lower(): value for name, value in re.findall(r"HAYSTREAM_(\w+)=(\S+)", start)}
    of_gateway = {name: settings.pop(name) for name in list(settings) if name.startswith("gateway_")}
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    shutil.copy(SHIPPED / "echo.py", pipelines)
    async with served(pipelines, **settings) as running, browsed(running.address, **of_gateway) as browser:
        for shown in WITH_TOKEN:
            command = shown.replace("127.0.0.1:50051", running.address).replace("http://127.0.0.1:8000", browser.url)
            output = await _output_of("/bin/sh", "-c", command, folder=tmp_path)
            assert any(sign in output for sign in SIGNS[:2])
        assert (await browser.http.post("/chat", json={"query": "q"})).status_code == 401


async def test_the_python_snippet_prints_an_answer() -> None:
    """With the generated stub, as another service would."""
    async with served(SHIPPED) as running:
        snippet = blocks("python")[0].replace("127.0.0.1:50051", running.address)
        output = await _output_of(sys.executable, "-c", snippet)
    assert len(output.split()) > 3
    assert "UNAVAILABLE" not in output


async def test_the_openai_snippet_prints_an_answer_and_its_usage() -> None:
    """With the official client."""
    async with served(SHIPPED) as running, browsed(running.address) as browser:
        snippet = blocks("python")[1].replace("http://127.0.0.1:8000", browser.url)
        output = await _output_of(sys.executable, "-c", snippet)
    answer, tokens = output.strip().rsplit("\n", 1)
    assert len(answer.split()) > 3
    assert re.fullmatch(r"[1-9]\d* tokens", tokens)


async def test_the_pipeline_snippet_is_served(tmp_path: Path) -> None:
    """Put into a folder, and asked."""
    (tmp_path / "polite.py").write_text(blocks("python")[2])
    async with served(tmp_path) as running:
        events = await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="Who are you?")))
        listed = await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
    assert text_of(events) == "Answer politely: Who are you?"
    assert listed.pipelines[0].description == "One sentence that describes the pipeline to its callers."


async def test_the_yaml_snippet_is_served_within_its_limits(tmp_path: Path) -> None:
    """Put into a folder, and asked with what it lets callers set."""
    (tmp_path / "counted.yaml").write_text(blocks("yaml")[0])
    request = chat_pb2.ChatRequest(query="who are you?")
    async with served(tmp_path) as running:
        request.inputs.update({"prompt_builder": {"words": 3}})
        events = await all_events(running.stub.Chat(request))
        request.inputs.update({"prompt_builder": {"words": 101}})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await all_events(running.stub.Chat(request))
        listed = await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())
    assert text_of(events) == "In 3 words: who are you?"
    assert list(complaint_of(caught.value).fields) == ["inputs.prompt_builder.words"]
    assert listed.pipelines[0].description == "Answers in as many words as are asked for."


async def _output_of(*command: str, folder: Path = ROOT) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=os.environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()
