"""The door: who calls is told before anything of the request is read, and who may not call gets no further."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

import grpc
import grpc.aio

from haystream_service.errors import Refusal
from haystream_service.identity.principal import ANYONE
from haystream_service.rpc import abort, request_id_of
from haystream_service.status import DEFECT, status_of_refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from structlog.typing import FilteringBoundLogger

    from haystream_service.identity.certificate import PeerCertificate
    from haystream_service.identity.principal import Principal
    from haystream_service.rpc import Context
    from haystream_service.status import Status

    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
    CertificateOf: TypeAlias = Callable[[Context], PeerCertificate | None]

AUTHORIZATION = "authorization"

# Who calls: set for the task that answers a call, and for the run that this starts.
caller: ContextVar[Principal] = ContextVar("caller", default=ANYONE)


class Authenticator(Protocol):
    """Tells who calls."""

    async def principal_of(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Principal:
        """Return who calls. Raises Refusal where that is nobody who may."""
        ...


class Door(grpc.aio.ServerInterceptor):
    """Lets callers of one service in. Health and reflection stand outside."""

    def __init__(
        self,
        service: str,
        authenticator: Authenticator,
        log: FilteringBoundLogger,
        certificate_of: CertificateOf | None = None,
    ) -> None:
        self._prefix = f"/{service}/"
        self._authenticator = authenticator
        self._log = log
        self._certificate_of = certificate_of

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return what answers the call."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        given = [str(value) for name, value in handler_call_details.invocation_metadata or () if name == AUTHORIZATION]
        if not given and self._certificate_of is not None:
            return self._asking_for_certificate(handler, self._certificate_of)
        refusal = await self._let_in(given, None)
        return handler if refusal is None else _refusing(refusal)

    async def _let_in(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Status | None:
        """Take note of who calls, or return why nobody does."""
        try:
            caller.set(await self._authenticator.principal_of(authorization, certificate))
        except Refusal as refusal:
            return status_of_refusal(refusal)
        except Exception as error:  # noqa: BLE001 - a defect must let nobody in, and its story is not for callers
            self._log.error("defect", exc_info=error)
            return DEFECT
        return None

    def _asking_for_certificate(self, handler: Handler, certificate_of: CertificateOf) -> Handler:
        """Return a handler that tells who calls by the certificate, which only the call's context has."""
        streams = handler.response_streaming
        answer: Any = handler.unary_stream if streams else handler.unary_unary

        async def answer_to_certificate(request: object, context: Context) -> object:
            refusal = await self._let_in((), certificate_of(context))
            if refusal is not None:
                await _refuse(context, refusal)
            return await answer(request, context)

        handler_for: Any = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        made: Handler = handler_for(answer_to_certificate, handler.request_deserializer, handler.response_serializer)
        return made


def _refusing(status: Status) -> Handler:
    """Return a handler that refuses.

    It is one for streams of requests: one for single requests would only be asked once its request is there, and
    whoever may not call could have 16 MiB of it held for each call.
    """

    async def refuse(_: object, context: Context) -> None:
        await _refuse(context, status)

    handler_for: Any = grpc.stream_stream_rpc_method_handler
    handler: Handler = handler_for(refuse)
    return handler


async def _refuse(context: Context, status: Status) -> NoReturn:
    await abort(context, status, {"request_id": request_id_of(context)} if status is DEFECT else {})
