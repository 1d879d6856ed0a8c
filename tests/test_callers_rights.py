"""What callers may, through the front door: each has its own runs, pipelines and quotas, and nobody else's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import yaml

from haystream.v1 import chat_pb2
from tests.calls import all_events
from tests.conftest import served
from tests.principals import BILLING, PRINCIPALS, SUPPORT, bearer, hashed, refused, refused_later
from tests.principals import guarded as guarded  # noqa: PLC0414 - a fixture
from tests.principals import tokens_file as tokens_file  # noqa: PLC0414 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

    import grpc.aio

    from tests.conftest import Served
    from tests.fakes import Stage


async def test_a_run_is_its_callers_alone(guarded: Served, stage: Stage) -> None:
    """Nobody else can read it, stop it, or learn that it is there. The same id is free to others."""
    stage.chunks = 1
    request = chat_pb2.ChatRequest(query="q", run_id="mine")
    mine = guarded.stub.Chat(request, metadata=BILLING)
    await anext(aiter(mine))
    for call in (
        guarded.stub.Resume(chat_pb2.ResumeRequest(run_id="mine"), metadata=SUPPORT),
        guarded.stub.Cancel(chat_pb2.CancelRequest(run_id="mine"), metadata=SUPPORT),
        guarded.stub.Resume(chat_pb2.ResumeRequest(run_id="no-such-run"), metadata=SUPPORT),
    ):
        assert (await refused(call)).reason == "RUN_NOT_FOUND"
    theirs = guarded.stub.Chat(request, metadata=SUPPORT)
    await anext(aiter(theirs))
    assert {run.record.key for run in guarded.runs} == {("billing", "mine"), ("support", "mine")}
    await guarded.stub.Cancel(chat_pb2.CancelRequest(run_id="mine"), metadata=SUPPORT)
    assert (await refused_later(theirs)).reason == "RUN_CANCELLED"
    stage.proceed.set()
    assert (await all_events(mine))[-1].HasField("finished")
    again = await all_events(guarded.stub.Resume(chat_pb2.ResumeRequest(run_id="mine"), metadata=BILLING))
    assert again[-1].HasField("finished")


async def test_a_caller_sees_and_calls_its_own_pipelines_alone(guarded: Served, stage: Stage) -> None:
    """Of the others it does not learn whether they are there."""
    stub = guarded.stub
    listed = await stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=SUPPORT)
    assert [pipeline.name for pipeline in listed.pipelines] == ["fake"]
    everything = await stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=BILLING)
    assert len(everything.pipelines) > 1
    for name in ("threaded", "no-such-pipeline"):
        for call in (
            stub.Chat(chat_pb2.ChatRequest(query="q", pipeline=name), metadata=SUPPORT),
            stub.GetPipeline(chat_pb2.GetPipelineRequest(name=name), metadata=SUPPORT),
        ):
            complaint = await refused(call)
            assert (complaint.code, complaint.reason) == ("PERMISSION_DENIED", "PIPELINE_FORBIDDEN")
    missing = await refused(stub.GetPipeline(chat_pb2.GetPipelineRequest(name="gone"), metadata=SUPPORT))
    assert missing.reason == "PIPELINE_NOT_FOUND"
    assert "threaded" not in missing.message


async def test_a_default_that_a_caller_may_not_call_is_none(stage: Stage, tokens_file: Path) -> None:
    """It is told what it may name."""
    async with served(default_pipeline="threaded", tokens_file=tokens_file) as running:
        listed = await running.stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=SUPPORT)
        assert listed.default_pipeline == ""
        complaint = await refused(running.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=SUPPORT))
    assert complaint.fields == {"pipeline": "there is no default; name one of fake"}


async def test_who_may_call_nothing_is_told_so(stage: Stage, tokens_file: Path) -> None:
    """A list of names without any would help nobody."""
    nothing = {"tokens": [hashed("hs_new-token")], "pipelines": []}
    await asyncio.to_thread(tokens_file.write_text, yaml.safe_dump({"principals": {"nobody": nothing}}))
    async with served(tokens_file=tokens_file) as running:
        complaint = await refused(running.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=bearer("hs_new-token")))
    assert complaint.fields == {"pipeline": "there is no default, and no pipeline that you may call"}


async def test_a_right_that_was_taken_away_reaches_the_runs_that_go_on(
    guarded: Served, stage: Stage, tokens_file: Path
) -> None:
    """They can no longer be read, at work or ended, by neither way; stopping them is still allowed."""
    stage.chunks = 1
    request = chat_pb2.ChatRequest(query="q", run_id="r", on_disconnect=chat_pb2.ON_DISCONNECT_CONTINUE)
    call = guarded.stub.Chat(request, metadata=BILLING)
    await anext(aiter(call))
    less = {"principals": {"billing": {**PRINCIPALS["principals"]["billing"], "pipelines": ["threaded"]}}}
    await asyncio.to_thread(tokens_file.write_text, yaml.safe_dump(less))
    await guarded.service.authenticator.look_again()
    await reads_nothing(guarded, request)
    await guarded.stub.Cancel(chat_pb2.CancelRequest(run_id="r"), metadata=BILLING)
    assert (await refused_later(call)).reason == "RUN_CANCELLED"
    await guarded.runs.until_idle()
    await reads_nothing(guarded, request)


async def reads_nothing(running: Served, request: chat_pb2.ChatRequest) -> None:
    """Assert that a run's caller may not read it: neither by its id, nor by asking the same again, nor other things."""
    other = chat_pb2.ChatRequest(query="else", run_id=request.run_id)
    resume = chat_pb2.ResumeRequest(run_id=request.run_id)
    for call in (
        running.stub.Resume(resume, metadata=BILLING),
        running.stub.Chat(request, metadata=BILLING),
        running.stub.Chat(other, metadata=BILLING),
    ):
        complaint = await refused(call)
        assert (complaint.code, complaint.reason) == ("PERMISSION_DENIED", "PIPELINE_FORBIDDEN")


