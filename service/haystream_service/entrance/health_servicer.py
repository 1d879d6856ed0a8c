"""`grpc.health.v1`, answered so that no peer of one call can hold up another, or the service itself.

grpcio-health-checking's own servicer writes to its watchers under the lock that changes of the status need: one peer
that takes nothing would keep the service from ever being ready, and from ever draining. It keeps what is asked, too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from haystream_service.rpc import Context

    Status: TypeAlias = health_pb2.HealthCheckResponse.ServingStatus.ValueType

SERVICE_UNKNOWN: Status = getattr(health_pb2.HealthCheckResponse, "SERVICE_UNKNOWN")  # noqa: B009 - unknown to its stub


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Tells the status of the services that it was told of, and of no others.

    `_changed` is set, and another takes its place, whenever a status changes.
    """

    def __init__(self, statuses: dict[str, Status]) -> None:
        self._statuses = statuses
        self._changed = asyncio.Event()

    def set(self, service: str, status: Status) -> None:
        """Change the status of a service. Waits for nobody."""
        self._statuses[service] = status
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Answer with the status, or NOT_FOUND, as the protocol wants."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: health_pb2.HealthListRequest, context: Context) -> health_pb2.HealthListResponse:
        """Answer with all statuses."""
        del request, context
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Write the status, and each one that it changes to while nothing is being written."""
        told: Status | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, SERVICE_UNKNOWN)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            await changed.wait()
