"""The callback queue: order, wake-ups, back-pressure, joining, and its end."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystream_service.run.events import Entry, Event, Reasoning, Started, Text, ToolCall
from haystream_service.run.queue import CANCELLATION_TURNS, CallbackQueue, PutNotAwaited, RunStopped
from haystream_service.run.stretch import JOINED_LIMIT_BYTES, STRETCH_BYTES, size_bytes
from haystream_service.run.total import Total

WORD = Text("llm", 0, "word")
CALL = ToolCall("llm", 0, "", "", "{")  # neighbours are not joined
ROOMY = 100_000_000
FOR_TWO = STRETCH_BYTES + 2 * size_bytes(WORD)


class Wakes:
    """Counts how often a queue wakes its reader."""

    def __init__(self) -> None:
        self.count = 0
        self.first = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self.first.set()


async def put_as_task(queue: CallbackQueue, event: Event) -> None:
    """Put as a component does that runs beside others."""
    await queue.put(event)


async def put_in_thread(queue: CallbackQueue, event: Event) -> asyncio.Task[None]:
    """Put in a thread, and return as soon as that does it."""
    begun = threading.Event()

    def put() -> None:
        begun.set()
        queue.put_from_thread(event)

    putting = asyncio.create_task(asyncio.to_thread(put))
    await asyncio.to_thread(begun.wait)
    return putting


def text_of(entries: list[Entry]) -> str:
    """Return what the entries say."""
    return "".join(entry.event.delta for entry in entries if isinstance(entry.event, Text))


async def test_entries_are_stamped_in_the_order_in_which_they_came() -> None:
    """From one, without a hole, across drains; a joined one has its last piece's number."""
    queue = CallbackQueue(ROOMY, Total(ROOMY), Wakes())
    await queue.put(CALL)
    queue.put_from_thread(CALL)
    first = queue.drain()
    await queue.put(CALL)
    assert [entry.seq for entry in [*first, *queue.drain()]] == [1, 2, 3]
    await queue.put(WORD)
    await queue.put(WORD)
    assert queue.drain() == [Entry(5, Text("llm", 0, "wordword"))]
    assert queue.drain() == []


async def test_the_reader_is_woken_once_per_change_from_empty_to_filled() -> None:
    """Never once per chunk: each wake-up from a thread is a write to a socket."""
    wakes = Wakes()
    queue = CallbackQueue(ROOMY, Total(ROOMY), wakes)

    def produce() -> None:
        for _ in range(500):
            queue.put_from_thread(WORD)

    await asyncio.gather(*(asyncio.to_thread(produce) for _ in range(4)))
    await wakes.first.wait()
    assert wakes.count == 1
    assert queue.drain()[-1].seq == 2000
    await queue.put(WORD)
    await queue.put(CALL)
    assert wakes.count == 2


async def test_a_full_queue_makes_an_async_callback_wait() -> None:
    """And lets it go on as soon as it was drained."""
    queue = CallbackQueue(FOR_TWO, Total(ROOMY), Wakes())
    await queue.put(WORD)
    await queue.put(WORD)
    third = asyncio.create_task(put_as_task(queue, WORD))
    for _ in range(CANCELLATION_TURNS * 2):
        await asyncio.sleep(0)
    assert not third.done()
    assert text_of(queue.drain()) == "word" * 3
    await third
    assert queue.size_bytes == 0


