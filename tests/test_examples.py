"""The examples for operators ask for what there is: every metric and every word of a label in them is the service's."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from haystream.v1 import chat_pb2
from haystream_service.telemetry.gauges import Gauges, Holdings
from haystream_service.telemetry.rpc_metrics import code_word
from haystream_service.telemetry.words import every_ending
from tests.calls import all_events
from tests.conftest import ROOT, served
from tests.scrape import measured, scraped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes import Stage

DASHBOARD = ROOT / "examples" / "grafana" / "haystream.json"
ALERTS = ROOT / "examples" / "prometheus" / "alerts.yaml"

METRIC = re.compile(r"\b(?:haystream|grpc_server|process|python)_\w+")
WORDS = re.compile(r'\b(ending|reason|grpc_code|grpc_type|kind)=~?"([^"]*)"')
COUNTED = re.compile(r"\s*sum by \([a-z, ]+\) \(increase\((\w+)(?:{(.*)})?\[15m\]\)\) > 0\s*")
EVERYWHERE = {"up"}  # what Prometheus itself says of each target


def alerts() -> list[dict[str, Any]]:
    """Return the rules."""
    document = yaml.safe_load(ALERTS.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard that show something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Return what the examples ask Prometheus for."""
    for rule in alerts():
        yield rule["expr"]
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        yield variable.get("definition", "")


async def test_every_metric_in_the_examples_is_one_of_the_services(stage: Stage) -> None:
    """In a real scrape; the certificate's is there once there is one."""
    stage.proceed.set()
    async with served(default_pipeline="fake", metrics_listen="127.0.0.1:0") as running:
        await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest()))
        scrape = await scraped(running.service)
        service = running.service
        holdings = Holdings(service.runs, service.store, service.threads, service.registry, 1, 1)
        registry = CollectorRegistry()
        registry.register(Gauges(replace(holdings, certificate_expiry=lambda: 4e9, client_ca_expiry=lambda: 5e9)))
        encrypted = generate_latest(registry).decode()
    there = {name for name, _ in scrape.samples} | set(METRIC.findall(encrypted))
    asked = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert len(asked) > 30
    assert asked <= there
    assert "haystream_tls_certificate_expiry_timestamp_seconds 4e+09" in encrypted
    assert "haystream_tls_client_ca_expiry_timestamp_seconds 5e+09" in encrypted


def test_every_word_of_a_label_in_the_examples_is_one_that_there_is() -> None:
    """An alert on a word that nobody says never comes."""
    known = {
        "ending": every_ending(),
        "reason": ("TOO_MANY_RUNS", "TOO_MANY_RUNS_OF_YOURS"),
        "grpc_code": tuple(map(code_word, grpc.StatusCode)),
        "grpc_type": ("unary", "server_stream"),
        "kind": ("async", "thread", "prompt", "completion"),
    }
    found = [match for expression in expressions() for match in WORDS.findall(expression)]
    assert found
    for label, pattern in found:
        for part in pattern.split("|"):
            assert any(re.fullmatch(part, word) for word in known[label]), part


async def test_a_component_that_fails_is_no_defect_however_many_read_of_it(stage: Stage) -> None:
    """All of them end with INTERNAL, as gRPC calls it, and nobody is called out of bed for a defect."""
    stage.chunks, stage.error = 1, ValueError()
    request = chat_pb2.ChatRequest(query="q", run_id="r")
    async with measured() as running:
        stub = running.stub
        calls: list[Any] = [stub.Chat(request)]
        await anext(aiter(calls[0]))
        calls += [stub.Chat(request), stub.Resume(chat_pb2.ResumeRequest(run_id="r"))]
        for call in calls[1:]:
            await anext(aiter(call))
        stage.proceed.set()
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError):
                await all_events(call)
        scrape = await scraped(running.service)
    assert scrape.total("grpc_server_handled_total", grpc_code="Internal") == len(calls)
    assert scrape.total("haystream_runs_total", ending="COMPONENT_FAILED") == 1
    assert [scrape.total(name, **labels) for name, labels in what_makes_a_defect()] == [0, 0]


async def test_a_defect_outside_of_runs_is_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in no run's ending."""
    stage.proceed.set()

    def fail(*_: object) -> None:
        raise ValueError

    async with measured() as running:
        monkeypatch.setattr(running.service.registry, "job", fail)
        with pytest.raises(grpc.aio.AioRpcError):
            await all_events(running.stub.Chat(chat_pb2.ChatRequest(query="q")))
        scrape = await scraped(running.service)
    assert [scrape.total(name, **labels) for name, labels in what_makes_a_defect()] == [0, 1]


def what_makes_a_defect() -> list[tuple[str, dict[str, str]]]:
    """Return the counters, with their labels, that the alert on defects adds up: it comes with any of them."""
    [expression] = [rule["expr"] for rule in alerts() if rule["alert"] == "HaystreamDefect"]
    counters = [re.fullmatch(COUNTED, part) for part in expression.split("or")]
    return [(match[1], dict(re.findall(r'(\w+)="(\w+)"', match[2] or ""))) for match in counters if match]


def test_every_expression_is_whole() -> None:
    """Brackets close, and nothing is empty."""
    for expression in filter(None, expressions()):
        without = re.sub(r'"[^"]*"', "", expression)
        for opened, closed in ("()", "[]", "{}"):
            assert without.count(opened) == without.count(closed), expression
    assert all(target["expr"] for panel in panels() for target in panel["targets"])


def test_every_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    """By name, severity and a summary."""
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    assert all(rule["labels"]["severity"] in {"warning", "critical"} for rule in alerts())
    assert all(rule["annotations"]["summary"] for rule in alerts())


def test_the_panels_have_places_of_their_own() -> None:
    """None lies upon another."""
    document = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
