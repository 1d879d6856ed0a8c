"""What an operator does meanwhile: changes, breaks and mends a pipeline's file, sends SIGHUP, restarts processes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio

from benchmarks.process import ServerFailed
from haystream.v1 import chat_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from benchmarks.soak.ground import Ground

LETTERS = "abcdefghijklmnopqrstuvw"
SEEN_SECONDS = 20  # longest that a change may take to be served, on a machine that has other things to do
LOOKING_SECONDS = 0.1
BROKEN = "def build(:\n"
VERSION = '''"""Version {letter}."""

from haystack import Pipeline

from benchmarks.soak.components.counted import Counted


def build() -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("llm", Counted("{letter}"))
    return pipeline
'''


def write_first(pipelines: Path) -> None:
    """Write the file that changes, before anything runs."""
    _file(pipelines).write_text(VERSION.format(letter=LETTERS[0]), encoding="utf-8")


async def change_files(ground: Ground, pauses: AsyncIterator[int]) -> None:
    """Change the file after each pause; every third time it is broken first, and mended."""
    async for number in pauses:
        letter = LETTERS[number % len(LETTERS)]
        if number % 3 == 0:
            _write(ground, BROKEN)
            await _until(ground, "the broken file is told of", letter=None)
        _write(ground, VERSION.format(letter=letter))
        if number % 2 == 0:
            ground.servers.steady.hang_up()
            ground.servers.rolling.hang_up()
        await _until(ground, f"version {letter} is served", letter)
        ground.tally.runs["file changed"] += 1


async def restart(ground: Ground, pauses: AsyncIterator[int]) -> None:
    """Restart after each pause the service or the gateway that are for it, by turns; each has to end in order."""
    pace = ground.servers.pace
    turns = ((ground.servers.rolling, pace.drain_seconds), (ground.servers.rolling_gateway, 2.0))
    async for number in pauses:
        server, patience_seconds = turns[(number - 1) % len(turns)]
        try:
            await server.restart(patience_seconds)
        except ServerFailed as error:
            ground.tally.fail(str(error))
            return
        ground.tally.runs[f"{server.name} restarted"] += 1


async def _until(ground: Ground, what: str, letter: str | None) -> None:
    """Ask the service that stays until it serves a version, or tells of a broken file."""
    try:
        async with asyncio.timeout(SEEN_SECONDS):
            while not await _is_seen(ground, letter):  # noqa: ASYNC110 - a process is asked, which tells nobody
                await asyncio.sleep(LOOKING_SECONDS)
    except TimeoutError:
        ground.tally.fail(f"changing: {SEEN_SECONDS} s later it is not so that {what}")


async def _is_seen(ground: Ground, letter: str | None) -> bool:
    try:
        listed = await ground.steady.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=ground.metadata)
    except grpc.aio.AioRpcError as error:
        ground.tally.fail(f"ListPipelines: {error.code().name} {error.details()}")
        return True
    pipeline = next(one for one in listed.pipelines if one.name == "changing")
    if not pipeline.ready:
        ground.tally.fail("changing: no version is served")
    if letter is None:
        return bool(pipeline.error)
    return not pipeline.error and pipeline.description == f"Version {letter}."


def _write(ground: Ground, text: str) -> None:
    """Write a version in one of the two ways that are usual: in place, or beside and then renamed."""
    path = _file(ground.servers.pipelines)
    if ground.random.random() < 0.5:  # noqa: PLR2004 - a coin
        path.write_text(text, encoding="utf-8")
    else:
        beside = ground.servers.folder / "changing.new"
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)


def _file(pipelines: Path) -> Path:
    return pipelines / "changing.py"
