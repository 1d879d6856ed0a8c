"""A stand-in for OpenAI's streaming chat completions that counts, and fails in every way that its order names."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from benchmarks.servers.listening import announced_socket
from benchmarks.servers.provider import completion, content_length, event
from benchmarks.soak.order import Order

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
END = completion({}, "stop") + event("[DONE]")
LAST = b"0\r\n\r\n"
MALFORMED = event('{"choices": [{"delta": ')
SERVER_KEY = "benchmark"  # what `benchmarks.components.openai` has
MISSING_KEY = 401

# Longer than any caller waits. A thread that reads a silent provider cannot be stopped, and ends only with this.
STALL_SECONDS = 4


def refusal(status: int) -> bytes:
    """Return an answer that refuses."""
    body = json.dumps({"error": {"message": "refused, as ordered", "type": "soak", "code": None}}).encode()
    head = f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, and hang up."""
    with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        head = await reader.readuntil(b"\r\n\r\n")
        body = json.loads(await reader.readexactly(content_length(head.strip())))
        order = Order.of(body["messages"][-1]["content"])
        if f"bearer {order.key or SERVER_KEY}".encode() not in head.lower():
            writer.write(refusal(MISSING_KEY))
        elif order.fault.isdecimal():
            writer.write(refusal(int(order.fault)))
        else:
            await say(order, writer)
            if order.fault == "stall":
                async with asyncio.timeout(STALL_SECONDS):
                    await reader.read()  # until the caller has had enough
        await writer.drain()
    with suppress(ConnectionError):
        writer.close()
        await writer.wait_closed()


async def say(order: Order, writer: asyncio.StreamWriter) -> None:
    """Say the words, and then what is wrong."""
    writer.write(HEAD)
    for number in range(order.words):
        writer.write(completion({"content": order.word(number)}))
        if order.per_second:
            await asyncio.sleep(1 / order.per_second)
        await writer.drain()
    match order.fault:
        case "malformed":
            writer.write(MALFORMED + LAST)
        case "early end":
            writer.write(event("[DONE]") + LAST)
        case "cut" | "stall":
            pass
        case _:
            writer.write(END + LAST)


async def main() -> None:
    server = await asyncio.start_server(answer, sock=announced_socket())
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
