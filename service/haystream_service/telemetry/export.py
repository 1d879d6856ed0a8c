"""Where spans go, by OpenTelemetry's own variables: OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT and so on.

The SDK reads the others (sampling, batches, resource) by itself. OpenTelemetry is imported where traces are wanted.
"""

from __future__ import annotations

import threading
from importlib.metadata import version
from typing import TYPE_CHECKING

from haystream_service.errors import CannotServe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"  # the other one would be a second gRPC in the process, with threads of its own

# What is still to be sent gets this long at the end. Who receives it may be gone already.
CLOSE_SECONDS = 1.5


class TracesUnavailable(CannotServe):
    """Traces are wanted, and cannot be had so. The text names the variable and the cure."""


def wants_traces(environment: Mapping[str, str]) -> bool:
    """Tell whether the environment asks for traces. Raises TracesUnavailable for what is not built in."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if not exporter and not any(environment.get(name) for name in ENDPOINTS):
        return False
    if exporter not in {"", "otlp"}:
        raise TracesUnavailable(f"OTEL_TRACES_EXPORTER: {exporter!r} is not built in; use otlp, or none")
    for name in PROTOCOLS:
        if (protocol := environment.get(name, PROTOCOL)) != PROTOCOL:
            raise TracesUnavailable(f"{name}: {protocol!r} is not built in; use {PROTOCOL}, mostly at port 4318")
    return True


class Export:
    """Sends spans in batches, from a thread of its own. Raises TracesUnavailable where OpenTelemetry is missing."""

    def __init__(self) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - extra
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
        except ImportError:
            raise TracesUnavailable(
                "OTEL_TRACES_EXPORTER: traces need OpenTelemetry; install haystream[otel], or say none"
            ) from None
        self._exporter: SpanExporter = OTLPSpanExporter()
        self.provider = provider()
        self.provider.add_span_processor(BatchSpanProcessor(self._exporter))

    def close(self) -> None:
        """Send what there is still, within CLOSE_SECONDS. Blocks."""
        closing = threading.Thread(target=self.provider.shutdown, name="close traces", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        if closing.is_alive():  # nobody answers: no more attempts
            self._exporter.shutdown()


def provider() -> TracerProvider:
    """Return what makes spans, and takes them to no one yet. What it says of the service can be overruled."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above

    mine = Resource({"service.name": "haystream", "service.version": version("haystream")})
    return TracerProvider(
        resource=Resource.create({}).merge(mine).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
