"""A queue of background loads: one load per version at a time, by priority, on a few threads."""

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
"""Idle time after which a load thread ends. Starting another costs a thousandth of a load."""


class LoadPriority(IntEnum):
    """The priority of a load; lower values first."""

    DEMAND = 0
    """A request waits for the version."""
    FLIP = 1
    """A pointer that answers requests moved to the version."""
    PRELOAD = 2
    """A pointer names the version; no request needs it yet."""


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    version: ServableVersion
    priority: LoadPriority
    future: Future[T] = field(default_factory=Future)
    started: bool = False


class LoadQueue(Generic[T]):
    """Runs loads on daemon threads, which start on demand and end when idle.

    The queue does not keep the owner of ``run`` alive: if it is garbage-collected without ``close``, its queued loads
    are cancelled.

    Args:
        run: Loads a version; called with the highest priority that was submitted. Its exception is that of the future.
        threads: Concurrent loads.
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
        """The number of loads that are queued or running."""
        return len(self._jobs)

    def __contains__(self, key: object) -> bool:
        """Whether a load of the version is queued or running."""
        return key in self._jobs

    def submit(self, version: ServableVersion, priority: LoadPriority) -> Future[T]:
        """Submit a load, or join the present load of the version and raise its priority.

        The future must not be cancelled, because others may wait for it.

        Raises:
            RuntimeError: The queue is closed.
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
        # A job whose priority rose is in the heap twice; the second entry is skipped, because the job has started.
        heapq.heappush(self._heap, (job.priority, next(self._order), job))
        if len(self._threads) < min(self._max_threads, len(self._jobs)):
            thread = threading.Thread(target=self._work, name=f"mlcore-load-{len(self._threads)}", daemon=True)
            self._threads.add(thread)
            thread.start()
        self._changed.notify_all()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no load is queued or running; False if the timeout passed."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout_s)

    def close(self) -> None:
        """Cancel queued loads; the threads end after their present loads."""
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
        """Wait for a load and run it; False if the thread must end."""
        # A separate function: otherwise its locals would keep the last model and the owner alive during the wait.
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
        except BaseException as error:  # noqa: BLE001 - the future raises it where the load is awaited
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
