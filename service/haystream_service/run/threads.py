"""The threads of components that cannot run on the event loop, bounded, and without the stuck ones in the way.

Installed as the loop's default executor, since that is where `asyncio.to_thread` goes, and with it Haystack: its
pipelines, its Agents and their tools. Context variables, tracing spans among them, come along by `to_thread` itself.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from haystream_service.run.leftovers import close_iterators
from haystream_service.run.queue import RunStopped

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

# The loop looks names up in its default executor, too: those must not queue behind models.
LOOKUPS = (socket.getaddrinfo, socket.getnameinfo)
LOOKUP_THREADS = 4

# Threads that nobody waits for any more are replaced until there are this many for each one there may be at work.
ORPHANS_PER_THREAD = 4


class ComponentExited(Exception):
    """A component called `sys.exit`. The service does not exit for it."""

    def __init__(self) -> None:
        super().__init__("the component calls `sys.exit`; it has to raise an exception instead")


class ComponentThreads(ThreadPoolExecutor):
    """At most `limit` threads at work for someone; who comes later waits in line.

    A thread cannot be stopped. One whose caller has gone (its run was cancelled) is an orphan: it gives its place to
    the next in line at once, and ends when its component does. `orphans` counts them, and `on_orphan` is told of each.
    """

    def __init__(self, limit: int, on_orphan: Callable[[int], None] = lambda _: None, *, name: str = "sync") -> None:
        super().__init__(limit * (1 + ORPHANS_PER_THREAD), thread_name_prefix=f"haystream-{name}")
        self._lookups = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="haystream-lookup")
        self._limit = limit
        self._on_orphan = on_orphan
        self._places = threading.Lock()
        self._line: deque[_Work] = deque()
        self._begun: set[_Work] = set()  # which have a place, and wait for orphans to leave them a thread
        self._is_shut = False
        self.at_work = 0
        self.orphans = 0

    @property
    def waiting(self) -> int:
        """How many components wait for a thread."""
        return len(self._line)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread as soon as there is one; a name look-up at once."""
        if any(fn is lookup for lookup in LOOKUPS):
            return self._lookups.submit(fn, *args, **kwargs)
        work = _Work(self, lambda: fn(*args, **kwargs))
        with self._places:
            if self._is_shut:
                raise RuntimeError("the threads are shut down")
            self._line.append(work)
        self._begin()
        return work

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more. Threads at work go on to their end, whatever is in line never begins."""
        with self._places:
            self._is_shut = True
            never = [*self._line, *self._begun]
        for work in never:
            work.cancel()
        self._lookups.shutdown(wait=wait, cancel_futures=cancel_futures)
        super().shutdown(wait=wait, cancel_futures=cancel_futures)

    def leave_line(self, work: _Work) -> None:
        """Forget work that nobody wants any more before it has begun."""
        with self._places:
            if work in self._line:
                self._line.remove(work)

    def runs(self, work: _Work) -> None:
        """Take note that work has got its thread."""
        with self._places:
            self._begun.discard(work)

    def orphan(self) -> None:
        """Replace a thread that nobody waits for any more."""
        with self._places:
            self.at_work -= 1
            self.orphans += 1
        self._on_orphan(self.orphans)
        self._begin()

    def release(self, *, was_orphan: bool) -> None:
        """Take note that a thread has done its work."""
        with self._places:
            if was_orphan:
                self.orphans -= 1
            else:
                self.at_work -= 1
        self._begin()

    def _begin(self) -> None:
        """Give every free place to the next in line."""
        with self._places:
            while self._line and self.at_work < self._limit and not self._is_shut:
                self.at_work += 1
                work = self._line.popleft()
                self._begun.add(work)
                super().submit(work.run)


class _Work(Future[Any]):
    """A call on its way through a thread, as asyncio holds it. Cancelled once it runs, it orphans the thread."""

    def __init__(self, threads: ComponentThreads, call: Callable[[], Any]) -> None:
        super().__init__()
        self._threads = threads
        self._call = call
        self._lock = threading.RLock()  # for the next two, and so that work begins or is cancelled, not both
        self._is_running = False
        self._is_orphan = False

    def cancel(self) -> bool:
        """Cancel what has not begun; leave the rest to itself. asyncio does both when the task that waits goes."""
        with self._lock:
            if self._is_running and not self._is_orphan:
                self._is_orphan = True
                self._threads.orphan()
            cancelled = super().cancel()
        if cancelled:
            self._threads.leave_line(self)
        return cancelled

    def run(self) -> None:
        """Do the work, in a thread."""
        self._threads.runs(self)
        with self._lock:
            self._is_running = self.set_running_or_notify_cancel()
        if not self._is_running:
            self._threads.release(was_orphan=False)
            return
        try:
            result = self._call()
        except (SystemExit, KeyboardInterrupt):  # asyncio would end the loop for it
            self._finish(lambda: self.set_exception(ComponentExited()))
        except StopIteration as error:  # a future cannot hold one: whoever waits would wait for ever
            leaked = RuntimeError("the component raised StopIteration")
            leaked.__cause__ = error
            self._finish(partial(self.set_exception, leaked))
        except RunStopped as error:
            close_iterators(error)
            self._finish(partial(self.set_exception, error))
        except BaseException as error:  # noqa: BLE001 - whatever it is, whoever waits gets it
            self._finish(partial(self.set_exception, error))
        else:
            self._finish(lambda: self.set_result(result))

    def _finish(self, settle: Callable[[], None]) -> None:
        with self._lock:
            self._is_running = False
            was_orphan = self._is_orphan
        self._threads.release(was_orphan=was_orphan)
        if was_orphan:
            self.set_result(None)  # nobody waits: an error is let go, and with it all that its frames hold
        else:
            settle()
