"""The page for operators names all that there is to set, to see and to do, and nothing that there is not."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import structlog
import yaml

from haystream.v1 import chat_pb2, chat_pb2_grpc
from haystream_gateway.app import HTTP_ERRORS
from haystream_gateway.problems import Problem
from haystream_gateway.settings import Settings as GatewaySettings
from haystream_service.identity.principal import Rights
from haystream_service.identity.tokens_format import callers_of
from haystream_service.run.ending import Failed, Failure, FailureKind
from haystream_service.run.events import FinishReason
from haystream_service.settings import Settings as ServiceSettings
from haystream_service.status import status_of_ending
from haystream_service.telemetry.words import every_ending, every_refusal
from tests.calls import all_events
from tests.conftest import ROOT, browsed, served
from tests.encrypted import Certs, channel_to
from tests.scrape import scraped
from tests.test_rolling_restart import OPTIONS as PROVEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_settings import BaseSettings

    from tests.fakes import Stage

PAGE = ROOT / "docs" / "operating.md"
KUBERNETES = ROOT / "examples" / "kubernetes" / "haystream.yaml"

FINISHED, FAILED, REFUSED, OF_GATEWAY = (
    "### A run that finished",
    "### A run that did not",
    "### Refused before it began",
    "### The gateway's own",
)
CODES = {code.name for code in grpc.StatusCode}
OF_OTHERS = {  # what else is written in capitals
    "SERVING",
    "NOT_SERVING",
    "KEY",
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "HASH",
    "HAYSTACK_CONTENT_TRACING_ENABLED",
    "GRPC_VERBOSITY",
}


def section(heading: str) -> str:
    """Return a part of the page, up to the next heading of its rank."""
    rank = heading.partition(" ")[0]
    _, _, rest = PAGE.read_text().partition(f"\n{heading}\n")
    assert rest, heading
    return re.split(rf"^#{{2,{len(rank)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(heading: str) -> list[list[str]]:
    """Return the cells of a part's tables, of rows that begin with a name."""
    lines = [line for line in section(heading).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def name_in(cell: str) -> str:
    """Return a name without what marks it."""
    return cell.strip("` ")


def words_in(text: str) -> set[str]:
    """Return all that is marked as a name, outside of blocks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`\n]+)`", text))


def blocks(language: str) -> list[str]:
    """Return the page's blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def shown(value: object) -> str:
    """Return a default as the page has it."""
    if value in {None, ""}:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def defaults(settings: type[BaseSettings]) -> dict[str, str]:
    """Return all settings by their variables."""
    return {f"HAYSTREAM_{name.upper()}": shown(field.default) for name, field in settings.model_fields.items()}


def test_every_setting_is_there_with_its_default() -> None:
    """Those of the service and of the gateway, each once, in the tables; and no other."""
    found = [(name_in(name), default) for name, default, *_ in rows("## Settings")]
    assert dict(found) == defaults(ServiceSettings) | defaults(GatewaySettings)
    assert len(found) == len(dict(found))


def test_what_both_have_is_the_same_to_both() -> None:
    """One variable sets it: what the service starts with does not stop the gateway."""
    service, gateway = ServiceSettings.model_fields, GatewaySettings.model_fields
    shared = service.keys() & gateway.keys()
    assert shared == {"slow_reader_seconds", "log_format", "log_level"}
    for name in shared:
        for part in ("annotation", "metadata", "default"):
            assert getattr(service[name], part) == getattr(gateway[name], part), name


def test_no_setting_is_named_that_there_is_not() -> None:
    """Neither anywhere in the text, nor in the README, nor short in the table of limits."""
    known = {*defaults(ServiceSettings), *defaults(GatewaySettings)}
    for page in (PAGE, ROOT / "README.md", ROOT / "ARCHITECTURE.md"):
        named = set(re.findall(r"HAYSTREAM_[A-Z][A-Z_]*[A-Z]", page.read_text()))
        assert named <= known, page
    short = {word for word in words_in(section("## Limits")) if word.isupper()} - {"HAYSTREAM_"}
    assert {word for word in short if f"HAYSTREAM_{word}" not in known} <= reasons()


async def test_every_metric_of_a_scrape_is_there(stage: Stage, tmp_path: Path) -> None:
    """With its type and its labels, the service's and the gateway's; and no other, anywhere on the page."""
    stage.proceed.set()
    certs = Certs(tmp_path)
    async with served(default_pipeline="fake", metrics_listen="127.0.0.1:0", **certs.mutual) as running:
        roots, caller = certs.authority.certificate, certs.authority.caller("billing", dns=["billing.example"])
        async with channel_to(running.service.port, roots, caller) as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            await all_events(stub.Chat(chat_pb2.ChatRequest(query="q")))
            with pytest.raises(grpc.aio.AioRpcError):
                await all_events(stub.Chat(chat_pb2.ChatRequest()))
        there = families((await scraped(running.service)).text)
    async with served(default_pipeline="fake") as running, browsed(running.address) as browser:
        await browser.http.post("/chat", json={"query": "q"})
        there |= families((await browser.http.get("/metrics")).text)
    found = {name_in(name): (kind, words_in(labels)) for name, kind, labels, *_ in rows("### Metrics")}
    assert found == there
    named = {word for word in words_in(PAGE.read_text()) if re.match(r"(haystream|grpc_server|process|python)_", word)}
    assert named <= there.keys()


def families(text: str) -> dict[str, tuple[str, set[str]]]:
    """Return the metrics of a scrape by name: type and labels. When a counter began is not one of its own."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    found: dict[str, tuple[str, set[str]]] = {}
    for name, kind in kinds.items():
        if name.endswith("_created"):
            continue
        samples = re.findall(rf"^{name}(?:_count)?(?:{{(.*)}})? ", text, re.MULTILINE)
        assert samples, name
        found[name] = kind, set(re.findall(r'(\w+)="', samples[0]))
    return found


def test_every_ending_is_there() -> None:
    """All words that a run's ending can have, with their codes where they are errors; and no other."""
    finished = {name_in(row[0]) for row in rows(FINISHED)}
    assert finished == {reason.name for reason in FinishReason}
    failed = {name_in(row[0]): row[1] for row in rows(FAILED)}
    assert finished | failed.keys() == set(every_ending())
    told = calls_of("Status", ROOT / "service")
    kinds = [status_of_ending(Failed(Failure(kind))) for kind in FailureKind]
    codes = {status.reason: status.code.name for status in kinds if status is not None}
    assert failed == {name: codes.get(name) or told[name] for name in failed}


def test_every_reason_of_a_refusal_is_there() -> None:
    """All that the table of statuses can give, with their codes; and no other."""
    found = {name_in(row[0]): row[1] for row in rows(REFUSED)}
    told = calls_of("Status", ROOT / "service")
    of_callers = dict.fromkeys(calls_of("NotAuthenticated", ROOT / "service"), "UNAUTHENTICATED")
    endings = set(every_ending()) - {"DRAINING"}  # which is both
    assert found == {name: code for name, code in told.items() if name not in endings} | of_callers
    assert found.keys() == set(every_refusal())  # those that the metrics begin with


def test_every_reason_of_the_gateway_is_there() -> None:
    """All that it says by itself, with code and status; and no other."""
    found = {name_in(reason): (code, status) for reason, code, status, *_ in rows(OF_GATEWAY)}
    told = calls_of("Problem", ROOT / "gateway")
    told |= {reason: code.name for code, reason, _ in HTTP_ERRORS.values()} | {"HTTP_ERROR": "UNKNOWN"}
    assert {name: code for name, (code, _) in found.items()} == told
    own = {reason: str(status) for status, (_, reason, _) in HTTP_ERRORS.items()}
    for name, (code, status) in found.items():
        if status != "any":
            of_code = Problem(grpc.StatusCode[code], name, "").http_status
            assert status == own.get(name, str(own_statuses().get(name, of_code))), name


async def test_every_example_of_the_openapi_document_is_a_refusal_that_there_is() -> None:
    """Its reason is in the tables, whichever dialect has it."""
    async with browsed("127.0.0.1:1") as browser:
        document = (await browser.http.get("/openapi.json")).json()
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    contents = [
        content
        for operation in operations
        for response in operation["responses"].values()
        for content in response.get("content", {}).values()
    ]
    examples = [content["example"] for content in contents if isinstance(content.get("example"), dict)]
    own = {example["reason"] for example in examples if "reason" in example}
    of_openai = {example["error"]["code"].upper() for example in examples if "error" in example}
    assert own <= reasons()
    assert of_openai <= reasons() | {"MODEL_NOT_FOUND"}
    assert min(len(own), len(of_openai)) > 8


def test_what_is_worth_another_try_is_marked() -> None:
    """Exactly where RetryInfo comes along."""
    service = with_delay("Status", ROOT / "service") | {"PROVIDER_BUSY", "PROVIDER_UNAVAILABLE"}
    for heading, worth in (
        (FAILED, service),
        (REFUSED, service),
        (OF_GATEWAY, with_delay("Problem", ROOT / "gateway")),
    ):
        caller = 3 if heading == OF_GATEWAY else 2
        marked = {name_in(row[0]) for row in rows(heading) if row[caller].startswith("*")}
        assert marked == {name_in(row[0]) for row in rows(heading)} & worth


def test_nothing_in_capitals_is_invented() -> None:
    """Whatever looks like a reason is one, or a code, or a setting, or somebody else's word."""
    known = reasons() | CODES | OF_OTHERS
    known |= {name for settings in (ServiceSettings, GatewaySettings) for name in defaults(settings)}
    known |= {name.removeprefix("HAYSTREAM_") for name in known}
    words = {word for word in words_in(PAGE.read_text()) if re.fullmatch(r"[A-Z]+(_[A-Z]+)*", word)}
    assert {word for word in words if not word.startswith("OTEL_")} <= known
    assert len(words) > 60


def reasons() -> set[str]:
    """Return the words of all tables of endings."""
    return {name_in(row[0]) for heading in (FINISHED, FAILED, REFUSED, OF_GATEWAY) for row in rows(heading)} | {
        "LEFT",
        "NOTHING_MORE",
    }


def test_the_tokens_file_is_one(tmp_path: Path) -> None:
    """With a hash in the place of the word for it."""
    [text] = [block for block in blocks("yaml") if "principals" in block]
    callers = callers_of(text.replace("HASH", "0" * 64).encode(), Rights())
    assert callers.named("billing").rights == Rights(frozenset({"local", "rag"}), 10, 60, own_api_key=False)
    assert callers.named("spiffe://example.org/gateway").rights == Rights(max_runs=500)
    assert callers.named("somebody").rights == Rights(pipelines=frozenset())


def test_the_least_for_an_internal_service_is_enough() -> None:
    """All of it goes together."""
    [text] = [block for block in blocks("sh") if "HAYSTREAM_LISTEN" in block]
    found = dict(re.findall(r"^(HAYSTREAM_\w+)=(\S+)", text, re.MULTILINE))
    assert settings_of(found).has_authentication


async def test_the_channel_of_callers_takes_turns(stage: Stage) -> None:
    """As it stands: it is the one with which a rolling restart loses nothing, and gRPC takes it."""
    stage.proceed.set()
    [text] = [block for block in blocks("python") if "SERVICE_CONFIG" in block]
    names: dict[str, Any] = {}
    exec(text, names)  # noqa: S102 - what the page shows
    assert names["OPTIONS"] == PROVEN
    options = [*names["OPTIONS"], ("grpc.enable_http_proxy", 0)]
    async with (
        served(default_pipeline="fake") as running,
        grpc.aio.insecure_channel(f"dns:///{running.address}", options=options) as channel,
    ):
        await all_events(chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(query="q"), timeout=10))


