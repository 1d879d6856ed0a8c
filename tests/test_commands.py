"""The two commands as an operator uses them: settings, signals, and one clear line where they cannot begin."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import grpc.aio
import httpx
import httpx_sse
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_gateway.settings import Settings as GatewaySettings
from haystream_service.run.ending import Disconnected
from haystream_service.settings import LONGEST_SECONDS, MOST, complaint_about
from haystream_service.settings import Settings as ServiceSettings
from tests.conftest import SHIPPED, served
from tests.encrypted import Certs
from tests.processes import LISTEN, address_of, started

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Served
    from tests.fakes import Stage

COMMANDS = ("haystream_service", "haystream_gateway")


@pytest.fixture
def echo_alone(tmp_path: Path) -> str:
    """A folder with the shipped pipeline `echo` alone."""
    (tmp_path / "echo.py").write_text((SHIPPED / "echo.py").read_text())
    return str(tmp_path)


@pytest.mark.parametrize("module", COMMANDS)
async def test_help_lists_the_settings(module: str) -> None:
    """With their defaults."""
    async with started(module, "--help") as process:
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert b"127.0.0.1:50051" in output
    assert b"HAYSTREAM_" in output


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("haystream_service", "HAYSTREAM_MAX_RUNS", "0"),
        ("haystream_service", "HAYSTREAM_MAX_RUNS", "many"),
        ("haystream_service", "HAYSTREAM_LISTEN", "50051"),
        ("haystream_service", "HAYSTREAM_LISTEN", "127.0.0.1:99999"),
        ("haystream_service", "HAYSTREAM_LISTEN", "no.such.host.invalid:50051"),
        ("haystream_service", "HAYSTREAM_PIPELINES", "/nowhere"),
        ("haystream_service", "HAYSTREAM_DEFAULT_PIPELINE", "nobody"),
        ("haystream_service", "HAYSTREAM_LOG_LEVEL", "loud"),
        ("haystream_service", "HAYSTREAM_QUEUE_BYTES", "-1"),
        ("haystream_service", "HAYSTREAM_TLS_CERT", "cert.pem"),
        ("haystream_service", "HAYSTREAM_JWT_ISSUER", "https://issuer.invalid"),
        ("haystream_service", "HAYSTREAM_MAX_CONNECTIONS", "2147483647"),
        ("haystream_service", "HAYSTREAM_MAX_STREAMS", "9999999999"),
        ("haystream_service", "HAYSTREAM_CONNECTION_AGE_SECONDS", "1e8"),
        ("haystream_service", "HAYSTREAM_CONNECTION_AGE_SECONDS", "0.0001"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_LISTEN", "8000"),
        ("haystream_gateway", "HAYSTREAM_TARGET", ""),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_CORS_ORIGINS", "example.org"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_CORS_ORIGINS", "https://example.org/path"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_TRUSTED_PROXIES", "proxy"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_RECONNECT_SECONDS", "-1"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_SILENCE_SECONDS", "0"),
        ("haystream_gateway", "HAYSTREAM_SLOW_READER_SECONDS", "inf"),
        ("haystream_gateway", "HAYSTREAM_TARGET", "http://127.0.0.1:50051"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_TLS", "perhaps"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_TLS_CA", "/nowhere.pem"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_TLS_CERT", "cert.pem"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_TLS_KEY", "cert.key"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_TLS_SERVER_NAME", "service.internal"),
        ("haystream_gateway", "HAYSTREAM_GATEWAY_TOKEN_FILE", "/nowhere/token"),
        ("haystream_gateway", "HAYSTREAM_LOG_FORMAT", "xml"),
    ],
)
async def test_a_setting_that_makes_no_sense_stops_the_start_with_one_line(module: str, name: str, value: str) -> None:
    """The line names it."""
    async with started(module, **{name: value}) as process:
        output, errors = await process.communicate()
    assert process.returncode == 1
    assert output == b""
    lines = errors.decode().splitlines()
    assert len(lines) == 1
    assert name in lines[0]


@pytest.mark.parametrize("settings", [ServiceSettings, GatewaySettings])
def test_no_time_is_without_end(settings: type[ServiceSettings | GatewaySettings]) -> None:
    """Nor is it no number, nor longer than what clocks here can hold."""
    names = [name for name, field in settings.model_fields.items() if field.annotation is float]
    assert {"slow_reader_seconds"} < set(names)
    for name in names:
        for value in ("inf", "nan", "-inf", "1e12"):
            with pytest.raises(ValidationError) as caught:
                settings.model_validate({name: value})
            assert complaint_about(caught.value).startswith(f"HAYSTREAM_{name.upper()}: ")


async def test_the_most_that_a_setting_takes_is_served(echo_alone: str) -> None:
    """The server holds it as well."""
    async with served(
        echo_alone, max_connections=MOST, max_streams=MOST, connection_age_seconds=LONGEST_SECONDS
    ) as running:
        assert await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest())


@pytest.mark.parametrize("name", ["HAYSTREAM_TLS_CERT", "HAYSTREAM_TLS_KEY", "HAYSTREAM_TLS_CLIENT_CA"])
@pytest.mark.parametrize("content", [None, b"nothing"], ids=["missing", "wrong"])
async def test_a_certificate_that_cannot_be_used_stops_the_start_with_one_line(
    tmp_path: Path, echo_alone: str, name: str, content: bytes | None
) -> None:
    """The line names the setting and the file."""
    certs = Certs(tmp_path)
    files = {f"HAYSTREAM_{setting.upper()}": str(file) for setting, file in certs.mutual.items()}
    files[name] = str(tmp_path / "wrong")
    if content is not None:
        (tmp_path / "wrong").write_bytes(content)
    async with started("haystream_service", HAYSTREAM_PIPELINES=echo_alone, **files) as process:
        output, errors = await process.communicate()
    assert (process.returncode, output) == (1, b"")
    (line,) = errors.decode().splitlines()
    assert line.startswith(f"haystream-service: {name}: {tmp_path / 'wrong'} ")


@pytest.mark.parametrize(
    "name", ["HAYSTREAM_GATEWAY_TLS_CA", "HAYSTREAM_GATEWAY_TLS_CERT", "HAYSTREAM_GATEWAY_TLS_KEY"]
)
@pytest.mark.parametrize("content", [None, b"nothing"], ids=["missing", "wrong"])
async def test_a_certificate_that_the_gateway_cannot_use_stops_its_start_with_one_line(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    """The line names the setting and the file."""
    certs = Certs(tmp_path)
    files = {
        "HAYSTREAM_GATEWAY_TLS_CA": str(tmp_path / "ca.pem"),
        "HAYSTREAM_GATEWAY_TLS_CERT": str(certs.settings["tls_cert"]),
        "HAYSTREAM_GATEWAY_TLS_KEY": str(certs.settings["tls_key"]),
        name: str(tmp_path / "wrong"),
    }
    if content is not None:
        (tmp_path / "wrong").write_bytes(content)
    async with started("haystream_gateway", **files) as process:
        output, errors = await process.communicate()
    assert (process.returncode, output) == (1, b"")
    (line,) = errors.decode().splitlines()
    assert line.startswith(f"haystream-gateway: {name}: {tmp_path / 'wrong'} ")


async def test_a_port_for_probes_that_is_taken_is_one_line(echo_alone: str) -> None:
    """It names its own setting."""
    async with started("haystream_service", HAYSTREAM_PIPELINES=echo_alone) as first:
        taken = await address_of(first)
        settings = {"HAYSTREAM_PIPELINES": echo_alone, "HAYSTREAM_HEALTH_LISTEN": taken}
        async with started("haystream_service", **settings) as second:
            _, errors = await second.communicate()
    assert second.returncode == 1
    (line,) = errors.decode().splitlines()
    assert "HAYSTREAM_HEALTH_LISTEN" in line


@pytest.mark.parametrize("module", COMMANDS)
async def test_a_port_that_is_taken_is_one_line(module: str, echo_alone: str) -> None:
    """A second one does not share it without a word."""
    async with started(module, HAYSTREAM_PIPELINES=echo_alone) as first:
        address = await address_of(first)
        async with started(module, HAYSTREAM_PIPELINES=echo_alone, **{LISTEN[module]: address}) as second:
            _, errors = await second.communicate()
    assert second.returncode == 1
    lines = errors.decode().splitlines()
    assert len(lines) == 1
    assert LISTEN[module] in lines[0]
    assert "Traceback" not in errors.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_run_finish_and_ends_with_zero(echo_alone: str, number: signal.Signals) -> None:
    """Also while someone watches its health."""
    async with started("haystream_service", HAYSTREAM_PIPELINES=echo_alone) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
            )
            watcher = aiter(watch)
            while (await anext(watcher)).status != health_pb2.HealthCheckResponse.SERVING:
                pass
            call = chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="hello"))
            kinds = [response.event.WhichOneof("kind") async for response in call]
            process.send_signal(number)
            async with asyncio.timeout(10):
                _, errors = await process.communicate()
            with pytest.raises(grpc.aio.AioRpcError):  # it ends with the service
                while True:
                    await anext(watcher)
    assert kinds[-1] == "finished"
    assert process.returncode == 0
    assert b"Traceback" not in errors


STUCK = """
import asyncio, threading, time
from concurrent.futures import ThreadPoolExecutor
from haystack import Pipeline, component


