"""The reporter: a thread that writes the state of the replica to the registry.

It writes a report after a change, a heartbeat every few seconds, and every ten seconds what was answered. While the
registry is unavailable nothing is written; the first report afterwards is complete.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

from ml_core.domain.replica_report import ReplicaReport
from ml_core.domain.traffic import INTERVAL_S
from ml_core.exceptions import MLFrameworkError
from ml_core.inference.assignment import Assignment
from ml_core.inference.follower import AssignmentFollower
from ml_core.inference.model_table import ModelTable
from ml_core.inference.recent import MAX_RECENT, RecentPointers
from ml_core.inference.traffic import TrafficCounter
from ml_core.registry.replicas import ReplicaReports

logger = logging.getLogger(__name__)

GATHER_S = 0.02
"""Pause between a change and its report: most loads end within it, so one report is enough."""
# The largest share of time for writing reports, while models are loaded one after another.
_SHARE = 0.1
_KEEP_RECENT_S = 60.0
# Heartbeat intervals without a heartbeat after which a replica counts as dead.
_HEARTBEATS_ALIVE = 3.5


def heartbeat_s(poll_interval_s: float) -> float:
    """Seconds between two heartbeats."""
    return min(60.0, max(2.0, 2 * poll_interval_s))


class Reporter:
    """Reports until it is stopped.

    Args:
        reports: The reports of this replica in the registry.
        assignment: The generation that the replica applied.
        table: The loaded models.
        follower: Whether the replica is current.
        asked: Tenants that were asked for predictions; emptied at each heartbeat.
        recent: Keeps the pointers that were asked recently, once a minute.
        traffic: What was answered.
        poll_interval_s: The poll interval of the follower, from which the heartbeat interval follows.
    """

    def __init__(
        self,
        reports: ReplicaReports,
        assignment: Assignment,
        table: ModelTable,
        follower: AssignmentFollower,
        asked: set[str],
        recent: RecentPointers,
        traffic: TrafficCounter,
        *,
        poll_interval_s: float,
    ) -> None:
        self._reports = reports
        self._assignment = assignment
        self._table = table
        self._follower = follower
        self._asked = asked
        self._recent, self._kept_at = recent, time.monotonic()
        self._traffic = traffic
        self._heartbeat_s = heartbeat_s(poll_interval_s)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlcore-reporter", daemon=True)
        self._written: ReplicaReport | None = None
        self._written_at = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Stop the thread and remove the report."""
        self._stopping.set()
        self._table.changed.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        pause = GATHER_S
        while True:
            self._table.changed.wait(min(self._heartbeat_s, INTERVAL_S))
            if self._stopping.wait(pause):
                break
            self._table.changed.clear()
            began = time.monotonic()
            if began - self._kept_at >= _KEEP_RECENT_S:
                self._keep_recent()
            try:
                self._report()
                self._report_traffic()
                pause = max(GATHER_S, (time.monotonic() - began) / _SHARE)
            except MLFrameworkError as error:
                logger.debug("The replica's report can't be written: %s", error)
                pause = self._heartbeat_s
            except Exception:
                logger.exception("The replica's report failed unexpectedly.")
                pause = self._heartbeat_s
        self._keep_recent()
        with suppress(MLFrameworkError):
            self._reports.remove()

    def _keep_recent(self) -> None:
        self._recent.write(self._table.recently_used(MAX_RECENT))
        self._kept_at = time.monotonic()

    def _report(self) -> None:
        report = self._collect()
        is_due = time.monotonic() - self._written_at >= self._heartbeat_s / 2
        if report is None or (report == self._written and not is_due):
            return
        ttl_s = self._heartbeat_s * _HEARTBEATS_ALIVE
        if report != self._written or not self._reports.touch(ttl_s):
            self._written = None  # unknown if the write fails: it may have been committed
            self._reports.write(report, ttl_s)
        self._written, self._written_at = report, time.monotonic()
        # The event loop adds meanwhile.
        if asked := {self._asked.pop() for _ in range(len(self._asked))}:
            try:
                self._reports.note_requests(asked)
            except MLFrameworkError:
                self._asked |= asked
                raise

    def _report_traffic(self) -> None:
        if not (intervals := self._traffic.take()):
            return
        try:
            self._reports.add_traffic(intervals)
        except MLFrameworkError:
            self._traffic.give_back(intervals)
            raise

    def _collect(self) -> ReplicaReport | None:
        """The present report; None until the assignment is read."""
        generation, epoch = self._assignment.generation, self._assignment.epoch
        if generation is None:
            return None
        # Read after the generation, so that the versions of that generation are included.
        pending, seen = self._table.pending(), self._table.describe()
        return ReplicaReport(
            generation,
            epoch,
            self._follower.is_current,
            seen["pointers"],
            seen["loaded"],
            pending.deferred,
            pending.loading,
            pending.failed,
            pending.listed,
        )
