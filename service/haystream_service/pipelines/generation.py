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
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import haystack

from haystream_service.errors import ComponentFailed, PipelineFileError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    Outputs = Mapping[str, Any]
    Partials = AsyncGenerator[Mapping[str, Outputs]]

DESCRIBING_METHODS = ("inputs", "outputs")
CLIENTS = ("async_client", "client")
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
    can_describe = all(callable(getattr(built, method, None)) for method in DESCRIBING_METHODS)
    if can_run and can_describe and not isinstance(built, type):
        return built
    what = f"the class {built.__name__}" if isinstance(built, type) else f"an object of type {type(built).__name__}"
    raise PipelineFileError(
        f"`build` returned {'nothing' if built is None else what}; return a Pipeline, an Agent, or an object with "
        "Haystack's methods `inputs`, `outputs` and `run`, `run_async` or `run_async_generator`"
    )


def components_of(pipeline: Any) -> dict[str, Any]:
    """Return the components by name, as far as the pipeline tells."""
    walk: Callable[[], Iterator[tuple[str, Any]]] | None = getattr(pipeline, "walk", None)
    return dict(walk()) if walk is not None else {}


def every_output(pipeline: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return the output sockets of all components, the connected ones too."""
    outputs: Mapping[str, Mapping[str, Any]] = pipeline.outputs(
        **_if_taken(pipeline.outputs, include_components_with_connected_outputs=True)
    )
    return outputs


def runs_on_loop(pipeline: Any) -> bool:
    """Whether a run can be cancelled while it waits for an async component."""
    if any(hasattr(pipeline, method) for method in ("run_async_generator", "run_async")):
        return True
    return inspect.isasyncgenfunction(pipeline.run)


def partial_outputs(pipeline: Any, data: dict[str, Any], include_outputs_from: set[str]) -> Partials:
    """Run a pipeline. Yields the outputs of each component as it finishes, and at the end those of all that count.

    Pipelines that cannot do that yield those of all twice.
    """
    if hasattr(pipeline, "run_async_generator"):
        return _of_run_async_generator(pipeline, data, include_outputs_from)
    if inspect.isasyncgenfunction(getattr(pipeline, "run", None)):
        return _of_async_generator(pipeline, data)
    return _at_the_end(pipeline, data, include_outputs_from)


def wants_coroutine(pipeline: Any, component: str) -> bool:
    """Whether a component refuses a callback that is no coroutine function: those of 2.x do that run on the loop."""
    if hasattr(haystack.Pipeline, "run_async_generator"):  # components of 3.x take either
        return False
    instance = components_of(pipeline).get(component)
    return runs_on_loop(pipeline) and bool(getattr(instance, "__haystack_supports_async__", False))


async def warm_up(components: Mapping[str, Any], in_thread: Callable[[Callable[[], Any]], Any]) -> None:
    """Warm all components, those that block for it in a thread. Haystack itself would do that on the loop."""
    for component in components.values():
        if hasattr(component, "warm_up_async"):
            await component.warm_up_async()
        elif hasattr(component, "warm_up"):
            await in_thread(component.warm_up)


async def close(component: Any, in_thread: Callable[[Callable[[], Any]], Any]) -> None:
    """Release the connections and models of a component that has a way to; one that blocks for it, in a thread."""
    if hasattr(component, "close_async"):
        await component.close_async()
    elif hasattr(component, "close"):
        await in_thread(component.close)
    else:
        await _close_clients(component)


def _of_run_async_generator(pipeline: Any, data: dict[str, Any], include_outputs_from: set[str]) -> Partials:
    """Run a pipeline that can do everything, but for one thing: 2.x leaves its components at work when it is left."""
    if hasattr(pipeline, "stream") or not hasattr(pipeline, "_run_component_async"):
        run = pipeline.run_async_generator
        return cast("Partials", run(data, **_if_taken(run, include_outputs_from=include_outputs_from)))
    mine = copy.copy(pipeline)
    tasks = _ComponentTasks(mine)
    return tasks.ended_with(mine.run_async_generator(data, include_outputs_from=include_outputs_from))


class _ComponentTasks:
    """The tasks of one run's components, which 2.x's AsyncPipeline does not cancel."""

    def __init__(self, pipeline: Any) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_over = False
        self._run_component = pipeline._run_component_async  # noqa: SLF001 - the one place that all of them pass
        pipeline._run_component_async = self._run_as_task  # noqa: SLF001 - of a copy that is this run's own

    async def ended_with(self, partials: Partials) -> Partials:
        """Yield what a run does. However it ends, its components end with it."""
        try:
            async with aclosing(partials):
                async for partial in partials:
                    yield partial
        finally:
            self._is_over = True
            tasks = self._tasks - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_as_task(self, *args: Any, **kwargs: Any) -> Any:
        if self._is_over:  # it was about to begin
            raise asyncio.CancelledError
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await self._run_component(*args, **kwargs)


async def _close_clients(component: Any) -> None:
    """Close the clients that a component of Haystack 2 has made and cannot close itself: OpenAI's, above all."""
    for owner in (component, getattr(component, "chat_generator", None)):
        for name in CLIENTS if type(owner).__module__.startswith("haystack.") else ():
            close = getattr(getattr(owner, name, None), "close", None)
            closing = close() if callable(close) else None
            if inspect.isawaitable(closing):
                await closing


async def _of_async_generator(pipeline: Any, data: dict[str, Any]) -> Partials:
    """Run haystack-experimental's AsyncPipeline, whose runs would share counters of visits, and one thread."""
    mine = _with_own_graph(pipeline)
    mine.executor = None  # the loop's own, whose threads are as many as may be
    partials: Partials = mine.run(data)
    outputs: dict[str, Outputs] = {}
    async with aclosing(partials):
        try:
            async for partial in partials:
                for component, values in partial.items():  # at the end come only those that no other component took
                    outputs[component] = {**outputs.get(component, {}), **values}
                yield {component: outputs[component] for component in partial}
        except Exception as error:  # whatever a component raises, which nobody has wrapped
            raise ComponentFailed from error


async def _at_the_end(pipeline: Any, data: dict[str, Any], include_outputs_from: set[str]) -> Partials:
    mine = _with_own_graph(pipeline)
    is_async = hasattr(mine, "run_async")
    run = mine.run_async if is_async else mine.run
    wanted = _if_taken(run, include_outputs_from=include_outputs_from)
    try:
        outputs = await (run(data, **wanted) if is_async else asyncio.to_thread(run, data, **wanted))
    except Exception as error:  # as above
        raise ComponentFailed from error
    for _ in range(2):
        yield outputs


def _if_taken(function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """Return the arguments that a function takes: an object of an owner's own may have fewer than Haystack's."""
    parameters = _parameters(getattr(function, "__func__", function))
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in arguments.items() if takes_all or name in parameters}


@lru_cache(maxsize=64)  # every run asks
def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


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
