"""A replica of a cell, composed from its settings, and the tuning of its process."""

from __future__ import annotations

import functools
import gc
import hashlib
import itertools
import logging
import secrets
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sklearn
from threadpoolctl import threadpool_limits

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import FEED_CHANNEL
from ml_core.domain.placement import SHARED_CELL
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import PlatformError
from ml_core.inference.assignment import Assignment
from ml_core.inference.follower import AssignmentFollower
from ml_core.inference.model_table import ModelTable
from ml_core.inference.prediction_log import PredictionLog, PredictionRecorder
from ml_core.inference.recent import LostVersions, RecentPointers
from ml_core.inference.reporter import Reporter
from ml_core.inference.service import PredictionService
from ml_core.inference.traffic import TrafficCounter
from ml_core.models import own_types
from ml_core.models.loading import LoadedModel, load_version
from ml_core.models.store import platform_store
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.observability.hooks import combine
from ml_core.registry.feed import FeedReader
from ml_core.registry.leadership import Leadership
from ml_core.registry.oidc import TokenVerifier
from ml_core.registry.predictions.ingest import PredictionIngest
from ml_core.registry.replicas import ReplicaReports
from ml_core.registry.sessions import Sessions
from ml_core.settings import Settings, required

logger = logging.getLogger(__name__)

START_WAIT_S = 20.0
"""How long a replica waits for a registry that can't be read before it continues in the background."""
READING_WAIT_S = 100.0
"""How long it waits while it reads its first assignment. That of 100,000 pointers takes five seconds of one core."""
_LOOK_S = 0.1
REPLACED_AFTER_S = 30.0
"""How long a replica that is to be replaced waits when its turn has come, for the successor of the one before.

All replicas of a cell answer the same requests, so they lose their threads to the same models at the same time.
"""
MODELS_WAIT_S = 3.0
"""How long it loads models then before it is ready. Afterwards a request loads what it needs, before all others.

A replica that was ready at once would answer late while the others are under load; a longer wait would keep callers
waiting where it is the only one. 3 s are enough for the models that were asked recently, if they are small.
"""

# How long a thread that computes may hold the interpreter lock; the default is 5 ms. While a model loads or a large
# request is read, the event loop waits so long after each of its system calls, of which each request takes some.
# Threads that compute get as much done per second of processor time as with 5 ms.
_SWITCH_INTERVAL_S = 0.0002


def tune_thread() -> None:
    """Tune the calling thread for predictions. scikit-learn and OpenMP keep these settings per thread."""
    # The signature and the encoder have checked the values; training has checked the parameters.
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    # A request computes for microseconds, and other requests use the other processors.
    threadpool_limits(limits=1)


def tune_process() -> None:
    """Tune the process and the calling thread for predictions."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    tune_thread()


def freeze_loaded() -> None:
    """Exempt all present objects from garbage collection. Call it after a bulk load."""
    # A full collection would walk all objects of all models, for tens of milliseconds. Models have no cycles, so
    # evicted ones are still freed by their reference counts.
    gc.collect()
    gc.freeze()


@contextmanager
def _without_collection() -> Iterator[None]:
    """Suspend garbage collection, which would take half of the time of reading an assignment, and find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# Loads after which the new objects are exempted as well: a full collection of theirs takes some milliseconds.
_LOADS_UNTIL_FREEZE = 256


class Loader:
    """Loads versions, and exempts their models from garbage collection."""

    def __init__(self, load: Callable[[ServableVersion], LoadedModel]) -> None:
        self._load = load
        self._loads = itertools.count(1)

    def __call__(self, version: ServableVersion) -> LoadedModel:
        """Load a version."""
        model = self._load(version)
        if next(self._loads) % _LOADS_UNTIL_FREEZE == 0:
            gc.collect(1)  # or recent cycles would stay for ever
            gc.freeze()
        return model


