"""Who may call, through the front door: each caller has its own runs and rights, and nobody else gets in."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from jwt.algorithms import ECAlgorithm

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_service.entrance.door import Door
from tests.calls import all_events, complaint_of, text_of
from tests.conftest import FAKES, served
from tests.encrypted import Certs, channel_to
from tests.scrape import scraped
from tests.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from structlog.typing import EventDict

    from haystream_service.errors import Refusal
    from haystream_service.identity.certificate import PeerCertificate
    from haystream_service.identity.principal import Principal
    from tests.calls import Complaint
    from tests.conftest import Served
    from tests.fakes import Stage

ISSUER = "https://issuer.example"
AUDIENCE = "haystream"


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller."""
    return (("authorization", f"Bearer {token}"),)


def hashed(token: str) -> str:
    """Return a token as the file has it."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


BILLING, SUPPORT = bearer("hs_billing-token-0123456789"), bearer("hs_support-token-0123456789")

PRINCIPALS: dict[str, Any] = {
    "principals": {
        "billing": {"tokens": [hashed("hs_billing-token-0123456789")]},
        "support": {
            "tokens": [hashed("hs_support-token-0123456789")],
            "pipelines": ["fake", "gone"],
            "max_runs": 1,
            "own_api_key": False,
        },
    }
}


async def refused(call: grpc.aio.UnaryStreamCall[Any, Any] | grpc.aio.UnaryUnaryCall[Any, Any]) -> Complaint:
    """Return how a call is refused. Nothing comes before that: clients may send it again elsewhere."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            await call
        else:
            await all_events(call)
    assert not await call.initial_metadata()
    return complaint_of(caught.value)


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    """Who may call."""
    path = tmp_path / "tokens.yaml"
    path.write_text(yaml.safe_dump(PRINCIPALS))
    return path


@pytest.fixture
async def guarded(stage: Stage, tokens_file: Path) -> AsyncIterator[Served]:
    """A service that asks for tokens."""
    async with served(default_pipeline="fake", tokens_file=tokens_file) as running:
        yield running
    stage.proceed.set()


async def test_who_has_a_token_gets_an_answer(guarded: Served, stage: Stage) -> None:
    """As anybody does where nobody is asked."""
    stage.proceed.set()
    stage.chunks = 2
    events = await all_events(guarded.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=BILLING))
    assert text_of(events) == "word word "


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "CREDENTIALS_MISSING"),
        (bearer("hs_nobody"), "TOKEN_INVALID"),
        (bearer(""), "TOKEN_INVALID"),
        ((("authorization", "Basic YTpi"),), "TOKEN_INVALID"),
        ((*BILLING, *BILLING), "TOKEN_INVALID"),
        (bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."), "TOKEN_INVALID"),
    ],
)
async def test_nobody_else_reaches_any_rpc(guarded: Served, metadata: tuple[tuple[str, str], ...], reason: str) -> None:
    """Each says why, in words that do not repeat what was sent."""
    stub = guarded.stub
    calls: list[grpc.aio.UnaryStreamCall[Any, Any] | grpc.aio.UnaryUnaryCall[Any, Any]] = [
        stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=metadata),
        stub.Resume(chat_pb2.ResumeRequest(run_id="r"), metadata=metadata),
        stub.Cancel(chat_pb2.CancelRequest(run_id="r"), metadata=metadata),
        stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=metadata),
        stub.GetPipeline(chat_pb2.GetPipelineRequest(), metadata=metadata),
    ]
    for call in calls:
        complaint = await refused(call)
        assert (complaint.code, complaint.reason) == ("UNAUTHENTICATED", reason)
        assert "hs_nobody" not in complaint.message
    assert len(guarded.runs) == 0


async def test_a_stranger_is_refused_before_its_request_is_read(guarded: Served) -> None:
    """Nobody has to hold 16 MiB for somebody who may not call: here the request never comes."""
    channel: Any = guarded.channel  # half typed
    call = channel.stream_stream("/haystream.v1.ChatService/Chat")()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert complaint_of(caught.value).reason == "CREDENTIALS_MISSING"


