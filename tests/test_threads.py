"""The threads of components that cannot run on the event loop: how many, who waits, and what becomes of stuck ones."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from haystream_service.run.queue import RunStopped
from haystream_service.run.threads import ORPHANS_PER_THREAD, ComponentExited, ComponentThreads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PLACES = 2
SECONDS = 10  # what a thread takes to begin or to end, and much more

request_id: ContextVar[str] = ContextVar("request_id", default="none")


@dataclass
class Component:
    """Something that keeps its thread until it may go on."""

    begun: threading.Event = field(default_factory=threading.Event)
    proceed: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> str:
        self.begun.set()
        self.proceed.wait(SECONDS)
        return "done"


@dataclass
class Workshop:
    """The threads under test, and the components that are in them."""

    threads: ComponentThreads
    components: list[Component] = field(default_factory=list[Component])

    def component(self) -> Component:
        """Return a component that is let go at the end of the test."""
        self.components.append(Component())
        return self.components[-1]


@pytest.fixture
async def workshop() -> AsyncIterator[Workshop]:
    """Two places, and the loop's default executor; at the end all threads have gone."""
    loop = asyncio.get_running_loop()
    workshop = Workshop(ComponentThreads(PLACES))
    loop.set_default_executor(workshop.threads)
    yield workshop
    loop.set_default_executor(ThreadPoolExecutor())
    for component in workshop.components:
        component.proceed.set()
    workshop.threads.shutdown(wait=True)