class Replica:
    """Follows the registry and answers requests. ``start`` opens the connections.

    Args:
        settings: Must name the database: a replica does not start the embedded server.
        replica_id: The unique id of the replica in reports; None: a random one.
        hooks: Called by all parts.
        cell: The cell that it belongs to.

    Raises:
        ConfigurationError: No database is named, or no cell has such a name.
    """

    def __init__(
        self, settings: Settings, replica_id: str | None = None, hooks: Hooks = NO_HOOKS, cell: str = SHARED_CELL
    ) -> None:
        required(settings.database.url, "MLCORE_DATABASE_URL", "A replica")
        serving = settings.serving
        self._requires_assignment = serving.require_assignment
        self._db = DatabaseConnection(settings=settings)
        self.sessions = Sessions(lambda: self._db.tenant_key, lambda: self._db.known_tenant_key)
        feed = FeedReader(self._db, cell)
        store = platform_store(settings)
        self._lost = LostVersions(settings.platform.home, cell)
        self.table = ModelTable(
            Loader(functools.partial(load_version, store, trust=own_types.trusted(settings))),
            max_memory_bytes=serving.max_memory_mb * 2**20,
            load_threads=serving.load_threads,
            refused=self._lost.read(),
            hooks=hooks,
        )
        assignment = Assignment()
        # A number below that of the control loops, which is 1.
        self._turn = Leadership(self._db.ingesting, -1 - zlib.crc32(cell.encode()) // 2)
        recent = RecentPointers(settings.platform.home, cell)
        self._recent = recent.read()
        self.follower = AssignmentFollower(
            feed,
            lambda: self._db.listen(FEED_CHANNEL),
            assignment,
            self.table,
            poll_interval_s=serving.poll_interval_s,
            first=self._recent,
            hooks=hooks,
        )
        # Of this registry only: platforms may share the folder, and have tenants of the same name.
        registry = hashlib.sha256((settings.database.tenant_key or self._db.safe_url).encode()).hexdigest()[:16]
        folder = settings.platform.prediction_spool / registry
        log = PredictionLog(PredictionIngest(self._db), settings.prediction_log, hooks, folder)
        self.recorder = PredictionRecorder(assignment, log, self._db)
        traffic = TrafficCounter()
        self.service = PredictionService(
            assignment,
            self.table,
            feed.servable,
            limits=serving,
            follower=self.follower,
            thread_initializer=tune_thread,
            recorder=self.recorder,
            tokens=TokenVerifier.of(settings.oidc),
            hooks=combine(hooks, traffic),
            is_shared=cell == SHARED_CELL,
        )
        self.reporter = Reporter(
            ReplicaReports(self._db, replica_id or secrets.token_hex(8), cell),
            assignment,
            self.table,
            self.follower,
            self.service.asked,
            recent,
            traffic,
            poll_interval_s=serving.poll_interval_s,
        )

    def start(self, wait_s: float) -> bool:
        """Start the threads, and wait for the first assignment and the models that were asked recently.

        On a machine that has no record of these, it waits for all models.

        Args:
            wait_s: Longest wait in seconds while the registry can't be read; while it is read ``READING_WAIT_S``.
                Afterwards the replica continues in the background, and answers "not ready". For models it waits
                ``MODELS_WAIT_S``; afterwards requests load those that are not loaded yet.

        Returns:
            Whether these loads ended in that time.

        Raises:
            PlatformError: There is no assignment, and ``serving.require_assignment`` is set.
        """
        self.recorder.log.start()
        with _without_collection():
            self.follower.start()
            self.reporter.start()
            if not self._wait_assignment(wait_s):
                if self._requires_assignment:
                    self.stop()
                    raise PlatformError(
                        f"The registry could not be read within {wait_s:g} s.",
                        internal=str(self.follower.failure or "no answer"),
                        remedy="Correct the database's URLs and tenant key, or wait until the database is available.",
                        component="replica",
                    )
                logger.warning("The registry could not be read within %g s; the replica keeps trying.", wait_s)
                self.table.make_way()
                return False
            wait_s = min(wait_s, MODELS_WAIT_S)
            recent = [key for key in self._recent if self.table.pointer(key) is not None]
            is_loaded = self.table.wait_for(recent, wait_s) if recent else self.table.wait_idle(wait_s)
            self.table.make_way()
            freeze_loaded()
        logger.info("Serving: %s.", self.service.describe())
        return is_loaded

    def _wait_assignment(self, wait_s: float) -> bool:
        began = time.monotonic()
        while not self.follower.wait_first(_LOOK_S):
            most_s = wait_s if self.follower.failure is not None else max(wait_s, READING_WAIT_S)
            if time.monotonic() - began >= most_s:
                return False
        return True

    def check_health(self) -> None:
        """Check whether the replica must be replaced. May wait for the registry.

        Raises:
            PlatformError: The follower thread has ended; or too many calls or loads of models have not returned, and it
                is this replica's turn to be replaced.
        """
        # An unavailable registry is no reason for a restart: the replica serves its last assignment.
        if not self.follower.is_alive:
            raise PlatformError("The follower thread has ended.", remedy="Replace the replica.", component="replica")
        if not self.service.is_spent:
            self._turn.release()
        # Without the registry it is nobody's turn: a successor would not know what to serve.
        elif self._turn.holds() and time.monotonic() - self._turn.since >= REPLACED_AFTER_S:
            self._lost.add(self.service.lost_versions)
            raise PlatformError(
                f"{self.service.lost_calls} calls and {len(self.table.lost_loads)} loads of models have not returned.",
                remedy="Replace the replica, and correct the models that its log names.",
                component="replica",
            )

    def stop(self) -> None:
        """Stop the threads, write the rest of the prediction log, and close the connections."""
        self.reporter.stop()
        self.follower.stop()
        self.table.close()
        self.service.close()
        self.recorder.close()
        self._turn.release()
        self._db.close()
