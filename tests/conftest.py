"""A service and a gateway on free ports of the loopback, and proof after every test that nothing of them is left."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import httpx
import psutil
import pytest
import structlog

from haystream.v1 import chat_pb2_grpc
from haystream_gateway import server as gateway_server
from haystream_gateway.settings import Settings as GatewaySettings
from haystream_service import server as service_server
from haystream_service.settings import Settings as ServiceSettings
from tests import image_hosts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from structlog.typing import EventDict

    from haystream_service.run.runs import Runs
    from haystream_service.telemetry.tracing import Traces
    from tests import fakes

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "pipelines"
FAKES = Path(__file__).parent / "pipelines"

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

# The poller of grpc.aio and Starlette's pool live as long as the process. "Dummy" is what Python calls a thread that it
# did not start, such as those of gRPC's C core, once that has run Python: it stays listed, and cannot be joined.
PROCESS_THREADS = ("_poll_wrapper", "AnyIO worker thread", "Dummy-")
SETTLE_SECONDS = 5  # what a thread without work, or a call that was cancelled, takes to end, and much more


@dataclass(frozen=True, slots=True)
class Served:
    """A running service and a caller of it."""

    address: str
    service: service_server.Service
    stub: chat_pb2_grpc.ChatServiceStub
    channel: grpc.aio.Channel

    @property
    def runs(self) -> Runs:
        """The runs that go on."""
        return self.service.runs


@dataclass(frozen=True, slots=True)
class Browser:
    """A running gateway and an HTTP client of it."""

    url: str
    http: httpx.AsyncClient
    gateway: gateway_server.Gateway


@asynccontextmanager
async def served(
    pipelines: Path | str = FAKES, *, warm: bool = True, traces: Traces | None = None, **settings: Any
) -> AsyncGenerator[Served]:
    """Serve a folder with a service of its own; assert at the end that no run is left. Not `warm`: at once."""
    defaults: dict[str, Any] = {"listen": "127.0.0.1:0", "pipelines": pipelines, "drain_seconds": 0.2}
    log = structlog.get_logger()
    async with service_server.serving(ServiceSettings(**{**defaults, **settings}), log, traces=traces) as service:
        if warm:
            await service.loaded.wait()
        address = f"127.0.0.1:{service.port}"
        async with grpc.aio.insecure_channel(address) as channel:
            yield Served(address, service, chat_pb2_grpc.ChatServiceStub(channel), channel)
    assert len(service.runs) == 0


@asynccontextmanager
async def browsed(target: str, **settings: Any) -> AsyncGenerator[Browser]:
    """Run a gateway to a service; assert at the end that no stream is left."""
    defaults: dict[str, Any] = {"gateway_listen": "127.0.0.1:0", "target": target}
    async with gateway_server.serving(GatewaySettings(**{**defaults, **settings}), structlog.get_logger()) as gateway:
        url = f"http://127.0.0.1:{gateway.port}"
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            yield Browser(url, http, gateway)
    assert len(gateway.streams) == 0


def pytest_report_header() -> str:
    """Say in the report whether the browser's tests are in it."""
    if CHROMIUM is None and os.environ.get("CI"):
        raise pytest.UsageError("Chromium is missing, and the browser's tests must run here")
    return f"browser: {CHROMIUM or 'none, so tests/browser is left out; `apt-get install chromium` brings it in'}"


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """After every test no task, thread or child process is left that was not there before."""
    tasks, threads, children = asyncio.all_tasks(), _threads(), _children()
    pool = ThreadPoolExecutor(thread_name_prefix="components")  # where Haystack runs what only knows threads
    asyncio.get_running_loop().set_default_executor(pool)
    yield
    pool.shutdown(wait=False)
    for thread in _threads() - threads:
        if thread.name.startswith(("components", "haystream-", "asyncio-waitpid")):
            thread.join(SETTLE_SECONDS)
    late = asyncio.all_tasks() - tasks - {asyncio.current_task()}
    if late:  # calls and generators that are closing
        _, late = await asyncio.wait(late, timeout=SETTLE_SECONDS)
    assert not late
    if _threads() - threads:
        await asyncio.sleep(0)  # what a thread has told the loop as it ended holds its pipeline
        gc.collect()  # Haystack's in-memory store ends its thread when it is collected
        for thread in _threads() - threads:
            thread.join(SETTLE_SECONDS)
    assert not _threads() - threads
    assert not _children() - children


@pytest.fixture
async def stage() -> fakes.Stage:
    """What the fakes of this test share with it."""
    from tests import fakes  # noqa: PLC0415 - they need the newest Haystack; tests/generations runs without them

    return fakes.new_stage()


@pytest.fixture
async def fake(stage: fakes.Stage) -> AsyncIterator[Served]:
    """A service with the fakes of this test."""
    async with served(default_pipeline="fake") as running:
        yield running
    stage.proceed.set()  # whoever still waits in a thread


@pytest.fixture
async def page(fake: Served) -> AsyncIterator[Browser]:
    """A gateway to the service with the fakes."""
    async with browsed(fake.address) as browser:
        yield browser


@pytest.fixture
async def anyone() -> AsyncIterator[image_hosts.Host]:
    """A web server with a small image."""
    async with image_hosts.hosting() as host:
        yield host


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Served]:
    """A service with the shipped pipeline `echo` alone."""
    shutil.copy(SHIPPED / "echo.py", tmp_path)
    async with served(tmp_path) as running:
        yield running


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """What is logged, at level info as an operator has it."""
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))
    with structlog.testing.capture_logs() as captured:
        yield captured
    structlog.configure(wrapper_class=before)


@pytest.fixture(scope="session", autouse=True)
def provider_that_fails_on_demand(llmock_server: object) -> object:
    """Start llmock's server before the first test, since its thread stays."""
    return llmock_server


@pytest.fixture(scope="session", autouse=True)
def quiet_logs() -> None:
    """Keep the services' lines out of the report; pytest shows them for a test that fails."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        processors=[structlog.processors.format_exc_info, structlog.processors.LogfmtRenderer()],
    )


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not any(name in thread.name for name in PROCESS_THREADS)}


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}