@component
class Stuck:
    @component.output_types(replies=list[str])
    def run(self, query: str):
        time.sleep(600)


@component
class WithPool(Stuck):
    @component.output_types(replies=list[str])
    async def run_async(self, query: str):
        await asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(1), time.sleep, 600)


@component
class WithThread(Stuck):
    @component.output_types(replies=list[str])
    async def run_async(self, query: str):
        threading.Thread(target=time.sleep, args=(600,)).start()
        await asyncio.Event().wait()


def build():
    pipeline = Pipeline()
    pipeline.add_component("llm", {name}())
    return pipeline
"""


@pytest.mark.parametrize("name", ["Stuck", "WithPool", "WithThread"])
async def test_a_thread_that_never_ends_does_not_hold_up_the_end(tmp_path: Path, name: str) -> None:
    """Nothing can stop a component in a thread, whose ever that is, but the process can go."""
    (tmp_path / "stuck.py").write_text(STUCK.replace("{name}", name))
    settings = {"HAYSTREAM_PIPELINES": str(tmp_path), "HAYSTREAM_DRAIN_SECONDS": "0.1"}
    async with started("haystream_service", **settings) as process:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watcher = aiter(health.Watch(health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")))
            while (await anext(watcher)).status != health_pb2.HealthCheckResponse.SERVING:
                pass
            responses = aiter(chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="q")))
            await anext(responses)
            process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(responses)
            async with asyncio.timeout(10):
                await process.wait()
            with pytest.raises(grpc.aio.AioRpcError):
                while True:
                    await anext(watcher)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert process.returncode == 0


async def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path: Path, echo_alone: str) -> None:
    """Nor does the thread that reads who may call from it."""
    file = tmp_path / "tokens.yaml"
    file.write_text("principals: {}")
    settings = {"HAYSTREAM_PIPELINES": echo_alone, "HAYSTREAM_TOKENS_FILE": str(file)}
    async with started("haystream_service", **settings) as process:
        await address_of(process)
        os.mkfifo(tmp_path / "hanging")
        (tmp_path / "hanging").replace(file)
        is_read = await asyncio.to_thread(os.open, file, os.O_WRONLY)  # when somebody has opened it to read
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            _, errors = await process.communicate()
        os.close(is_read)
    assert process.returncode == 0
    assert b"stopped" in errors


async def test_the_gateway_ends_with_zero_on_a_signal() -> None:
    """Without a service behind it, too."""
    async with started("haystream_gateway") as process:
        await address_of(process)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            _, errors = await process.communicate()
    assert process.returncode == 0
    assert b"Traceback" not in errors


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_the_gateway_logs_as_the_service_does(log_format: str) -> None:
    """One line an answer, with fields: for machines, or for people. Neither shows what was asked or who asked."""
    async with started("haystream_gateway", HAYSTREAM_LOG_FORMAT=log_format) as process:
        async with httpx.AsyncClient(base_url=f"http://{await address_of(process)}") as http:
            headers = {"Authorization": "Bearer private", "X-Request-ID": "req-7"}
            await http.get("/pipelines/private?private", headers=headers)
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert b"private" not in errors
    (line,) = (line for line in errors.decode().splitlines() if "answered" in line)
    if log_format == "json":
        told = json.loads(line)
        assert (told["event"], told["level"]) == ("answered", "info")
        assert (told["method"], told["route"], told["status"]) == ("GET", "/pipelines/{name}", 503)
        assert told["request_id"] == "req-7"
        assert {"timestamp", "seconds", "client"} <= told.keys()
    else:
        assert "[info" in line
        assert "request_id=req-7" in line
        assert "status=503" in line


@pytest.mark.parametrize("told", [{}, {"GRPC_VERBOSITY": "INFO"}], ids=["", "unless it is told to"])
async def test_handshakes_that_fail_do_not_fill_the_log(tmp_path: Path, echo_alone: str, told: dict[str, str]) -> None:
    """Any stranger can have them fail, and gRPC's own lines are no JSON."""
    files = {f"HAYSTREAM_{name.upper()}": str(file) for name, file in Certs(tmp_path).settings.items()}
    settings = {"HAYSTREAM_PIPELINES": echo_alone, "HAYSTREAM_LOG_FORMAT": "json", **files, **told}
    async with started("haystream_service", **settings) as process:
        reader, writer = await asyncio.open_connection(*(await address_of(process)).split(":"))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert errors.count(b"Handshake failed") == len(told)
    assert all(line.startswith(b"{") for line in errors.splitlines()) is not bool(told)


