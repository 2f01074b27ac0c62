"""Loads in the background: one at a time per version, the most urgent first, on a few threads."""

from __future__ import annotations

import heapq
import inspect
import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from ml_core.domain.version import ServableVersion
from ml_core.inference.pointers import version_key
from ml_core.inference.residents import VersionKey

T = TypeVar("T")
Run = Callable[[ServableVersion, "LoadPriority"], T]

IDLE_S = 5.0
"""A load thread that has had nothing to do for so long ends; starting another costs a thousandth of a load."""


class LoadPriority(IntEnum):
    """Why a version is loaded; lower goes first."""

    DEMAND = 0
    """A request waits for it."""
    FLIP = 1
    """A pointer that serves requests moved to it."""
    PRELOAD = 2
    """A pointer names it; nobody has asked for it yet."""


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    version: ServableVersion
    priority: LoadPriority
    future: Future[T] = field(default_factory=Future)
    started: bool = False


class LoadQueue(Generic[T]):
    """Runs loads on daemon threads, which start with a load and end when there has been none for a while.

    The queue does not keep the object alive whose method it calls: one that is dropped without ``close`` is collected,
    and what it still had queued is cancelled.

    Args:
        run: Loads a version; called with the most urgent priority that was asked for. What it raises reaches everybody
            who waits for that load.
        threads: Loads at the same time.
        idle_s: Seconds without a load after which a thread ends.
    """

    def __init__(self, run: Run[T], *, threads: int, idle_s: float = IDLE_S) -> None:
        self._run: Callable[[], Run[T] | None] = weakref.WeakMethod(run) if inspect.ismethod(run) else lambda: run
        self._max_threads = threads
        self._idle_s = idle_s
        self._threads: set[threading.Thread] = set()
        self._changed = threading.Condition()
        self._heap: list[tuple[int, int, _Job[T]]] = []
        self._order = itertools.count()
        self._jobs: dict[VersionKey, _Job[T]] = {}
        self._closed = False

    def __len__(self) -> int:
        """Loads that wait or run."""
        return len(self._jobs)

    def __contains__(self, key: object) -> bool:
        """Whether the version of that key waits or is being loaded."""
        return key in self._jobs

    def submit(self, version: ServableVersion, priority: LoadPriority) -> Future[T]:
        """Ask for a load, or join the one that was asked for already and make it as urgent as this.

        The future must not be cancelled: others may wait for it.

        Raises:
            RuntimeError: The queue was closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the load queue is closed")
            key = version_key(version)
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(version, priority)
                self._push(job)
            elif priority < job.priority and not job.started:
                job.priority = priority
                self._push(job)
            return job.future

    def _push(self, job: _Job[T]) -> None:
        # A job whose urgency rose is in the heap twice; the later, staler entry is skipped because it has started.
        heapq.heappush(self._heap, (job.priority, next(self._order), job))
        if len(self._threads) < min(self._max_threads, len(self._jobs)):
            thread = threading.Thread(target=self._work, name=f"mlcore-load-{len(self._threads)}", daemon=True)
            self._threads.add(thread)
            thread.start()
        self._changed.notify_all()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing waits or runs; False if the time passed first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout_s)

    def close(self) -> None:
        """Drop what has not started and let the threads end after what they are loading."""
        with self._changed:
            self._closed = True
            for _, _, job in self._heap:
                if not job.started:
                    job.started = True
                    self._jobs.pop(version_key(job.version), None)
                    job.future.cancel()
            self._heap.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """Wait for a load and do it; False when the thread has to end.

        A function of its own, so that a thread that waits holds neither the last model nor what loaded it.
        """
        job = self._next()
        if job is None:
            return False
        run = self._run()
        if run is None:
            self._finish(job)
            job.future.set_exception(CancelledError())
            return True
        try:
            result = run(job.version, job.priority)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the load gets it
            self._finish(job)
            job.future.set_exception(error)
        else:
            self._finish(job)
            job.future.set_result(result)
        return True

    def _next(self) -> _Job[T] | None:
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._heap or self._closed, self._idle_s)
                if self._closed or not self._heap:
                    self._threads.discard(threading.current_thread())
                    return None
                job = heapq.heappop(self._heap)[2]
                if not job.started:
                    job.started = True
                    job.future.set_running_or_notify_cancel()
                    return job

    def _finish(self, job: _Job[T]) -> None:
        with self._changed:
            self._jobs.pop(version_key(job.version), None)
            self._changed.notify_all()
