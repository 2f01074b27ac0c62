"""Background loads of versions: a queue by priority, and the failures with their exponential backoff."""

from __future__ import annotations

import copy
import heapq
import itertools
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, TypeVar

from cachetools import LRUCache

from ml_core.domain.version import ServableVersion
from ml_core.exceptions import MLFrameworkError, ModelLoadError
from ml_core.inference.pointers import VersionKey, version_key

T = TypeVar("T")

RETRY_FIRST_S = 1.0
"""Pause after the first failed load of a version; doubles with each further failure."""
RETRY_MAX_S = 60.0
"""Longest pause between two attempts."""
_REMEMBERED_FAILURES = 10_000
WITHIN_S = 60.0
"""Longest load of a version with code of its owner, which may not return from its constructor or its self-test."""
MAX_OWN, MAX_OWN_PER_TENANT = 16, 2
"""Such loads at the same time; others wait in the queue. All of them may hang, and give their places back then."""
MAX_LOST_LOADS, MAX_LOST_PER_TENANT = 32, 2
"""Loads that did not end in that time and keep their threads. For a tenant with so many no more versions with code of
their owners are loaded. After so many of all tenants the process has to be replaced, since nothing else ends them."""
_ASIDE_AFTER_S = 1.0
# Loads ahead that are looked at for one that may begin.
_LOOK_AHEAD = 256


class LoadPriority(IntEnum):
    """The priority of a load; lower values first."""

    DEMAND = 0
    """A request waits for the version."""
    FLIP = 1
    """A pointer that answers requests moved to the version."""
    PRELOAD = 2
    """A pointer names the version; no request needs it yet."""


Run = Callable[[ServableVersion, LoadPriority], T]


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    version: ServableVersion
    priority: LoadPriority
    run: Run[T]
    future: Future[T] = field(default_factory=Future)
    started: bool = False


