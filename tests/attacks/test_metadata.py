"""Metadata bombs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from tests.attacks.canary import withstood
from tests.attacks.wire import chat, wired

if TYPE_CHECKING:
    from tests.attacks.target import Target


async def test_probe(attacked: Target) -> None:
    def attack() -> None:
        with wired(attacked.service.address) as w:
            w.send(chat(1, "hi", [(b"x-a", b"v" * 17_000_000)]))
            print(w.read(1))

    t = time.time()
    await withstood(attacked, lambda: asyncio.to_thread(attack), rounds=3)
    print(time.time() - t)
