"""Calls that are refused before their handler is asked."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

import grpc
import grpc.aio

from haystream_service.errors import Refusal
from haystream_service.rpc import abort, request_id_of
from haystream_service.status import DEFECT, status_of_refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from haystream_service.rpc import Context

    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
    Encode: TypeAlias = Callable[[Any], bytes]
    Answer: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
    Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]


class RefusalObserver(Protocol):
    """Who has to know of what was refused."""

    def refused(self, refusal: Refusal, request_id: str, /) -> None:
        """Hear that a call was refused."""

    def defect(self, error: BaseException, request_id: str, /) -> None:
        """Hear of a defect."""


async def refuse(observer: RefusalObserver, refusal: Refusal, context: Context) -> NoReturn:
    """End a call with a refusal."""
    observer.refused(refusal, request_id_of(context))
    await abort(context, status_of_refusal(refusal), {})


async def refuse_who_stays(observer: RefusalObserver, refusal: Refusal, context: Context) -> NoReturn:
    """End a call with a refusal, which nobody hears of where its caller has gone, or gRPC has ended it, already."""
    try:
        await abort(context, status_of_refusal(refusal), {})
    except grpc.aio.AbortError:
        observer.refused(refusal, request_id_of(context))
        raise


async def refuse_for_defect(observer: RefusalObserver, error: BaseException, context: Context) -> NoReturn:
    """End a call that met a defect. Its story is for the log alone."""
    request_id = request_id_of(context)
    observer.defect(error, request_id)
    await abort(context, DEFECT, {"request_id": request_id})


@asynccontextmanager
async def guarding(observer: RefusalObserver, context: Context) -> AsyncGenerator[None]:
    """Turn what goes wrong in the block into a status. Of anything else gRPC would send the text out, and log it."""
    try:
        yield
    except Refusal as refusal:
        await refuse(observer, refusal, context)
    except grpc.aio.BaseError:  # an abort; or the caller went away
        raise
    except Exception as error:  # noqa: BLE001 - a defect, whatever it is, has to become a status
        await refuse_for_defect(observer, error, context)


def refusing(end: Callable[[Context], Awaitable[NoReturn]]) -> Handler:
    """Return a handler that ends every call so, before anything of its request is read.

    It is one for streams of requests: one for single requests would only be asked once its request is there, and
    whoever may not call could have 16 MiB of it held for each call.
    """
    return streaming(end)


def streaming(answer: Callable[[Context], Awaitable[object]], encode: Encode | None = None) -> Handler:
    """Return a handler that is asked as soon as there is a call. It reads the bytes of its request itself."""

    async def answer_stream(_: object, context: Context) -> None:
        await answer(context)

    handler_for: Any = grpc.stream_stream_rpc_method_handler
    handler: Handler = handler_for(answer_stream, None, encode)
    return handler


def answer_of(handler: Handler) -> Answer:
    """Return what a handler for single requests answers with."""
    answer: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary
    found: Answer = answer
    return found