class LoadQueue(Generic[T]):
    """Runs loads, one per version at a time, on daemon threads. A thread starts on demand and ends with the queue.

    Loads ahead of requests run one at a time, and only while no other load may begin. Those of versions with code of
    their owners are bounded, in each tenant and in all (``MAX_OWN``).

    Args:
        threads: Concurrent loads.

    Attributes:
        rest: How long the queue rests after a load ahead, as a multiple of its duration. A load holds the interpreter
            lock for most of its time, so that requests wait for it.
    """

    # Not an executor of the standard library: it has no priorities, and at the exit of the process it waits for its
    # queue. Starting a thread takes a twentieth of the shortest load.

    def __init__(self, *, threads: int) -> None:
        self.rest = 0.0
        self._max_threads = threads
        self._threads = 0
        self._changed = threading.Condition()
        self._heap: list[tuple[int, int, _Job[T]]] = []
        self._order = itertools.count()
        self._jobs: dict[VersionKey, _Job[T]] = {}  # waiting or running
        # Waiting loads ahead, the next one first. There may be 100,000, so they are no jobs yet: a future takes 1 kB.
        self._ahead: OrderedDict[VersionKey, tuple[ServableVersion, Run[T]]] = OrderedDict()
        self._ahead_job: _Job[T] | None = None  # the one that runs, or after which the queue rests
        self._own: Counter[str] = Counter()  # by tenant, running loads of versions with code of their owners
        self._closed = False

    def __len__(self) -> int:
        """The number of loads that are queued or running."""
        return len(self._jobs) + len(self._ahead)

    def __contains__(self, key: object) -> bool:
        """Whether a load of the version is queued or running."""
        return key in self._jobs or key in self._ahead

    def submit(self, version: ServableVersion, priority: LoadPriority, run: Run[T]) -> Future[T]:
        """Submit a load, or join the present load of the version and raise its priority.

        Args:
            version: The version.
            priority: ``DEMAND`` or ``FLIP``.
            run: Loads the version; called with the highest priority that was submitted. Its exception is that of the
                future.

        Returns:
            The result. It must not be cancelled, because others may wait for it.

        Raises:
            RuntimeError: The queue is closed.
        """
        with self._changed:
            self._check_open()
            key = version_key(version)
            self._ahead.pop(key, None)
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(version, priority, run)
                self._push(job)
            elif priority < job.priority and not job.started:
                job.priority = priority
                self._push(job)
            return job.future

    def submit_ahead(self, version: ServableVersion, run: Run[T], *, first: bool = False) -> None:
        """Submit a load ahead of requests, unless there is a load of the version.

        Args:
            version: The version.
            run: As of ``submit``; called with ``PRELOAD``, or the priority of a request that joined before.
            first: Before the other loads ahead.

        Raises:
            RuntimeError: The queue is closed.
        """
        with self._changed:
            self._check_open()
            key = version_key(version)
            if key not in self._jobs:
                self._ahead.setdefault(key, (version, run))
                if first:
                    self._ahead.move_to_end(key, last=False)
                self._start_thread()

    def forget(self, key: VersionKey) -> None:
        """Cancel the load of a version, unless it has begun or a request waits for it."""
        with self._changed:
            self._ahead.pop(key, None)
            job = self._jobs.get(key)
            if job is not None and job.priority is not LoadPriority.DEMAND and not job.started:
                del self._jobs[key]
                job.future.cancel()
                self._heap = [each for each in self._heap if each[2] is not job]  # its version may have megabytes
                heapq.heapify(self._heap)
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the load queue is closed")

    def _push(self, job: _Job[T]) -> None:
        # A job whose priority rose is in the heap twice; the second entry is skipped, because the job has started.
        heapq.heappush(self._heap, (job.priority, next(self._order), job))
        self._changed.notify_all()  # ends a rest
        self._start_thread()

    def _start_thread(self) -> None:
        # Loads ahead need one thread only.
        if self._threads < (self._max_threads if self._heap else 1):
            self._threads += 1
            threading.Thread(target=self._work, name="mlcore-load", daemon=True).start()

    @contextmanager
    def aside(self, priority: LoadPriority) -> Iterator[None]:
        """For a load that waits on its thread: meanwhile another thread does what is queued."""
        with self._changed:
            self._threads -= 1
            if priority is LoadPriority.PRELOAD:
                self._ahead_job = None
            if self._heap or self._ahead:
                self._start_thread()
        try:
            yield
        finally:
            with self._changed:
                self._threads += 1

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no load is queued or running; False if the timeout passed."""
        with self._changed:
            return self._changed.wait_for(lambda: not len(self), timeout_s)

    def wait_for(self, keys: Iterable[VersionKey], timeout_s: float) -> bool:
        """Wait until no load of these versions is queued or running; False if the timeout passed."""
        left = list(keys)

        def have_ended() -> bool:
            while left and left[-1] not in self:
                left.pop()
            return not left

        with self._changed:
            return self._changed.wait_for(have_ended, timeout_s)

    def running(self) -> list[VersionKey]:
        """The versions whose loads are queued or running, without those that are queued ahead of requests."""
        with self._changed:
            return list(self._jobs)

    def next_ahead(self, count: int) -> list[VersionKey]:
        """The next versions that are queued ahead of requests."""
        with self._changed:
            return list(itertools.islice(self._ahead, count))

    def close(self) -> None:
        """Cancel queued loads; the threads end after their present loads."""
        with self._changed:
            self._closed = True
            self._ahead.clear()
            for _, _, job in self._heap:
                if not job.started:
                    job.started = True
                    del self._jobs[version_key(job.version)]
                    job.future.cancel()
            self._heap.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            began = time.monotonic()
            self._perform(job)
            if job.priority is LoadPriority.PRELOAD:
                self._rest_after(job, time.monotonic() - began)

    def _perform(self, job: _Job[T]) -> None:
        # A separate function: otherwise its locals would keep the last model alive during the next load.
        try:
            result = job.run(job.version, job.priority)
        except BaseException as error:  # noqa: BLE001 - the future raises it where the load is awaited
            self._finish(job)
            job.future.set_exception(error)
        else:
            self._finish(job)
            job.future.set_result(result)

    def _next(self) -> _Job[T] | None:
        with self._changed:
            job = None
            if self._threads <= self._max_threads:
                job = self._next_queued() or self._next_of_ahead()
            if job is None:
                self._threads -= 1
                return None
            job.started = True
            if job.version.modules:
                self._own[job.version.ref.tenant_id] += 1
            job.future.set_running_or_notify_cancel()
            return job

    def _next_queued(self) -> _Job[T] | None:
        held = []
        found = None
        while self._heap and found is None:
            entry = heapq.heappop(self._heap)
            if not entry[2].started:
                if self._may_begin(entry[2].version):
                    found = entry[2]
                else:
                    held.append(entry)
        for entry in held:
            heapq.heappush(self._heap, entry)
        return found

    def _next_of_ahead(self) -> _Job[T] | None:
        if self._ahead_job is None:
            for key, (version, run) in itertools.islice(self._ahead.items(), _LOOK_AHEAD):
                if self._may_begin(version):
                    del self._ahead[key]
                    job = self._jobs[key] = self._ahead_job = _Job(version, LoadPriority.PRELOAD, run)
                    return job
        return None

    def _may_begin(self, version: ServableVersion) -> bool:
        own = self._own
        is_free = own[version.ref.tenant_id] < MAX_OWN_PER_TENANT and own.total() < MAX_OWN
        return is_free or not version.modules

    def _rest_after(self, job: _Job[T], load_s: float) -> None:
        with self._changed:
            if self._ahead_job is not job:
                return  # it waited aside for most of its time, and held no lock
            if self.rest:
                self._changed.wait_for(lambda: self._heap or self._closed, self.rest * load_s)
            self._ahead_job = None

    def _finish(self, job: _Job[T]) -> None:
        with self._changed:
            del self._jobs[version_key(job.version)]
            if job.version.modules:
                self._own -= Counter([job.version.ref.tenant_id])
            self._changed.notify_all()


class LoadsOfOwners(Generic[T]):
    """Loads versions with code of their owners, each on a thread of its own, which is lost if it does not end in time.

    Args:
        load: Loads a version.
        queue: Runs the loads; one that takes long stands aside.
        within_s: Longest load.
    """

    def __init__(self, load: Callable[[ServableVersion], T], queue: LoadQueue[Any], within_s: float = WITHIN_S) -> None:
        self._load = load
        self._queue = queue
        self._within_s = within_s
        self._lock = threading.Lock()
        self._lost: set[VersionKey] = set()

    def __call__(self, version: ServableVersion, priority: LoadPriority) -> T:
        """Load a version.

        Raises:
            ModelLoadError: The load did not end in time, or others of the tenant have not.
        """
        self._check(version)
        loaded: Future[T] = Future()
        threading.Thread(target=self._run, args=(version, loaded), name="mlcore-load-own", daemon=True).start()
        wait([loaded], min(_ASIDE_AFTER_S, self._within_s))
        if not loaded.done():
            with self._queue.aside(priority):
                wait([loaded], max(0.0, self._within_s - _ASIDE_AFTER_S))
        with self._lock:
            if not loaded.done():
                self._lost.add(version_key(version))
                raise not_returning(version, f"{version.ref} was not loaded within {self._within_s:g} s")
        return loaded.result()

    @property
    def lost(self) -> set[VersionKey]:
        """The versions whose loads did not end in time, and have not ended since."""
        with self._lock:
            return set(self._lost)

    def _run(self, version: ServableVersion, loaded: Future[T]) -> None:
        try:
            loaded.set_result(self._load(version))
        except BaseException as error:  # noqa: BLE001 - raised where the load is awaited
            loaded.set_exception(error)
        finally:
            with self._lock:
                self._lost.discard(version_key(version))

    def _check(self, version: ServableVersion) -> None:
        lost = self.lost
        of_tenant = sum(key[0] == version.ref.tenant_id for key in lost)
        if version_key(version) in lost:
            raise not_returning(version, f"An earlier load of {version.ref} has not ended")
        if of_tenant >= MAX_LOST_PER_TENANT:
            raise not_returning(version, f"{of_tenant} loads of other versions of the tenant have not ended")


def not_returning(version: ServableVersion, why: str) -> ModelLoadError:
    """The error for a version that is not loaded because code of a model does not return."""
    return ModelLoadError(
        f"{why}: code of a model does not return.",
        remedy="Correct the code and register the model again. A load that does not end is ended with its process.",
        digest=str(version.digest),
        **version.ref.attributes,
    )


class Failure:
    """The last failed load of a version. ``retry_at`` is on the clock of the table, in seconds."""

    __slots__ = ("attempts", "error", "key", "retry_at")

    def __init__(self, key: VersionKey, error: MLFrameworkError, attempts: int, now: float) -> None:
        self.key = key  # not the version, whose documents may have megabytes: failures outlive pointers
        self.error = copy.copy(error)  # without the traceback, which keeps the artifact and the model alive
        self.attempts = attempts
        self.retry_at = now + min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(attempts - 1, 10))

    def fresh_error(self) -> MLFrameworkError:
        """A copy of the error, to raise."""
        return copy.copy(self.error)  # raising one object repeatedly would grow its traceback with each request


class Failures:
    """The last failure of each version, until a load succeeds. Not thread-safe: the model table holds the lock.

    Args:
        clock: Monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.by_key: LRUCache[VersionKey, Failure] = LRUCache(_REMEMBERED_FAILURES)

    def record(self, version: ServableVersion, error: MLFrameworkError) -> Failure:
        """Record a failed load."""
        key = version_key(version)
        before = self.by_key.get(key)
        failure = self.by_key[key] = Failure(key, error, before.attempts + 1 if before else 1, self._clock())
        return failure

    def cooling(self, version: ServableVersion) -> Failure | None:
        """The failure of a version whose pause is not over; None if the version may be loaded."""
        failure = self.by_key.get(version_key(version))
        return failure if failure is not None and self._clock() < failure.retry_at else None

    def due(self) -> list[VersionKey]:
        """The versions whose pause is over."""
        now = self._clock()
        return [failure.key for failure in self.by_key.values() if failure.retry_at <= now]
