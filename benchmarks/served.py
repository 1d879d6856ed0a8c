"""The pipelines that every contestant runs: loaded from their folder, and asked in the same way."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from haystack.dataclasses import ChatMessage

from benchmarks.process import PIPELINES

if TYPE_CHECKING:
    from haystack import Pipeline

NAMES = sorted(path.stem for path in PIPELINES.glob("*.py"))


def warmed_pipelines() -> dict[str, Pipeline]:
    """Build all pipelines, as a server does when it starts."""
    pipelines: dict[str, Pipeline] = {}
    for name in NAMES:
        pipelines[name] = built(name)
        pipelines[name].warm_up()
    return pipelines


def built(name: str) -> Pipeline:
    """Build a pipeline."""
    pipeline: Pipeline = importlib.import_module(f"benchmarks.pipelines.{name}").build()
    return pipeline


def data_of(question: str) -> dict[str, dict[str, Any]]:
    """Return a question as the data of a pipeline's run."""
    return {"llm": {"messages": [ChatMessage.from_user(question)]}}
