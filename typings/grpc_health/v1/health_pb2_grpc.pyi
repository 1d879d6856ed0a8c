import grpc.aio
from grpc_health.v1 import health_pb2

class HealthServicer: ...

class HealthStub:
    def __init__(self, channel: grpc.aio.Channel) -> None: ...
    Check: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    List: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthListRequest, health_pb2.HealthListResponse]
    Watch: grpc.aio.UnaryStreamMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]

def add_HealthServicer_to_server(servicer: HealthServicer, server: grpc.aio.Server) -> None: ...
