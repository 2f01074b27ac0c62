"""The follower: a thread that applies the assignment of the registry to a replica.

It is level-triggered: each read brings the replica up to date, whatever it missed. Notifications shorten the wait
between reads. While the registry is unavailable the replica keeps its state, reports it, and retries; then it reads a
snapshot.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ml_core.domain.assignment import AssignmentDelta
from ml_core.exceptions import MLFrameworkError
from ml_core.inference.assignment import Assignment
from ml_core.inference.model_table import ModelTable
from ml_core.inference.pointers import PointerKey
from ml_core.observability import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from ml_core.database.listener import Listener
    from ml_core.registry.feed import FeedReader

logger = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.25
"""Pause after the first failed read of the registry; doubles with each further failure."""
BACKOFF_MAX_S = 10.0
"""Longest pause: bounds the time until the replica uses a registry that is available again."""
STALE_AFTER_POLLS = 10
"""Poll intervals without a completed read after which the registry counts as unavailable, for a read that hangs."""


class AssignmentFollower:
    """Follows a feed until it is stopped.

    Args:
        feed: Reads the assignment.
        listen: Opens a listener on the channel of the feed; closing it wakes the thread.
        assignment: Receives tenants, keys, prediction policies and quotas.
        table: Receives rollouts.
        poll_interval_s: Longest time between two reads.
        first: Pointers of which a snapshot loads the models first.
        clock: Monotonic, in seconds.
        hooks: Called after each read and after each change.

    Attributes:
        failure: Why the last read failed, for operators; None: it succeeded, or there was none.
    """

    def __init__(
        self,
        feed: FeedReader,
        listen: Callable[[], Listener],
        assignment: Assignment,
        table: ModelTable,
        *,
        poll_interval_s: float,
        first: Sequence[PointerKey] = (),
        clock: Callable[[], float] = time.monotonic,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self._feed = feed
        self._load_first = first
        self._listen = listen
        self._listener: Listener | None = None
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
        self.failure: Exception | None = None
        self._seen_at: float | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop the thread; the assignment and the table keep their state."""
        self._stopping.set()
        self._close_listener()  # wakes the thread
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
                # Opened before the read, so that a commit after the read wakes it.
                listener = self._listener = self._listener or self._listen()
                self._look()
                listener.wait(self._poll_interval_s)
            except Exception as error:  # noqa: BLE001 - without its follower a replica would serve a stale assignment
                self._close_listener()
                if not self._stopping.is_set():
                    self._note_failure(error)
                    pause = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 10))
                    self._stopping.wait(pause)
        self._close_listener()  # it may have been opened after ``stop`` closed it

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _look(self) -> None:
        # A snapshot after a failure: the registry may have been restored from an older backup.
        delta = self._feed.read(None if self._failures else self._assignment.generation, self._table.take_freed())
        # An empty delta is applied too if its generation is new, so that the next read starts there.
        known = self._assignment
        if not delta.is_empty or (delta.generation, delta.replicas) != (known.generation, known.replicas):
            self._apply(delta)
        self._table.retry_failed()
        if self._failures:
            logger.info("The registry answers again.")
        self._failures, self._error, self.failure, self._seen_at = 0, None, None, self._clock()
        self._hooks.assignment_read(time.time())
        self._first.set()

    def _apply(self, delta: AssignmentDelta) -> None:
        started, epoch_before = time.perf_counter(), self._assignment.epoch
        for tenant, exists in delta.tenants.items():
            if not exists:
                self._table.drop_tenant(tenant)
        self._table.apply(delta.rollouts, is_snapshot=delta.is_snapshot, keep=delta.unreadable, first=self._load_first)
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
        self.failure = error
        # Health shows the code only: the message of a database driver may contain hosts and users.
        self._error = error.code if isinstance(error, MLFrameworkError) else type(error).__name__
        self._hooks.assignment_read_failed(self._error)
        if isinstance(error, MLFrameworkError):
            log = logger.warning if self._failures == 1 else logger.debug
            log("The assignment can't be read (failure %d): %s", self._failures, error)
        else:
            logger.error("Following the assignment failed unexpectedly.", exc_info=error)