@pytest.mark.parametrize("told", [{}, {"GRPC_VERBOSITY": "INFO"}], ids=["", "unless it is told to"])
async def test_handshakes_that_fail_do_not_fill_the_gateways_log(
    tmp_path: Path, echo: Served, told: dict[str, str]
) -> None:
    """As where the service is not encrypted, and tried again and again."""
    Certs(tmp_path)
    settings = {"HAYSTREAM_TARGET": echo.address, "HAYSTREAM_GATEWAY_TLS_CA": str(tmp_path / "ca.pem")}
    async with started("haystream_gateway", HAYSTREAM_LOG_FORMAT="json", **settings, **told) as process:
        async with httpx.AsyncClient(base_url=f"http://{await address_of(process)}") as http:
            assert (await http.get("/pipelines")).json()["reason"] == "SERVICE_UNREACHABLE"
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert (b"Handshake failed" in errors) is bool(told)
    assert all(line.startswith(b"{") for line in errors.splitlines()) is not bool(told)


async def test_a_signal_ends_the_gateways_streams_with_a_frame_that_says_come_back(fake: Served, stage: Stage) -> None:
    """A real process: its readers are told, the run waits for them, and the process is gone."""
    stage.chunks = 1
    async with started("haystream_gateway", HAYSTREAM_TARGET=fake.address) as process:
        async with httpx.AsyncClient(base_url=f"http://{await address_of(process)}") as http:
            async with httpx_sse.aconnect_sse(http, "GET", "/chat?query=q") as source:
                frames = source.aiter_sse()
                before = [await anext(frames), await anext(frames)]
                process.send_signal(signal.SIGTERM)
                (last,) = [frame async for frame in frames]
        async with asyncio.timeout(10):
            _, errors = await process.communicate()
    assert process.returncode == 0
    assert b"Traceback" not in errors
    assert (last.event, last.id) == ("error", before[-1].id)
    assert (json.loads(last.data)["reason"], json.loads(last.data)["retryable"]) == ("DRAINING", True)
    (run,) = fake.runs
    assert run.is_in_grace
    run.stop(Disconnected())


async def test_a_second_signal_ends_the_gateway_at_once(stage: Stage) -> None:
    """Whoever presses Ctrl-C again does not want to wait for a reader who takes nothing."""
    stage.chunks, stage.text = 50_000, "x" * 1000
    async with served(default_pipeline="fake") as running:
        async with started("haystream_gateway", HAYSTREAM_TARGET=running.address) as process:
            reader, writer = await asyncio.open_connection(*(await address_of(process)).split(":"))
            writer.write(b"GET /chat?query=q HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"event: data")
            await stage.stands_still()
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            while b"draining" not in await process.stderr.readline():
                pass
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(1):  # a drain would wait for its reader for two seconds
                assert await process.wait() == 1
            writer.transport.abort()
        for run in running.runs:
            run.stop(Disconnected())
