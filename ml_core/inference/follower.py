"""The follower: a thread that keeps a replica on the registry's assignment.

It is level-triggered: whatever it missed, the next look brings it to the present. Notifications only shorten the wait.
When the registry can't be reached it keeps what it has, says so, and tries again; after that it reads everything anew.
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
"""Pause after the first failed look at the registry; it doubles with each further failure."""
BACKOFF_MAX_S = 10.0
"""Longest pause: a registry that is back is noticed within this time."""
STALE_AFTER_POLLS = 10
"""Polls without a look that ended, after which the registry counts as out of reach: it hangs rather than fails."""


class AssignmentSource(Protocol):
    """Where the assignment comes from. All calls are made by the follower's thread, but ``close`` by another."""

    def read(self, after: int | None) -> AssignmentDelta:
        """What changed after a generation, or everything for None."""

    def wait(self, timeout_s: float) -> bool:
        """Wait until something may have changed (True) or the time passed (False)."""

    def close(self) -> None:
        """Give connections back; wakes ``wait``."""


class Listener(Protocol):
    """A connection on which notifications arrive."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for a notification (True) or until the time passed (False)."""

    def close(self) -> None:
        """Close the connection; wakes ``wait``."""


class Feed(Protocol):
    """Reads the assignment from the registry; ``ml_core.registry.feed.FeedReader`` is the real one."""

    def read(self, after: int | None) -> AssignmentDelta:
        """What changed after a generation, or everything for None."""


class NotifiedFeed:
    """An ``AssignmentSource`` of a feed and a listener that is opened before the first read and again after an error.

    Args:
        feed: Reads the assignment.
        listen: Opens a listener on the feed's channel.
    """

    def __init__(self, feed: Feed, listen: Callable[[], Listener]) -> None:
        self._feed = feed
        self._listen = listen
        self._listener: Listener | None = None

    def read(self, after: int | None) -> AssignmentDelta:
        """See ``AssignmentSource``; what is committed after this read wakes ``wait``."""
        try:
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
        """See ``AssignmentSource``; a later ``read`` opens it again."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()


class AssignmentFollower:
    """Follows a source until it is stopped.

    Args:
        source: Where the assignment comes from.
        assignment: Receives tenants and keys.
        table: Receives rollouts.
        poll_interval_s: Longest time between two looks.
        clock: Seconds, monotonic.
        hooks: Are called after each look, and after a change.
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
        """Begin to follow."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop following; the assignment and the table keep what they have."""
        self._stopping.set()
        self._source.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def wait_first(self, timeout_s: float) -> bool:
        """Wait until the first snapshot was applied; False if the time passed first."""
        return self._first.wait(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the last look at the registry succeeded, and not long ago."""
        return self._trouble(self._clock()) is None

    def _trouble(self, now: float) -> str | None:
        """Why what is served may be out of date, in one word."""
        if self._error is not None:
            return self._error
        if self._seen_at is None:
            return "not_read_yet"
        return "no_answer" if now - self._seen_at > STALE_AFTER_POLLS * self._poll_interval_s else None

    def describe(self) -> dict[str, Any]:
        """How current the replica is, for health."""
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
            except Exception as error:  # noqa: BLE001 - a dead follower would serve a stale assignment for ever
                if not self._stopping.is_set():
                    self._note_failure(error)
                    pause = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 10))
                    self._stopping.wait(pause)
        self._source.close()  # again: a read may have opened it after ``stop`` closed it

    def _look(self) -> None:
        # After a failure everything is read anew: the registry may have been restored from an older copy.
        delta = self._source.read(None if self._failures else self._assignment.generation)
        # Also when nothing of it is for this replica, or can be read: or else it would be read again at every look.
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
        self._table.changed.set()  # the generation is reported with what the table made of it
        logger.info("Applied the assignment: %s.", delta.describe())
        self._hooks.assignment_applied(
            delta.generation,
            time.perf_counter() - started,
            is_new_epoch=epoch_before not in (None, delta.epoch),
        )

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        # The class is enough outside: messages of a driver may name hosts and users.
        self._error = error.code if isinstance(error, MLFrameworkError) else type(error).__name__
        self._hooks.assignment_read_failed(self._error)
        if isinstance(error, MLFrameworkError):
            log = logger.warning if self._failures == 1 else logger.debug
            log("The assignment can't be read (failure %d): %s", self._failures, error)
        else:
            logger.error("Following the assignment failed unexpectedly.", exc_info=error)
