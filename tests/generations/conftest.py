"""A service for each kind of pipeline that the installed generation has, in front of a provider or with an actor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import served
from tests.generations.conversation import ANSWER, folder_of
from tests.generations.installed import GENERATION, Kind
from tests.generations.parts import PARTIES, new_stage
from tests.providers import Provider, provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmock.pytest_plugin import LLMock

    from tests.conftest import Served
    from tests.generations.parts import Stage


@pytest.fixture(params=GENERATION.speakers, ids=lambda kind: kind.name)
def speaker(request: pytest.FixtureRequest) -> Kind:
    """Each kind of pipeline with OpenAI's model."""
    kind: Kind = request.param
    return kind


@pytest.fixture(params=GENERATION.actors, ids=lambda kind: kind.name)
def actor(request: pytest.FixtureRequest) -> Kind:
    """Each kind of pipeline with an actor."""
    kind: Kind = request.param
    return kind


@pytest.fixture
async def talking(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    """A provider that says a word at a time, and sees its callers go."""
    async with provider() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-service")
        yield running


@pytest.fixture
async def chatting(talking: Provider, speaker: Kind, tmp_path: Path) -> AsyncIterator[Served]:
    """A service in front of the provider that says a word at a time."""
    async with served(folder_of(speaker, tmp_path)) as running:
        yield running


@pytest.fixture
async def answering(
    llmock: LLMock, speaker: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    """A service in front of a provider that answers as it is told to, and is asked once."""
    monkeypatch.setenv("OPENAI_MAX_RETRIES", "0")
    llmock.tool_mode("off").reply(ANSWER)
    async with served(folder_of(speaker, tmp_path)) as running:
        yield running


@pytest.fixture
def stage() -> Stage:
    """What the actors of this test share with it."""
    return new_stage()


@pytest.fixture
async def acting(stage: Stage, actor: Kind, tmp_path: Path) -> AsyncIterator[Served]:
    """A service with an actor, and a thread for each of its runs."""
    async with served(folder_of(actor, tmp_path), max_sync_runs=PARTIES) as running:
        yield running