async def test_a_callback_that_is_cancelled_while_it_waits_holds_up_nobody() -> None:
    """What it has put stays, and the others that wait go on."""
    queue = CallbackQueue(1, Total(ROOMY), Wakes())
    waiting = [asyncio.create_task(put_as_task(queue, WORD)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait([waiting[1]])
    assert text_of(queue.drain()) == "word" * 3
    first, cancelled, last = await asyncio.gather(*waiting, return_exceptions=True)
    assert (first, last) == (None, None)
    assert isinstance(cancelled, asyncio.CancelledError)


async def test_a_full_queue_blocks_the_thread_of_a_sync_callback() -> None:
    """And lets it go on as soon as it was drained."""
    queue = CallbackQueue(FOR_TWO, Total(ROOMY), Wakes())
    passed: list[int] = []
    blocked = threading.Event()

    def produce() -> None:
        for number in range(4):
            if number == 3:
                blocked.set()
            queue.put_from_thread(WORD)
            passed.append(number)

    producer = asyncio.create_task(asyncio.to_thread(produce))
    await asyncio.to_thread(blocked.wait)
    assert passed == [0, 1, 2]  # the third was let in while there was room, and took more than that
    assert queue.drain()[-1].seq == 3
    await producer
    assert [entry.seq for entry in queue.drain()] == [4]


async def test_one_drain_lets_all_threads_go_on_for_which_there_is_room() -> None:
    """They do not wait for each other."""
    queue = CallbackQueue(10_000, Total(ROOMY), Wakes())
    queue.put_from_thread(Text("llm", 0, "x" * 20_000))
    putting = [await put_in_thread(queue, WORD) for _ in range(3)]
    assert queue.drain()[-1].seq == 1
    await asyncio.gather(*putting)
    assert queue.drain()[-1].seq == 4


async def test_an_entry_larger_than_the_queue_passes_when_it_is_empty() -> None:
    """Otherwise it would wait for ever: on the loop until it was read, in a thread not at all."""
    wakes = Wakes()
    queue = CallbackQueue(1, Total(ROOMY), wakes)
    large = Text("llm", 0, "x" * 10_000)
    putting = asyncio.create_task(put_as_task(queue, large))
    await wakes.first.wait()
    assert len(queue.drain()) == 1
    await putting
    await asyncio.to_thread(queue.put_from_thread, large)
    assert len(queue.drain()) == 1


@pytest.mark.parametrize("full", [False, True])
async def test_a_closed_queue_stops_whoever_puts(*, full: bool) -> None:
    """Those who wait for room as well as those who come later; what is there can still be read."""
    wakes = Wakes()
    queue = CallbackQueue(1 if full else ROOMY, Total(ROOMY), wakes)
    waiting = [asyncio.create_task(put_as_task(queue, WORD))]
    await wakes.first.wait()
    waiting.append(await put_in_thread(queue, WORD))
    if not full:
        await asyncio.gather(*waiting)
    queue.close()
    if full:
        stopped = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(error) for error in stopped} == {RunStopped}
    with pytest.raises(RunStopped):
        await queue.put(WORD)
    with pytest.raises(RunStopped):
        await asyncio.to_thread(queue.put_from_thread, WORD)
    assert text_of(queue.drain()) == ("word" if full else "wordword")


async def test_a_cancellation_reaches_a_component_before_the_stop_does() -> None:
    """It passes through some tasks on its way, and lets the component close its provider's stream."""
    queue = CallbackQueue(1, Total(ROOMY), Wakes())
    putting = asyncio.create_task(put_as_task(queue, WORD))
    await asyncio.sleep(0)
    queue.close()
    for _ in range(CANCELLATION_TURNS // 2):
        await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting


async def test_a_generator_that_never_waits_does_not_keep_the_loop() -> None:
    """Others get their turn while it fills the queue."""
    queue = CallbackQueue(ROOMY, Total(ROOMY), Wakes())
    done = asyncio.Event()

    async def produce() -> None:
        for _ in range(200_000):
            await queue.put(WORD)
        done.set()

    producer = asyncio.create_task(produce())
    turns = 0
    while not done.is_set():
        await asyncio.sleep(0)
        turns += 1
    await producer
    assert turns > 10


@pytest.mark.parametrize(
    "event",
    [
        WORD,
        CALL,
    ],
)
async def test_a_component_that_never_awaits_its_callback_fails_at_twice_the_budget(event: Event) -> None:
    """It cannot be held back, and memory is not to pay for that."""
    limit_bytes = 50_000
    queue = CallbackQueue(limit_bytes, Total(ROOMY), Wakes())
    with pytest.raises(PutNotAwaited):
        for _ in range(10_000):
            _ = queue.put(event)
    few = 2 * (size_bytes(event) + STRETCH_BYTES)
    assert 2 * limit_bytes - few < queue.size_bytes < 2 * limit_bytes + few


async def test_callbacks_that_are_awaited_may_come_to_more_than_twice_the_budget() -> None:
    """Each of an Agent's parallel tools has one of its own that waits."""
    queue = CallbackQueue(FOR_TWO, Total(ROOMY), Wakes())
    putting = [asyncio.create_task(put_as_task(queue, WORD)) for _ in range(100)]
    await asyncio.sleep(0)
    assert queue.size_bytes > 2 * FOR_TWO
    assert text_of(queue.drain()) == "word" * 100
    await asyncio.gather(*putting)


texts = st.builds(Text, st.sampled_from(["a", "b"]), st.integers(0, 1), st.text(max_size=5))
reasonings = st.builds(Reasoning, st.sampled_from(["a", "b"]), st.integers(0, 1), st.text(max_size=5))
others = st.builds(Started, st.just("r"), st.just("p"))


def said(events: list[Event]) -> list[tuple[object, ...]]:
    """Return what is said, letter by letter, and by which stream; what is no text stands for itself."""
    letters: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, Text | Reasoning):
            letters += [(type(event), event.component, event.index, letter) for letter in event.delta]
        else:
            letters.append((event,))
    return letters


@given(st.lists(texts | reasonings | others))
async def test_joining_loses_and_moves_nothing(events: list[Event]) -> None:
    """The text of each stream stays as it was, and so does the order of everything else."""
    queue = CallbackQueue(ROOMY, Total(ROOMY), Wakes())
    for event in events:
        await queue.put(event)
    result = queue.drain()
    assert said([entry.event for entry in result]) == said(events)
    numbers = [entry.seq for entry in result]
    assert numbers == sorted(set(numbers))
    assert numbers[-1:] == ([len(events)] if events else [])
    for before, after in pairwise(entry.event for entry in result):
        if isinstance(before, Text) and isinstance(after, Text):
            assert (before.component, before.index) != (after.component, after.index)


async def test_a_joined_event_stays_within_what_a_client_takes_in_one_message() -> None:
    """However much there is to join."""
    queue = CallbackQueue(ROOMY, Total(ROOMY), Wakes())
    for _ in range(10_000):
        await queue.put(Text("llm", 0, "x" * 1000))
    result = queue.drain()
    assert text_of(result) == "x" * 10_000_000
    assert max(size_bytes(entry.event) for entry in result) < JOINED_LIMIT_BYTES + 2000
