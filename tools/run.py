"""`make run`: starts the service and the gateway, says where they are, and stops both on Ctrl-C."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_gateway.credentials import CredentialsUnusable, channel_credentials, own_token
from haystream_gateway.settings import Settings as GatewaySettings
from haystream_service import local_model
from haystream_service.settings import Settings as ServiceSettings
from haystream_service.settings import complaint_about

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from haystream_gateway.upstream import Metadata

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 60
DRAIN_SECONDS = "2"  # unless set otherwise: someone at a terminal does not want to wait
STOP_SECONDS = 4.5
PR_SET_PDEATHSIG = 1  # linux/prctl.h
NO_PROXY = [("grpc.enable_http_proxy", 0)]  # gRPC would go through one even to this machine
QUESTION = '{"query": "Why is the sky blue?"}'


class CannotRun(Exception):
    """Something is in the way; the text says what, and the cure."""


def main() -> NoReturn:
    """Run until a signal; exit 0 then, and 1 with one line where that is not possible."""
    die_with_parent()
    try:
        service, gateway = ServiceSettings(), GatewaySettings()
        check(service, gateway)
        with own_foreground():
            asyncio.run(run(service, gateway))
    except ValidationError as error:
        refuse(complaint_about(error))
    except CannotRun as error:
        refuse(str(error))
    with suppress(OSError):  # the terminal may be gone
        print("Stopped.", flush=True)
    sys.exit(0)


def refuse(complaint: str) -> NoReturn:
    """End with one line."""
    print(f"make run: {complaint}", file=sys.stderr)
    sys.exit(1)


def check(service: ServiceSettings, gateway: GatewaySettings) -> None:
    """Raise CannotRun for what would stop the two from starting."""
    for name, address in (("HAYSTREAM_LISTEN", service.listen), ("HAYSTREAM_GATEWAY_LISTEN", gateway.gateway_listen)):
        host, _, port = address.rpartition(":")
        if port == "0":
            raise CannotRun(f"{name}: choose a port other than 0")
        check_free(name, host.strip("[]"), int(port))
    if service.tls_cert is not None and not gateway.has_tls:
        raise CannotRun("HAYSTREAM_GATEWAY_TLS_CA: the service is encrypted; say whose certificates the gateway trusts")
    is_shipped = service.pipelines.resolve() == ROOT / "pipelines"
    if is_shipped and (missing := local_model.missing_packages()):
        raise CannotRun(f"the local model needs {' and '.join(missing)}; `make clean`, then `make run` installs them")


def check_free(name: str, host: str, port: int) -> None:
    """Raise CannotRun where the address cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else "no such address"
        raise CannotRun(f"{name}: cannot listen on {host}:{port}: {why}; is another one running?") from None


async def run(service: ServiceSettings, gateway: GatewaySettings) -> None:
    """Run both until a signal comes. Raises CannotRun where one of them ends by itself or is never ready."""
    stop = stop_on_signals()
    environment = {**os.environ}
    if "target" not in gateway.model_fields_set:
        environment["HAYSTREAM_TARGET"] = service.listen
    if "drain_seconds" not in service.model_fields_set:
        environment["HAYSTREAM_DRAIN_SECONDS"] = DRAIN_SECONDS
    processes = {
        name: await start(module, environment)
        for name, module in (("service", "haystream_service"), ("gateway", "haystream_gateway"))
    }
    try:
        if await unless_over(wait_until_ready(service, gateway), processes, stop):
            await announce(service, gateway)
            await unless_over(asyncio.Event().wait(), processes, stop)
    finally:
        await stop_all(processes)


def stop_on_signals() -> asyncio.Event:
    """Return an event that Ctrl-C, SIGTERM and a closed terminal set."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    if has_terminal():
        # A shell passes the hang-up on to `make`'s group, which this process has left. The terminal tells it too.
        loop.add_reader(sys.stdin.fileno(), stop_at_end_of_input, stop)
    return stop


def stop_at_end_of_input(stop: asyncio.Event) -> None:
    """Throw away what is typed; stop when the terminal is gone."""
    try:
        typed = os.read(sys.stdin.fileno(), 1024)
    except OSError:
        typed = b""
    if not typed:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


async def start(module: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    """Start a module in a session of its own: Ctrl-C reaches this process alone, which then stops it in order."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env=environment, start_new_session=True, preexec_fn=die_with_parent
    )