async def test_a_callers_own_key_is_a_right(guarded: Served) -> None:
    """Who does not have it is told so, and nothing is built."""
    complaint = await refused(guarded.stub.Chat(chat_pb2.ChatRequest(query="q", api_key="sk-mine"), metadata=SUPPORT))
    assert (complaint.code, complaint.reason) == ("PERMISSION_DENIED", "API_KEY_FORBIDDEN")
    allowed = await refused(guarded.stub.Chat(chat_pb2.ChatRequest(query="q", api_key="sk-mine"), metadata=BILLING))
    assert allowed.fields == {"api_key": "pipeline 'fake' does not take a provider's key"}


async def test_a_callers_runs_at_once_are_counted_apart(guarded: Served, stage: Stage) -> None:
    """One that has all it may have takes nothing from the others."""
    stage.chunks = 1
    first = guarded.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=SUPPORT)
    await anext(aiter(first))
    complaint = await refused(guarded.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=SUPPORT))
    assert (complaint.code, complaint.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_RUNS_OF_YOURS")
    assert complaint.retry_seconds
    other = guarded.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=BILLING)
    await anext(aiter(other))
    stage.proceed.set()
    assert (await all_events(first))[-1].HasField("finished")
    assert (await all_events(other))[-1].HasField("finished")
    await guarded.runs.until_idle()
    again = await all_events(guarded.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=SUPPORT))
    assert again[-1].HasField("finished")


async def test_a_callers_readers_are_counted_apart(stage: Stage, tokens_file: Path) -> None:
    """Whoever comes back again and again, to one run, takes nothing from the others; nor does who may have any runs."""
    stage.chunks = 1
    async with served(default_pipeline="fake", tokens_file=tokens_file, max_readers=14) as running:
        request = chat_pb2.ChatRequest(query="q", run_id="r")
        readers: list[grpc.aio.UnaryStreamCall[Any, Any]] = []
        for metadata, limit in ((SUPPORT, 4), (BILLING, 7)):
            own: list[grpc.aio.UnaryStreamCall[Any, Any]] = [running.stub.Chat(request, metadata=metadata)]
            await anext(aiter(own[0]))
            again = chat_pb2.ResumeRequest(run_id="r")
            own += [running.stub.Resume(again, metadata=metadata) for _ in range(limit - 1)]
            for reader in own[1:]:
                await anext(aiter(reader))
            attaching = running.stub.Chat(request, metadata=metadata)
            for call in (attaching, running.stub.Resume(again, metadata=metadata)):
                complaint = await refused(call)
                assert (complaint.code, complaint.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_READERS_OF_YOURS")
                assert complaint.retry_seconds == 1
                assert f"you have {limit} readers" in complaint.message
            readers += own
        stage.proceed.set()
        for reader in readers:
            assert (await all_events(reader))[-1].HasField("finished")
        last = running.stub.Resume(chat_pb2.ResumeRequest(run_id="r"), metadata=SUPPORT)
        assert (await all_events(last))[-1].HasField("finished")
