"""One service and one gateway for nearly all attacks: what survives the first has to survive the last."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.attacks.target import Target, target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

MAX_CONNECTIONS = 12_000


@contextmanager
def many_descriptors() -> Generator[None]:
    """Let processes that are started meanwhile open as many files as they ever may."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="package")
async def attacked() -> AsyncIterator[Target]:
    """A service and its gateway, for all attacks of the package."""
    with many_descriptors():
        async with target(HAYSTREAM_MAX_CONNECTIONS=str(MAX_CONNECTIONS)) as running:
            yield running
