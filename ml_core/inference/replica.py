"""One replica of a cell, put together from its settings: what follows, loads and answers in one serving process."""

from __future__ import annotations

import functools
import logging
import secrets
import time

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import FEED_CHANNEL
from ml_core.exceptions import ConfigurationError, PlatformError
from ml_core.inference.assignment import Assignment
from ml_core.inference.follower import AssignmentFollower, NotifiedFeed
from ml_core.inference.model_table import ModelTable
from ml_core.inference.prediction_log import PredictionLog
from ml_core.inference.process import freeze_loaded, tune_thread
from ml_core.inference.recorder import PredictionRecorder
from ml_core.inference.reporter import Reporter
from ml_core.inference.service import PredictionService
from ml_core.models.loading import load_version
from ml_core.models.store import platform_store
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.registry.feed import FeedReader
from ml_core.registry.oidc import TokenVerifier
from ml_core.registry.predictions.ingest import PredictionIngest
from ml_core.registry.replicas import ReplicaReports
from ml_core.settings import Settings

logger = logging.getLogger(__name__)


class Replica:
    """Follows the registry and answers. Creating it connects to nothing; ``start`` does.

    Args:
        settings: Must name the registry: a replica never starts a database of its own.
        replica_id: By which reports name it, such as its host's name for it; no other may ever have had it. None: a
            random one.
        hooks: Are called by all parts.

    Raises:
        ConfigurationError: No database is named.
    """

    def __init__(self, settings: Settings, replica_id: str | None = None, hooks: Hooks = NO_HOOKS) -> None:
        if settings.database.url is None:
            raise ConfigurationError(
                "A replica needs to know where the registry is.",
                remedy="Set MLCORE_DATABASE_URL (and MLCORE_DATABASE_INGEST_URL) in its environment.",
                setting="MLCORE_DATABASE_URL",
            )
        serving = settings.serving
        self._db = DatabaseConnection(settings=settings)
        feed = FeedReader(self._db)
        store = platform_store(settings)
        self.table = ModelTable(
            functools.partial(load_version, store),
            max_memory_bytes=serving.max_memory_mb * 2**20,
            load_threads=serving.load_threads,
            hooks=hooks,
        )
        assignment = Assignment()
        self.follower = AssignmentFollower(
            NotifiedFeed(feed, lambda: self._db.listen(FEED_CHANNEL)),
            assignment,
            self.table,
            poll_interval_s=serving.poll_interval_s,
            hooks=hooks,
        )
        self.reporter = Reporter(
            ReplicaReports(self._db, replica_id or secrets.token_hex(8)),
            assignment,
            self.table,
            self.follower,
            poll_interval_s=serving.poll_interval_s,
        )
        log = PredictionLog(PredictionIngest(self._db), settings.prediction_log, hooks)
        self.recorder = PredictionRecorder(assignment, log, self._db)
        self.service = PredictionService(
            assignment,
            self.table,
            feed.servable,
            limits=serving,
            follower=self.follower,
            thread_initializer=tune_thread,
            recorder=self.recorder,
            tokens=TokenVerifier.of(settings.oidc),
            hooks=hooks,
        )

    def start(self, wait_s: float) -> bool:
        """Follow the registry, and wait a while for the first assignment and its models.

        Args:
            wait_s: Seconds to wait at most. Afterwards the replica goes on by itself: without an assignment it answers
                that it is not ready, and a model that is not loaded is loaded when it is asked for.

        Returns:
            Whether everything was loaded, or failed to, in that time.
        """
        deadline = time.monotonic() + wait_s
        self.recorder.log.start()
        self.follower.start()
        self.reporter.start()
        if not self.follower.wait_first(wait_s):
            logger.warning("The registry could not be read within %g s; trying on.", wait_s)
            return False
        is_loaded = self.table.wait_idle(max(0.0, deadline - time.monotonic()))
        freeze_loaded()
        logger.info("Serving: %s.", self.service.describe())
        return is_loaded

    def check_health(self) -> None:
        """Whether this process is worth keeping. A registry that can't be reached is no reason to restart it.

        Raises:
            PlatformError: The follower has died, so that the replica would serve a stale assignment for ever.
        """
        if not self.follower.is_alive:
            raise PlatformError("The follower has died.", remedy="Replace the replica.", component="replica")

    def stop(self) -> None:
        """Stop following and loading, write what is left of the prediction log, and close the connections."""
        self.reporter.stop()
        self.follower.stop()
        self.table.close()
        self.service.close()
        self.recorder.close()
        self._db.close()