async def test_health_and_reflection_answer_everybody(guarded: Served) -> None:
    """Whoever watches over the service has no token."""
    health = health_pb2_grpc.HealthStub(guarded.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service="haystream.v1.ChatService"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)  # type: ignore[arg-type]  # or aio's
    call = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    (names,) = [response.list_services_response.service async for response in call]
    assert "haystream.v1.ChatService" in {service.name for service in names}


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


async def refused_later(call: grpc.aio.UnaryStreamCall[Any, Any]) -> Complaint:
    """Return how a stream that has begun ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_events(call)
    return complaint_of(caught.value)


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


async def test_a_token_that_is_taken_out_stops_working_and_a_new_one_works(
    guarded: Served, stage: Stage, tokens_file: Path
) -> None:
    """Without a restart, and without a word to the streams that go on."""
    stage.chunks = 1
    going_on = guarded.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=BILLING)
    await anext(aiter(going_on))
    newer = {"principals": {"billing": {"tokens": [hashed("hs_new-token")]}}}
    await asyncio.to_thread(tokens_file.write_text, yaml.safe_dump(newer))
    async with asyncio.timeout(10):
        while await is_let_in(guarded, BILLING):
            pass
    assert await is_let_in(guarded, bearer("hs_new-token"))
    stage.proceed.set()
    assert (await all_events(going_on))[-1].HasField("finished")


async def is_let_in(running: Served, metadata: tuple[tuple[str, str], ...]) -> bool:
    """Tell whether a caller is let in."""
    call = running.stub.ListPipelines(chat_pb2.ListPipelinesRequest(), metadata=metadata)
    code = await call.code()
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED}
    return code is grpc.StatusCode.OK


@dataclass(frozen=True, slots=True)
class Issuer:
    """Somebody who signs tokens; `settings` make a service believe it."""

    key: ec.EllipticCurvePrivateKey
    settings: dict[str, Any]

    def token(self, **claims: Any) -> str:
        """Sign a token that is right but for what is said."""
        now = dt.datetime.now(dt.UTC)
        right: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": now + dt.timedelta(minutes=5),
        }
        return jwt.encode({**right, **claims}, self.key, algorithm="ES256", headers={"kid": "k"})


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """An issuer whose keys are in a file."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = {**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": "k", "alg": "ES256", "use": "sig"}
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [public]}))
    return Issuer(key, {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": str(path)})


async def test_a_json_web_token_says_who_calls(stage: Stage, issuer: Issuer) -> None:
    """Its subject has the runs."""
    stage.chunks = 1
    async with served(default_pipeline="fake", **issuer.settings) as running:
        call = running.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=bearer(issuer.token()))
        await anext(aiter(call))
        assert [run.record.principal for run in running.runs] == ["jwt:alice"]
        stage.proceed.set()
        assert (await all_events(call))[-1].HasField("finished")


WRONG_TOKENS: dict[str, tuple[Callable[[Issuer], str], str]] = {
    "expired": (lambda issuer: issuer.token(exp=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)), "TOKEN_EXPIRED"),
    "for another audience": (lambda issuer: issuer.token(aud="billing"), "TOKEN_INVALID"),
    "from another issuer": (lambda issuer: issuer.token(iss="https://other.example"), "TOKEN_INVALID"),
    "of nobody": (lambda issuer: issuer.token(sub=""), "TOKEN_INVALID"),
    "not signed": (
        lambda issuer: jwt.encode(jwt.decode(issuer.token(), options={"verify_signature": False}), "", "none"),
        "TOKEN_INVALID",
    ),
    "signed by another": (
        lambda issuer: Issuer(ec.generate_private_key(ec.SECP256R1()), issuer.settings).token(),
        "TOKEN_INVALID",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_TOKENS)
async def test_a_json_web_token_that_is_not_right_lets_nobody_in(issuer: Issuer, wrong: str) -> None:
    """Whoever's it is."""
    token_of, reason = WRONG_TOKENS[wrong]
    async with served(FAKES, warm=False, **issuer.settings) as running:
        token = token_of(issuer)
        complaint = await refused(running.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=bearer(token)))
    assert (complaint.code, complaint.reason) == ("UNAUTHENTICATED", reason)
    assert token not in complaint.message


