from collections.abc import Mapping
from typing import NewType

from google.protobuf.message import Message

class HealthCheckRequest(Message):
    service: str
    def __init__(self, *, service: str = ...) -> None: ...

class HealthCheckResponse(Message):
    class ServingStatus:
        ValueType = NewType("ValueType", int)

    SERVING: ServingStatus.ValueType
    NOT_SERVING: ServingStatus.ValueType
    status: ServingStatus.ValueType
    def __init__(self, *, status: ServingStatus.ValueType = ...) -> None: ...

class HealthListRequest(Message): ...

class HealthListResponse(Message):
    statuses: Mapping[str, HealthCheckResponse]
    def __init__(self, *, statuses: Mapping[str, HealthCheckResponse] = ...) -> None: ...