def die_with_parent() -> None:
    """Have Linux end this process when the one that started it is gone, even by a kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


async def unless_over(
    work: Coroutine[Any, Any, object], processes: dict[str, asyncio.subprocess.Process], stop: asyncio.Event
) -> bool:
    """Wait for the work; return False where a signal came first. Raises CannotRun where a process ends first."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    ending = {asyncio.create_task(process.wait()): name for name, process in processes.items()}
    tasks: set[asyncio.Task[Any]] = {working, stopping, *ending}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stopping in done:
            return False
        for task in ending.keys() & done:
            raise CannotRun(f"the {ending[task]} ended by itself, with exit code {task.result()}")
        await working
        return True
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def channel_to(
    service: ServiceSettings, gateway: GatewaySettings, *options: tuple[str, int]
) -> tuple[grpc.aio.Channel, Metadata]:
    """Return a channel to the service, and who calls: as the gateway does. Raises CannotRun."""
    try:
        log = structlog.get_logger()
        credentials, token = channel_credentials(gateway, log).latest(), own_token(gateway, log).latest()
    except CredentialsUnusable as error:
        raise CannotRun(str(error)) from None
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    all_options: list[tuple[str, int | str]] = [*NO_PROXY, *options]
    if credentials is None:
        return grpc.aio.insecure_channel(service.listen, options=all_options), metadata
    if gateway.gateway_tls_server_name:
        all_options.append(("grpc.ssl_target_name_override", gateway.gateway_tls_server_name))
    return grpc.aio.secure_channel(service.listen, credentials, options=all_options), metadata


async def wait_until_ready(service: ServiceSettings, gateway: GatewaySettings) -> None:
    """Wait until the service takes chats and the gateway answers. Raises CannotRun after a minute."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await wait_for_service(service, gateway)
            await wait_for_gateway(gateway.gateway_listen)
    except TimeoutError:
        raise CannotRun(f"not ready after {READY_SECONDS} s; the lines above tell why") from None


async def wait_for_service(service: ServiceSettings, gateway: GatewaySettings) -> None:
    """Wait until the service's health says that it serves."""
    channel, _ = channel_to(service, gateway, ("grpc.max_reconnect_backoff_ms", 200))
    async with channel:
        request = health_pb2.HealthCheckRequest(service="haystream.v1.ChatService")
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, wait_for_ready=True)
        async for response in watch:
            if response.status == health_pb2.HealthCheckResponse.SERVING:
                watch.cancel()
                return


async def wait_for_gateway(address: str) -> None:
    """Wait until the gateway's port is open."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def announce(service: ServiceSettings, gateway: GatewaySettings) -> None:
    """Say where everything is, and how to call it."""
    names = await names_of_pipelines(service, gateway)
    encrypted = service.tls_cert is not None
    how = grpcurl_options(gateway) if encrypted else "-plaintext"
    buf = "buf" if shutil.which("buf") else str(Path(sys.executable).parent.relative_to(ROOT) / "buf")
    plain = f"{buf} curl --protocol grpc --http2-prior-knowledge -d '{QUESTION}'"
    buf_curl = "" if encrypted else f"\n  {plain} http://{service.listen}/haystream.v1.ChatService/Chat\n"
    print(
        f"""
Haystream is ready.

  page       http://{gateway.gateway_listen}/
  service    {service.listen} (gRPC with reflection)
  pipelines  {names}

  grpcurl {how} -d '{QUESTION}' {service.listen} haystream.v1.ChatService/Chat
{buf_curl}
  curl -N --json '{QUESTION}' http://{gateway.gateway_listen}/chat

Ctrl-C stops both.
""",
        flush=True,
    )


async def names_of_pipelines(service: ServiceSettings, gateway: GatewaySettings) -> str:
    """Return what can be called, or who may know."""
    channel, metadata = channel_to(service, gateway)
    async with channel:
        stub, request = chat_pb2_grpc.ChatServiceStub(channel), chat_pb2.ListPipelinesRequest()
        try:
            listed = await stub.ListPipelines(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
            return "told to those who bring a token"
    return ", ".join(
        f"{pipeline.name} (default)" if pipeline.name == listed.default_pipeline else pipeline.name
        for pipeline in listed.pipelines
        if pipeline.ready
    )


def grpcurl_options(gateway: GatewaySettings) -> str:
    """Return what lets grpcurl call as the gateway does."""
    flags = {
        "-cacert": gateway.gateway_tls_ca,
        "-cert": gateway.gateway_tls_cert,
        "-key": gateway.gateway_tls_key,
        "-servername": gateway.gateway_tls_server_name,
    }
    return " ".join(f"{flag} {value}" for flag, value in flags.items() if value)


async def stop_all(processes: dict[str, asyncio.subprocess.Process]) -> None:
    """Ask all to end, and make them after a while."""
    for process in processes.values():
        if process.returncode is None:
            process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await asyncio.gather(*(process.wait() for process in processes.values()))
    except TimeoutError:
        for process in processes.values():
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in processes.values()))


def has_terminal() -> bool:
    """Tell whether what is typed comes to this process; in the background it would be stopped for reading it."""
    return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()


@contextmanager
def own_foreground() -> Generator[None]:
    """On a terminal, take Ctrl-C for this process alone: `make` would die of it, and say 130 for an orderly end."""
    if not has_terminal():
        yield
        return
    terminal, before = sys.stdin.fileno(), os.getpgrp()
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a background group may not hand over the terminal otherwise
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # only this group would stop, and `make` would seem to hang
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        with suppress(OSError):
            os.tcsetpgrp(terminal, before)


if __name__ == "__main__":
    main()
