"""A pipeline's file: found in the folder, imported, and built."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from haystack import Pipeline
from haystack.components.agents import Agent

from haystream_service.errors import PipelineFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from haystack.utils import Secret


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """`name.py` with `build(api_key: Secret | None = None)`, whose docstring's first line describes the pipeline."""

    name: str
    path: Path

    def load(self) -> Builder:
        """Import the file. Raises PipelineFileError, or whatever the file's own code raises."""
        module_name = f"haystream_pipelines.{self.name}"
        spec = importlib.util.spec_from_file_location(module_name, self.path)
        if spec is None or spec.loader is None:
            raise PipelineFileError("this is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses and pickles of the file look themselves up there
        with _surviving_exits():
            spec.loader.exec_module(module)
        build = getattr(module, "build", None)
        if not callable(build):
            raise PipelineFileError("the file has no function `build`: add `def build(api_key=None)`")
        return Builder(build, inspect.getdoc(module) or "")


@dataclass(frozen=True, slots=True)
class Builder:
    """What a pipeline's file offers."""

    build_function: Callable[..., Any]
    documentation: str

    @property
    def description(self) -> str:
        """The first line of the file's docstring."""
        return self.documentation.partition("\n")[0]

    @property
    def takes_api_key(self) -> bool:
        """Whether callers may bring a provider's key of their own."""
        return "api_key" in inspect.signature(self.build_function).parameters

    def build(self, api_key: Secret | None = None) -> Pipeline:
        """Build a pipeline, cold. Raises PipelineFileError, or whatever the file's own code raises."""
        with _surviving_exits():
            pipeline = self.build_function(api_key) if api_key is not None else self.build_function()
        if isinstance(pipeline, Agent):
            return _pipeline_of(pipeline)
        if not isinstance(pipeline, Pipeline):
            name = type(pipeline).__name__
            raise PipelineFileError(f"`build` returned a {name}; return a haystack.Pipeline or an Agent")
        return pipeline


def _pipeline_of(agent: Agent) -> Pipeline:
    """Return a pipeline whose one component is named `agent`."""
    pipeline = Pipeline()
    pipeline.add_component("agent", agent)
    return pipeline


@contextmanager
def _surviving_exits() -> Generator[None]:
    """Keep a file that calls `sys.exit` from ending the service."""
    try:
        yield
    except SystemExit:
        raise PipelineFileError("the file calls `sys.exit`: raise an exception instead") from None


def pipeline_files(folder: Path) -> list[PipelineFile]:
    """Return the pipelines of a folder by name. Names with a leading underscore or dot are not pipelines."""
    return [
        PipelineFile(path.stem, path)
        for path in sorted(folder.glob("*.py"))
        if path.is_file() and not path.name.startswith(("_", "."))
    ]
