"""One service and one gateway for all attacks: what survives the first has to survive the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.attacks.target import Target, target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(scope="package")
async def attacked() -> AsyncIterator[Target]:
    """A service and its gateway, for all attacks of the package."""
    async with target() as running:
        yield running
