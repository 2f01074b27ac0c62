"""The model table: the loaded models, and the version with which each pointer answers.

When a pointer moves, the new version is loaded beside the old one, verified and self-tested
(``ml_core.models.loading``); only then does the pointer flip. Until then, and if the load fails, the last good version
answers. A failed load is repeated with exponential backoff. A canary answers its share, and a shadow predicts, after
the same steps; until then the stable version answers all requests.

Memory is bounded by the measured size of the models. Above the bound models are evicted (``Residents``): first those
that no pointer names, then named ones, which the next request loads again. Models in use are not evicted.

The table is thread-safe and synchronous. Library calls wait in ``using``. Event loops call ``acquire`` and
``request_load``, which do not wait.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ml_core.domain.assignment import MAX_TENANT_BYTES, PointerRef, Rollout
from ml_core.domain.replica_report import MAX_PENDING, LoadState, PendingVersion
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import DeadlineExceededError, MLFrameworkError, ModelLoadError, is_public
from ml_core.ids import Digest, VersionRef
from ml_core.inference.loads import Failure, Failures, LoadPriority, LoadQueue, LoadsOfOwners, not_returning
from ml_core.inference.pointers import Pointer, PointerKey, Pointers, VersionKey, pointer_key, version_key
from ml_core.models.loading import LoadedModel
from ml_core.observability import NO_HOOKS, Hooks

logger = logging.getLogger(__name__)

# Models that one eviction moves to their present places in the order before it takes the best of them. If all were used
# since the last eviction, a full search would hold the lock for tens of milliseconds.
_EVICTION_SCAN = 512
_NO_ROOM = (
    f"The served versions of the tenant have more than {MAX_TENANT_BYTES >> 20} MB of long signatures, self-tests and "
    "compiled forms. Withdraw others; then this one is loaded by itself."
)
# Shorter loads count as this: what is measured below it is noise.
_LEAST_LOAD_S = 0.001


class Resident:
    """A model in memory.

    Attributes:
        in_use: The number of its present uses.
        used: The number of the last use among those of all models; 0: never used.
        uses: The number of all of its uses.
        cost: Seconds of its load for each byte.
        worth: Its place in the order of eviction, see ``Residents``.
    """

    # Weak references: batchers live as long as their model.
    __slots__ = ("__weakref__", "cost", "entry", "in_use", "key", "model", "used", "uses", "worth")

    def __init__(self, key: VersionKey, model: LoadedModel, load_s: float) -> None:
        self.key = key
        self.model = model
        self.in_use = self.used = self.uses = self.entry = 0
        self.cost = max(load_s, _LEAST_LOAD_S) / max(1, model.memory_bytes)
        self.worth = 0.0


class Residents:
    """The models in memory, within a bound. Not thread-safe.

    Eviction is GreedyDual-Size with frequency (Cherkasova, 1998): a use sets the worth of a model to the present clock
    plus its uses times its load time per byte; the model of the least worth is evicted, and its worth becomes the
    clock. So a model goes early if it was not used for long or seldom, is large, or is loaded again quickly. In place
    of the least recently used it halves the loads where a tenth of the models are forests (``benchmarks/density.py``).

    Args:
        max_bytes: Bound on the sum of ``LoadedModel.memory_bytes``; exceeded only while all other models are in use.
        is_named: Whether a pointer names a version; others are evicted first.
    """

    def __init__(self, max_bytes: int, is_named: Callable[[VersionKey], bool], hooks: Hooks) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self.uncompiled = 0  # whose compiled form could not be used
        self.by_key: dict[VersionKey, Resident] = {}
        self._is_named = is_named
        self._hooks = hooks
        self._clock, self._uses = 0.0, 0
        # One valid entry for each model, its number in ``Resident.entry``. A use does not move it: the entry may be too
        # early, which eviction finds out.
        self._order: list[tuple[bool, float, int, VersionKey]] = []
        self._entries = itertools.count(1)

    def take(self, key: VersionKey) -> Resident | None:
        """Begin a use of a model."""
        resident = self.by_key.get(key)
        if resident is not None:
            resident.in_use += 1
            self._uses += 1
            resident.used = self._uses
            resident.uses += 1
            resident.worth = self._clock + (1 + resident.uses) * resident.cost
        return resident

    def add(self, key: VersionKey, model: LoadedModel, load_s: float = 0.0) -> Resident:
        """Add a model and evict others for it."""
        resident = self.by_key[key] = Resident(key, model, load_s)
        self.bytes += model.memory_bytes
        self.uncompiled += model.uncompiled is not None
        self.evict()  # not this one, which has no place in the order yet
        resident.worth = self._clock + resident.cost
        self._enter(resident)
        self._hooks.models_resident(len(self.by_key), self.bytes)
        return resident

    def rank(self, key: VersionKey) -> None:
        """Give a model its place after the last pointer left it."""
        if (resident := self.by_key.get(key)) is not None:
            self._enter(resident)

    def drop_tenant(self, tenant_id: str) -> None:
        """Free the models of a tenant that are not in use; the others are evicted later."""
        for key in [key for key, resident in self.by_key.items() if key[0] == tenant_id and not resident.in_use]:
            self._remove(key)

    def evict(self) -> None:
        """Free models until memory is within the bound or all of them are in use."""
        while self.bytes > self.max_bytes and (victim := self._victim()) is not None:
            if self._is_named(victim.key):
                self._clock = max(self._clock, victim.worth)
            self._remove(victim.key)
            self._hooks.model_evicted()

    def _victim(self) -> Resident | None:
        aside: list[Resident] = []  # in use
        moved: list[Resident] = []
        victim = None
        while victim is None and self._order and len(moved) < _EVICTION_SCAN:
            *place, entry, key = heapq.heappop(self._order)
            resident = self.by_key.get(key)
            if resident is None or resident.entry != entry:
                continue  # it was removed, or has a later entry
            if resident.in_use:
                aside.append(resident)
            elif place < list(self._place(resident)):
                self._enter(resident)
                moved.append(resident)
            else:
                victim = resident
        for resident in aside:
            self._enter(resident)
        return victim or min(moved, key=self._place, default=None)

    def _enter(self, resident: Resident) -> None:
        resident.entry = next(self._entries)
        heapq.heappush(self._order, (*self._place(resident), resident.entry, resident.key))
        if len(self._order) > 2 * len(self.by_key) + _EVICTION_SCAN:  # of removed models, as long as nothing is evicted
            self._order = [each for each in self._order if (r := self.by_key.get(each[3])) and r.entry == each[2]]
            heapq.heapify(self._order)

    def _place(self, resident: Resident) -> tuple[bool, float]:
        return self._is_named(resident.key), resident.worth

    def _remove(self, key: VersionKey) -> None:
        model = self.by_key.pop(key).model
        self.bytes -= model.memory_bytes
        self.uncompiled -= model.uncompiled is not None
        self._hooks.models_resident(len(self.by_key), self.bytes)


class Pending(NamedTuple):
    """The pending versions, at most ``MAX_PENDING``, and how many there are in each state."""

    listed: tuple[PendingVersion, ...]
    failed: int
    loading: int
    deferred: int


class ModelTable:
    """Loaded models and the pointers that name them.

    Args:
        loader: Loads, verifies and self-tests a version, or raises an ``MLFrameworkError``.
        max_memory_bytes: Bound on the sum of ``LoadedModel.memory_bytes``; exceeded only while all other models are in
            use.
        load_threads: Concurrent loads.
        refused: Version → the end of the time in which it is not loaded, in seconds since 1970, because its code did
            not return in a replica before this one.
        clock: Monotonic, in seconds.
        hooks: Called when a load ends, and when models are added or evicted.

    Attributes:
        changed: Set when the result of ``pending`` may have changed; the waiting thread clears it.
    """

    def __init__(
        self,
        loader: Callable[[ServableVersion], LoadedModel],
        *,
        max_memory_bytes: int,
        load_threads: int = 2,
        refused: Mapping[VersionKey, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self._loader = loader
        self._clock = clock
        self._hooks = hooks
        self._lock = threading.Lock()
        self._pointers = Pointers(self._unnamed)
        self._residents = Residents(max_memory_bytes, self._pointers.names, hooks)
        self._failures = Failures(clock)
        self._queue: LoadQueue[Resident | None] = LoadQueue(threads=load_threads)
        self._load_own = LoadsOfOwners(self._measured, self._queue)
        self._refused_until = refused or {}
        self.changed = threading.Event()

    # The assignment.

    def apply(
        self,
        rollouts: Mapping[PointerRef, Rollout | None],
        *,
        is_snapshot: bool = False,
        keep: frozenset[PointerRef] = frozenset(),
        first: Sequence[PointerKey] = (),
    ) -> None:
        """Apply a change of the assignment; versions are loaded in the background.

        A pointer beyond what its tenant may have in long documents keeps its present rollout (``MAX_TENANT_BYTES``)
        until it is applied again, see ``take_freed``; it is pending as failed.
        One thread at a time may call this and ``drop_tenant``.

        Args:
            rollouts: Pointer → rollout; None withdraws the pointer.
            is_snapshot: Whether to withdraw pointers that are not named.
            keep: Pointers that could not be read, which a snapshot does not withdraw.
            first: Pointers whose versions are loaded before others, in this order.
        """
        if is_snapshot:
            for key in self._pointers.known() - {pointer_key(ref) for ref in (*rollouts, *keep)}:
                with self._lock:
                    self._pointers.withdraw(key)
            self._pointers.unread.clear()
        self._pointers.unread |= {ref.tenant_id for ref in keep}
        by_key = {pointer_key(ref): rollout for ref, rollout in rollouts.items()}
        for key in dict.fromkeys([*(key for key in first if key in by_key), *by_key]):
            rollout = by_key[key]
            with self._lock:  # per pointer, so that requests do not wait for a snapshot of 100,000 pointers
                if rollout is None:
                    self._pointers.withdraw(key)
                    continue
                if not self._pointers.has_room(key, rollout):
                    self._pointers.refuse(key, rollout)
                    logger.warning("The tenant of %s has too many long documents; it keeps what it has.", "/".join(key))
                    continue
                before = self.pointer(key)
                is_moved = before is None or before.wanted.generation != rollout.generation
                self._settle(self._pointers.want(key, rollout), is_moved=is_moved, is_snapshot=is_snapshot)
        self.changed.set()

    def _settle(self, pointer: Pointer, *, is_moved: bool, is_snapshot: bool) -> None:
        """Admit the loaded versions of a pointer, and load the others."""
        # Versions that were self-tested and then evicted are loaded on demand.
        proved = {pointer.serving_key, pointer.canary and pointer.canary_key}
        for version in pointer.wanted.versions():
            key = version_key(version)
            if (resident := self._residents.by_key.get(key)) is not None:
                self._pointers.admit(key, resident.model.version)
            elif key not in proved:
                if is_moved:  # a move is tried at once, also if the version failed before
                    self._failures.by_key.pop(key, None)
                if pointer.serving_key in self._residents.by_key:
                    self._queue.submit(version, LoadPriority.FLIP, self._load)
                else:  # a new pointer does not wait for those of a snapshot
                    self._queue.submit_ahead(version, self._load, first=not is_snapshot)

    def _unnamed(self, version: VersionKey) -> None:
        self._residents.rank(version)
        self._queue.forget(version)

    def take_freed(self) -> list[str]:
        """The tenants for which room came free since the last call, and that had too little of it for all pointers.

        Their pointers are to be read and applied again. The thread of ``apply`` calls this.
        """
        pointers = self._pointers
        short = {key[0] for key in pointers.refused} | pointers.unread
        freed, pointers.freed = pointers.freed & short, set()
        pointers.unread -= freed
        return sorted(freed)

    def drop_tenant(self, tenant_id: str) -> None:
        """Withdraw every pointer of a tenant and free its models."""
        self._pointers.unread.discard(tenant_id)
        with self._lock:
            for key in [key for key in self._pointers.known() if key[0] == tenant_id]:
                self._pointers.withdraw(key)
            self._residents.drop_tenant(tenant_id)
        self.changed.set()

    # Use of models.

    def acquire_pointer(self, key: PointerKey) -> Resident | None:
        """The model with which a pointer answers, or None if it is not loaded; ``release`` it afterwards."""
        with self._lock:
            pointer = self._pointers.by_key.get(key)
            served = pointer.serving_key if pointer is not None else None
            return self._residents.take(served) if served is not None else None

    def pointer(self, key: PointerKey) -> Pointer | None:
        """The pointer with a key, to read single attributes of it: other threads change it."""
        return self._pointers.by_key.get(key)

    def acquire(self, version: ServableVersion) -> Resident | None:
        """The model of a version, or None if it is not loaded; ``release`` it afterwards."""
        with self._lock:
            return self._residents.take(version_key(version))

    def loaded(self, ref: VersionRef, digest: Digest) -> ServableVersion | None:
        """What is recorded of a version with that digest, if its model is loaded."""
        with self._lock:
            resident = self._residents.by_key.get((ref.tenant_id, ref.model_id, ref.version, digest))
            return None if resident is None else resident.model.version

    def release(self, resident: Resident) -> None:
        """End the use of an acquired model."""
        with self._lock:
            resident.in_use -= 1
            self._residents.evict()

    def target(self, key: PointerKey) -> ServableVersion:
        """The version to load for a pointer: the wanted stable version, or the last good one if that fails to load.

        Raises:
            ModelNotFoundError: The pointer does not exist.
            ModelLoadError: Both failed to load; they are retried later.
        """
        with self._lock:
            pointer = self._pointers.existing(key)
            failure = self._failures.cooling(pointer.wanted.stable)
            if failure is None:
                return pointer.wanted.stable
            if pointer.serving is not None and self._failures.cooling(pointer.serving) is None:
                return pointer.serving
        raise failure.fresh_error()

    def request_load(self, version: ServableVersion) -> Future[Resident | None]:
        """Start or join the load of a version for a request that waits.

        ``acquire`` the version when the future is done; it may have been evicted again. The future must not be
        cancelled.

        Raises:
            ModelLoadError: The last load failed and its pause is not over.
        """
        with self._lock:
            failure = self._failures.cooling(version)
            if failure is None:
                return self._queue.submit(version, LoadPriority.DEMAND, self._load)
        raise failure.fresh_error()

    def preload(self, version: ServableVersion) -> None:
        """Load a version in the background, unless memory is full or the pause after a failure is not over."""
        with self._lock:
            if self._failures.cooling(version) is None:
                self._queue.submit_ahead(version, self._load, first=True)

    @contextmanager
    def using(self, version: ServableVersion, *, timeout_s: float = 60.0) -> Iterator[LoadedModel]:
        """Use the model of a version in a ``with`` block; loads it if needed.

        Raises:
            ModelLoadError: The load failed.
            DeadlineExceededError: The load exceeded the timeout.
        """
        deadline = self._clock() + timeout_s
        resident = self.acquire(version)
        while resident is None:
            try:
                self.request_load(version).result(max(0.0, deadline - self._clock()))
            except TimeoutError:
                raise DeadlineExceededError(
                    f"{version.ref} was not loaded within {timeout_s:g} s.",
                    remedy="Try again; the load continues in the background.",
                    deadline_ms=int(timeout_s * 1000),
                    **version.ref.attributes,
                ) from None
            resident = self.acquire(version)
        try:
            yield resident.model
        finally:
            self.release(resident)

    # Loading.

    def _load(self, version: ServableVersion, priority: LoadPriority) -> Resident | None:
        """Runs on a load thread. None: no pointer names the version any more, or memory is full."""
        key = version_key(version)
        with self._lock:
            present = self._residents.by_key.get(key)
            is_moot = priority is not LoadPriority.DEMAND and not self._pointers.names(key)
            is_full = priority is LoadPriority.PRELOAD and self._residents.bytes >= self._residents.max_bytes
        if present is not None or is_moot or is_full:
            self.changed.set()  # the state may change from loading to deferred
            return present
        started = self._clock()
        try:
            model = self._open(version, priority)
        except MLFrameworkError as error:
            self._hooks.model_load_failed(version.ref, error.code, self._clock() - started)
            with self._lock:
                failure = self._failures.record(version, error)
            self.changed.set()
            logger.warning("Loading %s failed (attempt %d): %s", version.ref, failure.attempts, error)
            raise
        load_s = self._clock() - started
        self._hooks.model_loaded(version.ref, load_s)
        return self._admit(key, model, load_s)

    def _open(self, version: ServableVersion, priority: LoadPriority) -> LoadedModel:
        if time.time() < self._refused_until.get(version_key(version), 0.0):
            raise not_returning(version, f"{version.ref} is not loaded, since a replica was replaced because of it")
        try:
            opened = version.opened()
            return self._load_own(opened, priority) if opened.modules else self._measured(opened)
        except MLFrameworkError:
            raise
        except BaseException as error:  # code of the owner may raise SystemExit, which would end the waiting event loop
            logger.exception("Loading %s failed unexpectedly.", version.ref)
            names = {**version.ref.attributes, "digest": str(version.digest)}
            raise ModelLoadError.wrap(error, f"{version.ref} could not be loaded", **names) from error

    def _measured(self, version: ServableVersion) -> LoadedModel:
        """A version's model that fits into memory. Code of an owner may not return from being measured either."""
        model, limit = self._loader(version), self._residents.max_bytes
        if (size := model.memory_bytes) > limit:
            raise ModelLoadError(
                f"{version.ref} needs {size / 2**20:,.1f} MB of memory; the limit for all loaded models is "
                f"{limit / 2**20:,.1f} MB.",
                remedy="Raise MLCORE_MAX_MEMORY_MB (or max_memory_mb), or train a smaller model.",
                digest=str(version.digest),
                **version.ref.attributes,
            )
        return model

    def _admit(self, key: VersionKey, model: LoadedModel, load_s: float) -> Resident:
        with self._lock:
            self._failures.by_key.pop(key, None)
            self._pointers.admit(key, model.version)
            resident = self._residents.add(key, model, load_s)
            # In the lock: a failure is recorded before its job ends, so a canary that just failed is not resubmitted.
            with suppress(RuntimeError):  # the queue is closed
                for canary in self._pointers.canaries_beside(key):  # those that were deferred because memory was full
                    if not self._failures.cooling(canary):
                        self._queue.submit(canary, LoadPriority.FLIP, self._load)
        self.changed.set()
        logger.info("Loaded %s (%.1f MB).", model.version.ref, model.memory_bytes / 2**20)
        return resident

    @property
    def lost_loads(self) -> set[VersionKey]:
        """The versions whose loads did not end in time, and have not ended since."""
        return self._load_own.lost

    def retry_failed(self) -> int:
        """Retry the failed loads of wanted versions whose pause is over; returns their number."""
        with self._lock:
            found = map(self._pointers.wanted, self._failures.due())
            due = [version for version in found if version is not None]
        for version in due:
            self._queue.submit(version, LoadPriority.FLIP, self._load)
        return len(due)

    def named(self, ref: VersionRef) -> ServableVersion | None:
        """The version of that name if it is in the rollout of a pointer, else None."""
        with self._lock:
            return self._pointers.version(ref)

    def failures(self) -> list[Failure]:
        """The failed loads of wanted versions."""
        with self._lock:
            return [each for each in self._failures.by_key.values() if self._pointers.wanted(each.key) is not None]

    def pending(self) -> Pending:
        """The wanted versions that are not loaded, in the time of a report however many are deferred.

        Failed ones come first, then those that load, then deferred ones by the last move of their pointers.
        """
        with self._lock:
            pointers, failures = self._pointers, dict(list(self._failures.by_key.items())[::-1])
            running, ahead = self._queue.running(), self._queue.next_ahead(MAX_PENDING)
            # Failures include evicted versions that fail to load again, and shadows.
            found = {(p.key, key): p for key in failures for p in pointers.naming(key) if p.wants(key)}
            n_failed = len(found)
            for keys in (running, ahead):
                found |= {(p.key, key): p for key in keys for p in pointers.naming(key) if p.is_unproved(key)}
            n_loading = len(found) - n_failed + max(0, len(self._queue) - len(running) - len(ahead))
            for pointer in itertools.islice(pointers.unsettled(), MAX_PENDING):
                found |= {(pointer.key, version_key(each)): pointer for each in pointer.unproved()}
            names = {(pointer, key[2]) for pointer, key in found}
            refused = [each for each in pointers.refused.items() if each not in names]
            first = (self._refused(*each) for each in refused)
            others = (self._pending(pointer, key, failures) for (_, key), pointer in found.items())
            return Pending(
                tuple(itertools.islice(itertools.chain(first, others), MAX_PENDING)),
                failed=len(refused) + n_failed,
                loading=n_loading,
                deferred=max(0, pointers.unproved - n_failed - n_loading),
            )

    def _refused(self, key: PointerKey, version: str) -> PendingVersion:
        pointer = self.pointer(key)
        serves = None if pointer is None or pointer.serving_key is None else pointer.serving_key[2]
        return PendingVersion(*key, version, LoadState.FAILED, serves, ModelLoadError.code, _NO_ROOM)

    def _pending(self, pointer: Pointer, key: VersionKey, failures: Mapping[VersionKey, Failure]) -> PendingVersion:
        failure, served = failures.get(key), pointer.serving_key
        # An evicted version still answers, unless its last load failed.
        is_lost = served not in self._residents.by_key and served in failures
        serves = None if served is None or is_lost else served[2]
        if failure is None:
            state = LoadState.LOADING if key in self._queue else LoadState.DEFERRED
            return PendingVersion(*pointer.key, key[2], state, serves)
        error = failure.error
        cause = None if is_public(error) else error.cause
        return PendingVersion(*pointer.key, key[2], LoadState.FAILED, serves, error.code, error.message, cause)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no load is queued or running; False if the timeout passed."""
        return self._queue.wait_idle(timeout_s)

    def wait_for(self, keys: Iterable[PointerKey], timeout_s: float) -> bool:
        """Wait until no load for these pointers is queued or running; False if the timeout passed."""
        wanted = (pointer.wanted for key in keys if (pointer := self.pointer(key)) is not None)
        return self._queue.wait_for({version_key(each) for rollout in wanted for each in rollout.versions()}, timeout_s)

    def make_way(self) -> None:
        """From now on requests are answered: loads ahead take half of a core at most."""
        self._queue.rest = 1.0

    def recently_used(self, most: int) -> list[PointerKey]:
        """The pointers whose models were used last, the last one first."""
        used = sorted(self._residents.by_key.copy().values(), key=lambda each: each.used, reverse=True)[:most]
        with self._lock:
            return [pointer.key for each in used if each.used for pointer in self._pointers.naming(each.key)]

    def describe(self) -> dict[str, int]:
        """Counts for health and logs."""
        return {
            "pointers": len(self._pointers.by_key),
            "partly_read": self._pointers.partly_read,
            "loaded": len(self._residents.by_key),
            "uncompiled": self._residents.uncompiled,
            "loading": len(self._queue),
            "memory_bytes": self._residents.bytes,
            "max_memory_bytes": self._residents.max_bytes,
        }

    def close(self) -> None:
        """Cancel queued loads."""
        self._queue.close()