async def turns() -> None:
    """Let what is ready on the loop happen."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_threads_are_at_work_than_there_are_places(workshop: Workshop) -> None:
    """Who comes later waits in line, and gets the first place that is free."""
    threads, components = workshop.threads, [workshop.component() for _ in range(PLACES + 1)]
    works = [threads.submit(component) for component in components]
    for component in components[:PLACES]:
        assert component.begun.wait(SECONDS)
    assert (threads.at_work, threads.waiting) == (PLACES, 1)
    assert not components[-1].begun.is_set()
    components[0].proceed.set()
    assert works[0].result(SECONDS) == "done"
    assert components[-1].begun.wait(SECONDS)
    assert (threads.at_work, threads.waiting) == (PLACES, 0)


async def test_places_are_free_again_when_the_work_is_done(workshop: Workshop) -> None:
    """However it ends: a leak of one each time would stop the service."""
    threads = workshop.threads

    def fail() -> None:
        raise ValueError

    for _ in range(3 * PLACES):
        with pytest.raises(ValueError):  # noqa: PT011 - it is told by nothing but its type
            await asyncio.to_thread(fail)
        assert await asyncio.to_thread(lambda: "done") == "done"
    assert (threads.at_work, threads.waiting, threads.orphans) == (0, 0, 0)


async def test_work_that_is_cancelled_in_line_leaves_it(workshop: Workshop) -> None:
    """It never begins, and the next does not wait for it."""
    threads, components = workshop.threads, [workshop.component() for _ in range(PLACES + 2)]
    tasks = [asyncio.create_task(asyncio.to_thread(component)) for component in components]
    await turns()
    assert threads.waiting == 2
    tasks[PLACES].cancel()
    await asyncio.wait([tasks[PLACES]])
    await turns()
    assert threads.waiting == 1
    assert threads.orphans == 0
    for component in components:
        component.proceed.set()
    *done, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done.pop(), asyncio.CancelledError)
    assert [*done, last] == ["done"] * (PLACES + 1)
    assert not components[PLACES].begun.is_set()


async def test_a_thread_that_nobody_waits_for_gives_its_place_to_the_next(workshop: Workshop) -> None:
    """At once, though it goes on; as long as it does it counts as an orphan, however often it is cancelled."""
    threads, stuck = workshop.threads, [workshop.component() for _ in range(PLACES)]
    works = [threads.submit(component) for component in stuck]
    for component in stuck:
        assert component.begun.wait(SECONDS)
    next_one = workshop.component()
    waiting = threads.submit(next_one)
    assert not works[0].cancel()
    assert not works[0].cancel()
    assert next_one.begun.wait(SECONDS)
    assert (threads.at_work, threads.waiting, threads.orphans) == (PLACES, 0, 1)
    stuck[0].proceed.set()
    works[0].result(SECONDS)
    assert (threads.at_work, threads.orphans) == (PLACES, 0)
    next_one.proceed.set()
    assert waiting.result(SECONDS) == "done"
    assert threads.at_work == PLACES - 1


async def test_a_task_that_is_cancelled_orphans_the_thread_it_waits_for(workshop: Workshop) -> None:
    """As Haystack waits: with `asyncio.to_thread`."""
    threads, stuck = workshop.threads, workshop.component()
    task = asyncio.create_task(asyncio.to_thread(stuck))
    await turns()
    assert stuck.begun.wait(SECONDS)
    task.cancel()
    await asyncio.wait([task])
    await turns()
    assert (threads.at_work, threads.orphans) == (0, 1)


async def test_stuck_threads_are_replaced_up_to_a_bound(workshop: Workshop) -> None:
    """Threads take memory; when too many are stuck, new work waits until one of them ends."""
    threads = workshop.threads
    stuck = [workshop.component() for _ in range(PLACES * (1 + ORPHANS_PER_THREAD))]
    for component in stuck:
        work = threads.submit(component)
        assert component.begun.wait(SECONDS)
        work.cancel()
    late = workshop.component()
    late.proceed.set()
    waiting = threads.submit(late)
    assert threads.orphans == len(stuck)
    assert not late.begun.is_set()
    stuck[0].proceed.set()
    assert waiting.result(SECONDS) == "done"


async def test_work_that_is_cancelled_before_its_thread_is_free_gives_its_place_back(workshop: Workshop) -> None:
    """All threads are stuck, it has its place already, and nobody wants it any more."""
    threads = workshop.threads
    for _ in range(PLACES * (1 + ORPHANS_PER_THREAD)):
        stuck = workshop.component()
        work = threads.submit(stuck)
        assert stuck.begun.wait(SECONDS)
        work.cancel()
    for _ in range(PLACES):
        assert threads.submit(len, "unwanted").cancel()
    for component in workshop.components:
        component.proceed.set()
    assert threads.submit(len, "last").result(SECONDS) == 4


async def test_names_are_looked_up_though_all_places_are_taken(workshop: Workshop) -> None:
    """The provider's address is not to wait for another run's model."""
    components = [workshop.component() for _ in range(PLACES)]
    for component in components:
        workshop.threads.submit(component)
    addresses = await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
    assert addresses[0][4][:2] == ("127.0.0.1", 80)
    assert workshop.threads.at_work == PLACES


async def test_a_component_that_exits_fails_instead(workshop: Workshop) -> None:
    """`sys.exit` in a component is not to end the service."""
    with pytest.raises(ComponentExited):
        await asyncio.to_thread(sys.exit, 1)
    assert workshop.threads.at_work == 0


async def test_a_stop_comes_out_of_the_thread_as_it_is(workshop: Workshop) -> None:
    """What is no Exception, too, reaches whoever waits."""

    def stopped() -> None:
        raise RunStopped

    with pytest.raises(RunStopped):
        await asyncio.to_thread(stopped)


async def test_context_variables_come_along_into_the_thread(workshop: Workshop) -> None:
    """Tracing spans are among them, also for work that has waited in line."""
    components = [workshop.component() for _ in range(PLACES)]
    for component in components:
        workshop.threads.submit(component)
    token = request_id.set("r-1")
    reading = asyncio.create_task(asyncio.to_thread(request_id.get))
    request_id.reset(token)
    await turns()
    assert workshop.threads.waiting == 1
    components[0].proceed.set()
    assert await reading == "r-1"


async def test_a_shutdown_cancels_the_line_and_lets_the_others_end(workshop: Workshop) -> None:
    """Nobody waits for ever for work that will not begin."""
    threads, components = workshop.threads, [workshop.component() for _ in range(PLACES + 2)]
    works = [threads.submit(component) for component in components]
    for component in components[:PLACES]:
        assert component.begun.wait(SECONDS)
    threads.shutdown(wait=False, cancel_futures=True)
    for work in works[PLACES:]:
        with pytest.raises(CancelledError):
            work.result(SECONDS)
    for component in components:
        component.proceed.set()
    assert [work.result(SECONDS) for work in works[:PLACES]] == ["done"] * PLACES
    assert not any(component.begun.is_set() for component in components[PLACES:])


@pytest.mark.parametrize("busy", [False, True])
async def test_after_a_shutdown_no_work_is_taken(workshop: Workshop, *, busy: bool) -> None:
    """Whoever comes is told so, also while all places are taken, and threads at work still bring their results."""
    threads, components = workshop.threads, [workshop.component() for _ in range(PLACES if busy else 0)]
    works = [threads.submit(component) for component in components]
    assert all(component.begun.wait(SECONDS) for component in components)
    threads.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        threads.submit(len, "late")
    for component in components:
        component.proceed.set()
    assert [work.result(SECONDS) for work in works] == ["done"] * len(works)


async def test_a_stop_iteration_that_leaks_out_of_a_component_reaches_whoever_waits(workshop: Workshop) -> None:
    """A future cannot hold one, and asyncio would leave its caller waiting for ever."""
    async with asyncio.timeout(SECONDS):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.to_thread(next, iter(()))


async def test_a_shutdown_cancels_work_that_waits_for_a_stuck_thread(workshop: Workshop) -> None:
    """It has a place, but no thread: nobody is to wait for it for ever either."""
    threads = workshop.threads
    for _ in range(PLACES * (1 + ORPHANS_PER_THREAD)):
        stuck = workshop.component()
        work = threads.submit(stuck)
        assert stuck.begun.wait(SECONDS)
        work.cancel()
    waiting = threads.submit(workshop.component())
    threads.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled()
