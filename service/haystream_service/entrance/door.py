"""The door: who calls is told before anything of the request is read, and who may not call gets no further."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

import grpc
import grpc.aio

from haystream_service.entrance.refusing import refuse, refuse_for_defect, refusing, streaming
from haystream_service.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from haystream_service.entrance.refusing import Continuation, Handler, RefusalObserver
    from haystream_service.identity.certificate import PeerCertificate
    from haystream_service.identity.principal import Principal
    from haystream_service.rpc import Context

    CertificateOf: TypeAlias = Callable[[Context], PeerCertificate | None]
    End: TypeAlias = Callable[[Context], Awaitable[NoReturn]]

AUTHORIZATION = "authorization"

# Who calls: set for the task that answers a call, and for the run that this starts. Nobody is let in by default.
caller: ContextVar[Principal] = ContextVar("caller")


class Authenticator(Protocol):
    """Tells who calls."""

    async def principal_of(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Principal:
        """Return who calls. Raises Refusal where that is nobody who may."""
        ...


class Door(grpc.aio.ServerInterceptor):
    """Lets callers of one service in. Health and reflection stand outside.

    `certificate_of` is None where callers need no certificate.
    """

    def __init__(
        self,
        service: str,
        authenticator: Authenticator,
        observer: RefusalObserver,
        certificate_of: CertificateOf | None = None,
    ) -> None:
        self._prefix = f"/{service}/"
        self._authenticator = authenticator
        self._observer = observer
        self._certificate_of = certificate_of

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return what answers the call."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        given = [str(value) for name, value in handler_call_details.invocation_metadata or () if name == AUTHORIZATION]
        if not given and self._certificate_of is not None:
            return self._asking_for_certificate(handler, self._certificate_of)
        end = await self._let_in(given, None)
        return handler if end is None else refusing(end)

    async def _let_in(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> End | None:
        """Take note of who calls; return how to end the call where that is nobody who may."""
        try:
            caller.set(await self._authenticator.principal_of(authorization, certificate))
        except Refusal as refusal:
            return partial(refuse, self._observer, refusal)
        except Exception as error:  # noqa: BLE001 - a defect must let nobody in, and its story is not for callers
            return partial(refuse_for_defect, self._observer, error)
        return None

    def _asking_for_certificate(self, handler: Handler, certificate_of: CertificateOf) -> Handler:
        """Return a handler that tells who calls by the certificate, which only the call's context has.

        The handler within reads its request itself, and is asked to once it is known who calls.
        """
        answer: Any = handler.stream_stream

        async def answer_to_certificate(context: Context) -> None:
            end = await self._let_in((), certificate_of(context))
            if end is not None:
                await end(context)
            await answer(None, context)

        return streaming(answer_to_certificate, handler.response_serializer)