async def test_a_certificate_says_who_calls_and_a_token_beside_it_counts_for_more(stage: Stage, tmp_path: Path) -> None:
    """As with a gateway, which shows its own certificate and passes its callers' tokens on. A wrong one is refused."""
    certs = Certs(tmp_path)
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text(yaml.safe_dump(PRINCIPALS))
    gateway = certs.authority.caller("gateway", spiffe_id="spiffe://haystream.local/gateway")
    nobody = certs.authority.caller("nobody")
    stage.chunks = 1
    async with served(default_pipeline="fake", tokens_file=tokens, **certs.mutual) as running:
        async with channel_to(running.service.port, certs.authority.certificate, gateway) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            own, passed_on = (
                stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=metadata) for metadata in ((), BILLING)
            )
            await anext(aiter(own))
            await anext(aiter(passed_on))
            principals = {run.record.principal for run in running.runs}
            assert principals == {"spiffe://haystream.local/gateway", "billing"}
            complaint = await refused(stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=bearer("hs_nobody")))
            assert complaint.reason == "TOKEN_INVALID"
            stage.proceed.set()
            for call in (own, passed_on):
                assert (await all_events(call))[-1].HasField("finished")
        async with channel_to(running.service.port, certs.authority.certificate, nobody) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            complaint = await refused(stub.Cancel(chat_pb2.CancelRequest(run_id="r")))
    assert (complaint.code, complaint.reason) == ("UNAUTHENTICATED", "CERTIFICATE_INVALID")


async def test_who_is_not_let_in_is_counted_and_told_of(tokens_file: Path, lines: list[EventDict]) -> None:
    """As the call that it was, with a reason and an id, and without what was sent."""
    async with served(warm=False, metrics_listen="127.0.0.1:0", tokens_file=tokens_file) as running:
        metadata = (*bearer("hs_nobody"), ("x-request-id", "mine"))
        await refused(running.stub.Chat(chat_pb2.ChatRequest(query="q"), metadata=metadata))
        scrape = await scraped(running.service)
    method = {"grpc_service": "haystream.v1.ChatService", "grpc_method": "Chat", "grpc_type": "server_stream"}
    assert scrape.value("grpc_server_handled_total", grpc_code="Unauthenticated", **method) == 1
    assert scrape.value("haystream_refusals_total", reason="TOKEN_INVALID") == 1
    (line,) = (line for line in lines if line["event"] == "refused")
    known = {"request_id": "mine", "peer": "127.0.0.1", "method": line["method"]}
    assert line == {"event": "refused", "log_level": "info", "reason": "TOKEN_INVALID", **known}
    assert "hs_nobody" not in f"{lines}{scrape.text}"


class Hearing:
    """Hears of refusals and defects."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.defects: list[BaseException] = []

    def refused(self, refusal: Refusal, _request_id: str, /) -> None:
        self.refusals.append(refusal)

    def defect(self, error: BaseException, _request_id: str, /) -> None:
        self.defects.append(error)


class Broken:
    """Does not tell who calls, but fails."""

    async def principal_of(self, authorization: Sequence[str], certificate: PeerCertificate | None) -> Principal:
        raise RuntimeError("swordfish")


async def test_a_door_that_is_broken_lets_nobody_in() -> None:
    """And does not tell its story."""
    observer = Hearing()
    server = grpc.aio.server(interceptors=[Door("haystream.v1.ChatService", Broken(), observer)])  # pyright: ignore[reportUnknownMemberType]  # half typed in its stubs
    chat_pb2_grpc.add_ChatServiceServicer_to_server(Scripted(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        complaint = await refused(chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="q")))
    await server.stop(None)
    assert (complaint.code, complaint.reason) == ("INTERNAL", "INTERNAL")
    assert "swordfish" not in complaint.message
    assert [str(error) for error in observer.defects] == ["swordfish"]
