"""The one place that knows how the generations of Haystack differ. It asks what an object can do, never its version.

3.x has one `Pipeline` that does everything. 2.x has `AsyncPipeline` beside a `Pipeline` that only blocks. Before that,
haystack-experimental's `AsyncPipeline` had a `run` that is an async generator.
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
from contextlib import aclosing
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import haystack

from haystream_service.errors import ComponentFailed, PipelineFileError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    Outputs = Mapping[str, Any]
    Partials = AsyncGenerator[Mapping[str, Outputs]]

DESCRIBING_METHODS = ("inputs", "outputs")
RUN_METHODS = ("run_async_generator", "run_async", "run")


def haystack_version() -> str:
    """Return the version of Haystack that is installed."""
    return version("haystack-ai")


def pipeline_class() -> Any:
    """Return the class of pipelines that can do the most, of those that are installed."""
    if hasattr(haystack.Pipeline, "run_async_generator"):
        return haystack.Pipeline
    if (async_pipeline := getattr(haystack, "AsyncPipeline", None)) is not None:
        return async_pipeline
    try:
        return importlib.import_module("haystack_experimental.core").AsyncPipeline
    except (ImportError, AttributeError):
        return haystack.Pipeline


def as_pipeline(built: Any) -> Any:
    """Return what a file has built as something with a pipeline's methods. Raises PipelineFileError.

    A component, such as an Agent, becomes a pipeline of one component, which bears the name of its class.
    """
    if hasattr(built, "__haystack_input__"):
        pipeline = pipeline_class()()
        pipeline.add_component(_snake_case(type(built).__name__), built)
        return pipeline
    can_run = any(callable(getattr(built, method, None)) for method in RUN_METHODS)
    if can_run and all(callable(getattr(built, method, None)) for method in DESCRIBING_METHODS):
        return built
    raise PipelineFileError(
        f"`build` returned a {type(built).__name__}; return a Pipeline, an Agent, or an object with Haystack's methods "
        "`inputs`, `outputs` and `run`, `run_async` or `run_async_generator`"
    )


def components_of(pipeline: Any) -> dict[str, Any]:
    """Return the components by name, as far as the pipeline tells."""
    walk: Callable[[], Iterator[tuple[str, Any]]] | None = getattr(pipeline, "walk", None)
    return dict(walk()) if walk is not None else {}


def runs_on_loop(pipeline: Any) -> bool:
    """Whether a run can be cancelled while it waits for an async component."""
    return not _only_blocks(pipeline)


def partial_outputs(pipeline: Any, data: dict[str, Any], include_outputs_from: set[str]) -> Partials:
    """Run a pipeline. Yields the outputs of each component as it finishes, and at the end those of all that count.

    Pipelines that cannot do that yield those of all twice.
    """
    if hasattr(pipeline, "run_async_generator"):
        return cast("Partials", pipeline.run_async_generator(data, include_outputs_from=include_outputs_from))
    if inspect.isasyncgenfunction(pipeline.run):
        return _of_async_generator(pipeline, data)
    return _at_the_end(pipeline, data, include_outputs_from)


async def warm_up(components: Mapping[str, Any], in_thread: Callable[[Callable[[], Any]], Any]) -> None:
    """Warm all components, those that block for it in a thread. Haystack itself would do that on the loop."""
    for component in components.values():
        if hasattr(component, "warm_up_async"):
            await component.warm_up_async()
        elif hasattr(component, "warm_up"):
            await in_thread(component.warm_up)


async def close(components: Mapping[str, Any]) -> None:
    """Release the connections and models of all components that have a way to."""
    for component in components.values():
        if hasattr(component, "close_async"):
            await component.close_async()
        elif hasattr(component, "close"):
            component.close()


async def _of_async_generator(pipeline: Any, data: dict[str, Any]) -> Partials:
    """Run haystack-experimental's AsyncPipeline, whose runs would share counters of visits, and one thread."""
    mine = _with_own_graph(pipeline)
    mine.executor = None  # the loop's own, whose threads are as many as may be
    partials: Partials = mine.run(data)
    async with aclosing(partials):
        try:
            async for partial in partials:
                yield partial
        except Exception as error:
            raise ComponentFailed from error


async def _at_the_end(pipeline: Any, data: dict[str, Any], include_outputs_from: set[str]) -> Partials:
    mine = _with_own_graph(pipeline)
    try:
        if hasattr(mine, "run_async"):
            outputs = await mine.run_async(data, include_outputs_from=include_outputs_from)
        else:
            outputs = await asyncio.to_thread(mine.run, data, include_outputs_from=include_outputs_from)
    except Exception as error:
        raise ComponentFailed from error
    for _ in range(2):
        yield outputs


def _only_blocks(pipeline: Any) -> bool:
    is_async = any(hasattr(pipeline, method) for method in ("run_async_generator", "run_async"))
    return not (is_async or inspect.isasyncgenfunction(pipeline.run))


def _with_own_graph(pipeline: Any) -> Any:
    """Return the pipeline with the same components, and counters of its own: old ones count visits in their graph."""
    if not hasattr(pipeline, "graph"):
        return pipeline
    mine = copy.copy(pipeline)
    mine.graph = pipeline.graph.copy()
    return mine


def _snake_case(name: str) -> str:
    """Return OpenAIChatGenerator as openai_chat_generator."""
    starts = [at for at in range(1, len(name)) if name[at].isupper() and name[at + 1 : at + 2].islower()]
    parts = [name[start:end] for start, end in zip([0, *starts], [*starts, len(name)], strict=True)]
    return "_".join(parts).lower()
