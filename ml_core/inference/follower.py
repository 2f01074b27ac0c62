"""The follower: a thread that applies the assignment of the registry to a replica.

It is level-triggered: each read brings the replica up to date, whatever it missed. Notifications shorten the wait
between reads. While the registry is unavailable the replica keeps its state, reports it, and retries; then it reads a
snapshot.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ml_core.domain.assignment import AssignmentDelta
from ml_core.exceptions import MLFrameworkError
from ml_core.inference.assignment import Assignment
from ml_core.inference.model_table import ModelTable
from ml_core.observability import NO_HOOKS, Hooks

logger = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.25
"""Pause after the first failed read of the registry; doubles with each further failure."""
BACKOFF_MAX_S = 10.0
"""Longest pause: bounds the time until the replica uses a registry that is available again."""
STALE_AFTER_POLLS = 10
"""Poll intervals without a completed read after which the registry counts as unavailable, for a read that hangs."""


class AssignmentSource(Protocol):
    """Source of the assignment. The thread of the follower calls all methods; other threads may call ``close``."""

    def read(self, after: int | None) -> AssignmentDelta:
        """The changes after a generation; None: a snapshot."""

    def wait(self, timeout_s: float) -> bool:
        """Wait until the assignment may have changed (True) or the timeout passed (False)."""

    def close(self) -> None:
        """Close connections; wakes ``wait``."""


class Listener(Protocol):
    """A connection that receives notifications."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for a notification (True) or until the timeout passed (False)."""

    def close(self) -> None:
        """Close the connection; wakes ``wait``."""


class Feed(Protocol):
    """Reads the assignment; implemented by ``ml_core.registry.feed.FeedReader``."""

    def read(self, after: int | None) -> AssignmentDelta:
        """The changes after a generation; None: a snapshot."""


class NotifiedFeed:
    """An ``AssignmentSource`` of a feed and a listener.

    Args:
        feed: Reads the assignment.
        listen: Opens a listener on the channel of the feed.
    """

    def __init__(self, feed: Feed, listen: Callable[[], Listener]) -> None:
        self._feed = feed
        self._listen = listen
        self._listener: Listener | None = None

    def read(self, after: int | None) -> AssignmentDelta:
        """See ``AssignmentSource``."""
        try:
            # Opened before the read, so that a commit after the read wakes wait().
            if self._listener is None:
                self._listener = self._listen()
            return self._feed.read(after)
        except BaseException:
            self.close()
            raise

    def wait(self, timeout_s: float) -> bool:
        """See ``AssignmentSource``."""
        listener = self._listener
        if listener is None:
            return True
        try:
            return listener.wait(timeout_s)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See ``AssignmentSource``; ``read`` opens it again."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()


class AssignmentFollower:
    """Follows a source until it is stopped.

    Args:
        source: The source of the assignment.
        assignment: Receives tenants, keys and prediction policies.
        table: Receives rollouts.
        poll_interval_s: Longest time between two reads.
        clock: Monotonic, in seconds.
        hooks: Called after each read and after each change.
    """

    def __init__(
        self,
        source: AssignmentSource,
        assignment: Assignment,
        table: ModelTable,
        *,
        poll_interval_s: float,
        clock: Callable[[], float] = time.monotonic,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self._source = source
        self._assignment = assignment
        self._table = table
        self._poll_interval_s = poll_interval_s
        self._clock = clock
        self._hooks = hooks
        self._stopping = threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlcore-follower", daemon=True)
        self._failures = 0
        self._error: str | None = None
        self._seen_at: float | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop the thread; the assignment and the table keep their state."""
        self._stopping.set()
        self._source.close()  # wakes the thread
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def wait_first(self, timeout_s: float) -> bool:
        """Wait until the first snapshot is applied; False if the timeout passed."""
        return self._first.wait(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the last read succeeded and is recent."""
        return self._trouble(self._clock()) is None

    def _trouble(self, now: float) -> str | None:
        """A code for why the state may be out of date; None if it is current."""
        if self._error is not None:
            return self._error
        if self._seen_at is None:
            return "not_read_yet"
        return "no_answer" if now - self._seen_at > STALE_AFTER_POLLS * self._poll_interval_s else None

    def describe(self) -> dict[str, Any]:
        """The state of the connection to the registry, for health."""
        seen_at, now = self._seen_at, self._clock()
        trouble = self._trouble(now)
        return {
            "reachable": trouble is None,
            "last_seen_s": None if seen_at is None else round(now - seen_at, 3),
            "error": trouble,
        }

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
                self._source.wait(self._poll_interval_s)
            except Exception as error:  # noqa: BLE001 - without its follower a replica would serve a stale assignment
                if not self._stopping.is_set():
                    self._note_failure(error)
                    pause = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 10))
                    self._stopping.wait(pause)
        self._source.close()  # a read may have opened it after ``stop`` closed it

    def _look(self) -> None:
        # A snapshot after a failure: the registry may have been restored from an older backup.
        delta = self._source.read(None if self._failures else self._assignment.generation)
        # An empty delta is applied too if its generation is new, so that the next read starts there.
        if not delta.is_empty or delta.generation != self._assignment.generation:
            self._apply(delta)
        self._table.retry_failed()
        if self._failures:
            logger.info("The registry answers again.")
        self._failures, self._error, self._seen_at = 0, None, self._clock()
        self._hooks.assignment_read(time.time())
        self._first.set()

    def _apply(self, delta: AssignmentDelta) -> None:
        started, epoch_before = time.perf_counter(), self._assignment.epoch
        for tenant, exists in delta.tenants.items():
            if not exists:
                self._table.drop_tenant(tenant)
        self._table.apply(delta.rollouts, is_snapshot=delta.is_snapshot, keep=delta.unreadable)
        self._assignment.apply(delta)
        self._table.changed.set()  # wakes the reporter, which reports the generation
        logger.info("Applied the assignment: %s.", delta.describe())
        self._hooks.assignment_applied(
            delta.generation,
            time.perf_counter() - started,
            is_new_epoch=epoch_before not in (None, delta.epoch),
        )

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        # Health shows the code only: the message of a database driver may contain hosts and users.
        self._error = error.code if isinstance(error, MLFrameworkError) else type(error).__name__
        self._hooks.assignment_read_failed(self._error)
        if isinstance(error, MLFrameworkError):
            log = logger.warning if self._failures == 1 else logger.debug
            log("The assignment can't be read (failure %d): %s", self._failures, error)
        else:
            logger.error("Following the assignment failed unexpectedly.", exc_info=error)
