"""The model table: which versions are in memory, and which versions each pointer answers with.

A pointer moves in four steps: the new version is loaded beside the old one, verified, proved by its self-test (all of
that is ``ml_core.models.loading``), and only then does the pointer flip. Until then, and for ever if the load fails,
the pointer answers with the last version that was good. A failed load is repeated with growing pauses. A canary answers
its share, and a shadow is asked, once they went through the same; until then the stable version answers everything.

Memory is bounded by the measured bytes of the models. Above the bound the least recently used go: first those that no
pointer names, then those that one names, which are loaded again when they are asked for. One that is in use stays.

The table is thread-safe and synchronous. A library call waits in ``using``; a replica's event loop takes ``acquire``
and ``request_load``, which never wait. A table that is dropped is collected with its models, closed or not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress

from ml_core.domain.assignment import PointerRef, Rollout
from ml_core.domain.replica_report import LoadState, PendingVersion
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import DeadlineExceededError, MLFrameworkError, ModelLoadError
from ml_core.ids import VersionRef
from ml_core.inference.failures import Failure, Failures
from ml_core.inference.load_queue import IDLE_S, LoadPriority, LoadQueue
from ml_core.inference.pointers import Pointer, PointerKey, Pointers, ReadyCanary, pointer_key, version_key
from ml_core.inference.residents import Resident, Residents, VersionKey
from ml_core.inference.table_errors import names_of, no_pointer, oversized
from ml_core.models.loading import LoadedModel
from ml_core.observability import NO_HOOKS, Hooks

logger = logging.getLogger(__name__)


class ModelTable:
    """Loaded models and the pointers that name them.

    Args:
        loader: Loads, verifies and proves one version, or raises an ``MLFrameworkError``.
        max_memory_bytes: Bound on the sum of ``LoadedModel.memory_bytes``. It is exceeded only while models that are
            in use leave no choice.
        load_threads: Versions loaded at the same time.
        idle_s: Seconds without a load after which a load thread ends.
        clock: Seconds, monotonic.
        hooks: Are called when a load ends, and as models come and go.

    Attributes:
        changed: Set whenever ``pending`` may answer otherwise; whoever waits for it clears it.
    """

    def __init__(
        self,
        loader: Callable[[ServableVersion], LoadedModel],
        *,
        max_memory_bytes: int,
        load_threads: int = 2,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self._loader = loader
        self._clock = clock
        self._hooks = hooks
        self._lock = threading.Lock()
        self._pointers = Pointers()
        self._residents = Residents(max_memory_bytes, self._pointers.names, hooks)
        self._failures = Failures(clock)
        self._queue: LoadQueue[Resident | None] = LoadQueue(self._load, threads=load_threads, idle_s=idle_s)
        self.changed = threading.Event()

    # What must be served.

    def apply(
        self,
        rollouts: Mapping[PointerRef, Rollout | None],
        *,
        is_snapshot: bool = False,
        keep: frozenset[PointerRef] = frozenset(),
    ) -> None:
        """Follow a change of the assignment; returns at once, what needs loading loads in the background.

        One thread at a time may call it and ``drop_tenant``.

        Args:
            rollouts: Pointer → what it must serve; None withdraws it.
            is_snapshot: Whether pointers that are not named are withdrawn.
            keep: Pointers that a snapshot could not read: they keep what they serve.
        """
        if is_snapshot:
            for key in self._pointers.others([pointer_key(ref) for ref in (*rollouts, *keep)]):
                with self._lock:
                    self._pointers.withdraw(key)
        for ref, rollout in rollouts.items():
            with self._lock:  # taken for each one: a snapshot of 100,000 pointers must not make a request wait
                if rollout is None:
                    self._pointers.withdraw(pointer_key(ref))
                    continue
                before = self.wanted(pointer_key(ref))
                loads = self._settle(self._pointers.want(pointer_key(ref), rollout))
                if before is None or before.generation != rollout.generation:
                    for version, _ in loads:  # a move is a new start: its answer is that of the load that follows
                        self._failures.clear(version_key(version))
            for version, priority in loads:
                self._queue.submit(version, priority)
        self.changed.set()

    def _settle(self, pointer: Pointer) -> list[tuple[ServableVersion, LoadPriority]]:
        """Let a pointer answer with those of its versions that are in memory; says how urgently to load the others."""
        # One that was proved and evicted since comes back when it is asked for.
        proved = {pointer.serving_key, pointer.canary and pointer.canary.key}
        priority = LoadPriority.FLIP if pointer.serving_key in self._residents else LoadPriority.PRELOAD
        loads = []
        for version in pointer.wanted.versions():
            key = version_key(version)
            if key in self._residents:
                self._pointers.admit(key)
            elif key not in proved:
                loads.append((version, priority))
        return loads

    def drop_tenant(self, tenant_id: str) -> None:
        """Withdraw every pointer of a tenant and free its models."""
        with self._lock:
            self._pointers.withdraw_tenant(tenant_id)
            self._residents.drop_tenant(tenant_id)
        self.changed.set()

    # Taking a model.

    def acquire_pointer(self, key: PointerKey) -> Resident | None:
        """The model that a pointer answers with, if it is in memory; ``release`` it afterwards."""
        with self._lock:
            pointer = self._pointers.get(key)
            if pointer is None or pointer.serving_key is None:
                return None
            return self._residents.take(pointer.serving_key)

    def canary(self, key: PointerKey) -> ReadyCanary | None:
        """The canary that may answer a share of a pointer's requests; ``acquire`` its version."""
        pointer = self._pointers.get(key)
        return pointer.canary if pointer else None

    def shadow(self, key: PointerKey) -> ServableVersion | None:
        """The version that is to be asked what a pointer's stable version is asked, loaded or not."""
        pointer = self._pointers.get(key)
        return pointer.wanted.shadow if pointer else None

    def acquire(self, version: ServableVersion) -> Resident | None:
        """A version's model, if it is in memory; ``release`` it afterwards."""
        with self._lock:
            return self._residents.take(version_key(version))

    def release(self, resident: Resident) -> None:
        """Give back what was acquired."""
        with self._lock:
            self._residents.give_back(resident)

    def target(self, key: PointerKey) -> ServableVersion:
        """What to load so that a pointer can answer: the version it wants, or the last good one if that one fails.

        Raises:
            ModelNotFoundError: There is no such pointer.
            ModelLoadError: Neither can be loaded; they are tried again later.
        """
        with self._lock:
            pointer = self._pointers.get(key)
            if pointer is None:
                raise no_pointer(key, self._pointers.environments(key[0], key[1]))
            failure = self._failures.cooling(pointer.wanted.stable)
            if failure is None:
                return pointer.wanted.stable
            if pointer.serving is not None and self._failures.cooling(pointer.serving) is None:
                return pointer.serving
        raise failure.fresh_error()

    def request_load(self, version: ServableVersion) -> Future[Resident | None]:
        """Start, or join, the load of a version for somebody who waits.

        When the future has a result, ``acquire`` again: the model may have been evicted meanwhile. The future must not
        be cancelled.

        Raises:
            ModelLoadError: It failed a moment ago and is not tried again yet.
        """
        with self._lock:
            failure = self._failures.cooling(version)
            if failure is None:
                return self._queue.submit(version, LoadPriority.DEMAND)
        raise failure.fresh_error()

    def preload(self, version: ServableVersion) -> None:
        """Load a version that a pointer names, unless memory is full or it failed a moment ago; nobody waits for it."""
        with self._lock:
            if self._failures.cooling(version) is None:
                self._queue.submit(version, LoadPriority.PRELOAD)

    @contextmanager
    def using(self, version: ServableVersion, *, timeout_s: float = 60.0) -> Iterator[LoadedModel]:
        """A version's model for the length of a ``with`` block, loaded first if need be.

        Raises:
            ModelLoadError: It can't be loaded.
            DeadlineExceededError: It was not loaded in time.
        """
        deadline = self._clock() + timeout_s
        resident = self.acquire(version)
        while resident is None:
            try:
                self.request_load(version).result(max(0.0, deadline - self._clock()))
            except TimeoutError:
                raise DeadlineExceededError(
                    f"{version.ref} was not loaded within {timeout_s:g} s.",
                    remedy="Try again: the load goes on.",
                    tenant_id=version.ref.tenant_id,
                    model_id=version.ref.model_id,
                    version=version.ref.version,
                    deadline_ms=int(timeout_s * 1000),
                ) from None
            resident = self.acquire(version)
        try:
            yield resident.model
        finally:
            self.release(resident)

    # Loading.

    def _load(self, version: ServableVersion, priority: LoadPriority) -> Resident | None:
        """Runs on a load thread; see ``LoadQueue``. None: nobody wants it any more, or memory is full."""
        key = version_key(version)
        with self._lock:
            present = self._residents.get(key)
            is_moot = priority is not LoadPriority.DEMAND and not self._pointers.names(key)
            is_full = priority is LoadPriority.PRELOAD and self._residents.bytes >= self._residents.max_bytes
        if present is not None or is_moot or is_full:
            self.changed.set()  # deferred, no longer loading
            return present
        started = time.perf_counter()
        try:
            model = self._loader(version)
            if model.memory_bytes > self._residents.max_bytes:
                raise oversized(model, self._residents.max_bytes)
        except MLFrameworkError as error:
            self._record_failure(version, error, started)
            raise
        except Exception as error:
            logger.exception("Loading %s failed unexpectedly.", version.ref)
            wrapped = ModelLoadError.wrap(error, f"{version.ref} could not be loaded", **names_of(version))
            self._record_failure(version, wrapped, started)
            raise wrapped from error
        self._hooks.model_loaded(version.ref, time.perf_counter() - started)
        return self._admit(key, model)

    def _admit(self, key: VersionKey, model: LoadedModel) -> Resident:
        with self._lock:
            self._failures.clear(key)
            self._pointers.admit(key)
            resident = self._residents.add(key, model)
            # Within the lock, in which a failure is recorded before its job ends: what just failed is not tried again.
            with suppress(RuntimeError):  # closed meanwhile
                for canary in self._pointers.canaries_beside(key):  # not loaded with the pointer: memory was full
                    if not self._failures.cooling(canary):
                        self._queue.submit(canary, LoadPriority.FLIP)
        self.changed.set()
        logger.info("Loaded %s (%.1f MB).", model.version.ref, model.memory_bytes / 2**20)
        return resident

    def _record_failure(self, version: ServableVersion, error: MLFrameworkError, started: float) -> None:
        self._hooks.model_load_failed(version.ref, error.code, time.perf_counter() - started)
        with self._lock:
            failure = self._failures.record(version, error)
        self.changed.set()
        logger.warning("Loading %s failed (attempt %d): %s", version.ref, failure.attempts, error)

    def retry_failed(self) -> int:
        """Load again what a pointer wants and whose pause after a failure is over; returns how many."""
        with self._lock:
            due = [failure.version for failure in self._failures.due() if self._is_wanted(failure.version)]
        for version in due:
            self._queue.submit(version, LoadPriority.FLIP)
        return len(due)

    def _is_wanted(self, version: ServableVersion) -> bool:
        return self._pointers.is_wanted(version_key(version))

    # Inspection.

    def wanted(self, key: PointerKey) -> Rollout | None:
        """What a pointer should serve, or None if there is no such pointer."""
        pointer = self._pointers.get(key)
        return pointer.wanted if pointer else None

    def serving(self, key: PointerKey) -> ServableVersion | None:
        """The last good version of a pointer: what it answers with now."""
        pointer = self._pointers.get(key)
        return pointer.serving if pointer else None

    def named(self, ref: VersionRef) -> ServableVersion | None:
        """The version of that name that a pointer wants, as canary or shadow too, or None."""
        with self._lock:
            return self._pointers.version(ref)

    def failures(self) -> list[Failure]:
        """The failed loads of versions that pointers want."""
        with self._lock:
            return [failure for failure in self._failures.all() if self._is_wanted(failure.version)]

    def pending(self) -> list[PendingVersion]:
        """The versions that pointers want and this table has not loaded, those of the last moved pointer first."""
        with self._lock:
            failures = {version_key(failure.version): failure for failure in self._failures.all()}
            found = {(p.key, version_key(v)): p for p in self._pointers.unsettled() for v in p.unproved()}
            # Besides: what was evicted and can't be loaded again, and shadows.
            for key in failures:
                found.update({(p.key, key): p for p in self._pointers.naming(key) if p.wants(key)})
            return [self._pending(pointer, key, failures) for (_, key), pointer in found.items()]

    def _pending(self, pointer: Pointer, key: VersionKey, failures: Mapping[VersionKey, Failure]) -> PendingVersion:
        failure, served = failures.get(key), pointer.serving_key
        # One that was evicted and can be loaded answers still.
        serves = served[2] if served is not None and (served in self._residents or served not in failures) else None
        if failure is None:
            state = LoadState.LOADING if key in self._queue else LoadState.DEFERRED
            return PendingVersion(*pointer.key, key[2], state, serves)
        error = failure.error
        return PendingVersion(*pointer.key, key[2], LoadState.FAILED, serves, error.code, error.message)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is being loaded; False if the time passed first."""
        return self._queue.wait_idle(timeout_s)

    def describe(self) -> dict[str, int]:
        """Counts for health and logs."""
        return {
            "pointers": len(self._pointers),
            "partly_read": self._pointers.partly_read,
            "loaded": len(self._residents),
            "loading": len(self._queue),
            "memory_bytes": self._residents.bytes,
            "max_memory_bytes": self._residents.max_bytes,
        }

    def close(self) -> None:
        """Stop loading."""
        self._queue.close()