async def test_the_line_of_a_run_has_the_fields_that_are_described(stage: Stage) -> None:
    """In the example, in the table, and in what is logged."""
    stage.proceed.set()
    before = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))
    with structlog.testing.capture_logs() as lines:
        async with served(default_pipeline="fake") as running:
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
    structlog.configure(wrapper_class=before)
    [line] = [line for line in lines if line["event"] == "run ended"]
    [example] = map(json.loads, blocks("json"))
    described = {word for row in rows("### Log lines") for word in words_in(row[0])}
    assert example.keys() - {"event", "level", "timestamp"} == line.keys() - {"event", "log_level"} == described


def test_every_link_leads_somewhere() -> None:
    """To a file, or to a heading of the page."""
    text = PAGE.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("#"):
            assert link[1:] in anchors
        else:
            assert (PAGE.parent / link).exists(), link


def test_the_deployment_in_kubernetes_fits_the_service() -> None:
    """Its variables are settings that go together, its probes ask where health answers, its mounts are used."""
    documents = {document["kind"]: document for document in yaml.safe_load_all(KUBERNETES.read_text())}
    assert documents.keys() == {"Deployment", "Service", "PodDisruptionBudget"}
    pod = documents["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    found = {variable["name"]: variable["value"] for variable in container["env"]}
    assert found.keys() <= defaults(ServiceSettings).keys()
    settings = settings_of(found)
    assert settings.has_authentication
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    addresses = {"grpc": settings.listen, "health": settings.health_listen, "metrics": settings.metrics_listen}
    assert {name: int(address.rpartition(":")[2]) for name, address in addresses.items()} == ports
    probes = {kind: container[kind]["grpc"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in probes.values()} == {ports["health"]}
    assert [kind for kind, probe in probes.items() if "service" in probe] == ["readinessProbe"]
    assert probes["readinessProbe"]["service"] == chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name
    assert pod["spec"]["terminationGracePeriodSeconds"] == settings.drain_seconds + 10
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {
        settings.tokens_file and settings.tokens_file.parent,
        settings.tls_cert and settings.tls_cert.parent,
    } == set(mounts.values())
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert documents[kind]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == pod["metadata"]["labels"]
    assert {port["targetPort"] for port in documents["Service"]["spec"]["ports"]} <= ports.keys()


def settings_of(variables: dict[str, str]) -> ServiceSettings:
    """Return the settings that variables make. Raises ValidationError."""
    return ServiceSettings.model_validate(
        {name.removeprefix("HAYSTREAM_").lower(): value for name, value in variables.items()}
    )


def problems_in(name: str, folder: Path) -> Iterator[ast.Call]:
    """Return the places of the code that make a status, a problem or a refusal with a reason of their own."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name and node.args:
                yield node


def reason_in(call: ast.Call) -> str:
    """Return the reason where it is written there."""
    words = [part.value for part in call.args[:2] if isinstance(part, ast.Constant)]
    return words[0] if words and isinstance(words[0], str) else ""


def calls_of(name: str, folder: Path) -> dict[str, str]:
    """Return all reasons with their codes, where these are written there as well."""
    found: dict[str, str] = {}
    for call in problems_in(name, folder):
        code = call.args[0]
        if reason := reason_in(call):
            told = code.attr if isinstance(code, ast.Attribute) else ""
            found[reason] = told or found.get(reason, "")
    return found


def with_delay(name: str, folder: Path) -> set[str]:
    """Return the reasons that come with a time to wait."""
    return {
        reason_in(call)
        for call in problems_in(name, folder)
        if len(call.args) > 3 or any(keyword.arg == "retry_seconds" for keyword in call.keywords)
    } - {""}


def own_statuses() -> dict[str, int]:
    """Return the statuses that the gateway's reasons have of their own."""
    return {
        reason_in(call): keyword.value.value
        for call in problems_in("Problem", ROOT / "gateway")
        for keyword in call.keywords
        if keyword.arg == "own_http_status"
        and isinstance(keyword.value, ast.Constant)
        and isinstance(keyword.value.value, int)
    }
