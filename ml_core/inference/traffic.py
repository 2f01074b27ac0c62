"""``TrafficCounter``: counts what a replica answers, for its reports to the registry."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ml_core.domain.traffic import BUCKETS, INTERVAL_S, INTERVALS, Interval, bucket_of
from ml_core.observability import Hooks

_REFUSED, _FAILED = 400, 500


class TrafficCounter(Hooks):
    """Counts the requests for tenants by interval and outcome. Health checks of the replica are left out.

    What is not taken is kept as long as it would be shown, so a registry that is away loses nothing of it.

    Args:
        clock: Seconds since 1970: the intervals of all replicas are the same.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # held for moments only: the event loop takes it
        self._ended: deque[Interval] = deque(maxlen=INTERVALS)
        self._begin(self._now())

    def request_ended(self, route: str, status: int, seconds: float, tenant: str | None) -> None:  # noqa: ARG002
        """Count a request. Called by the edge."""
        if not route.startswith("/t/"):
            return
        with self._lock:
            self._turn()
            if status < _REFUSED:
                self._latency[bucket_of(seconds)] += 1
            elif status < _FAILED:
                self._refused += 1
            else:
                self._failed += 1

    def take(self) -> Sequence[Interval]:
        """The intervals that have ended, oldest first, without those that had no request; each is taken once."""
        with self._lock:
            self._turn()
            taken = list(self._ended)
            self._ended.clear()
        return taken

    def give_back(self, intervals: Sequence[Interval]) -> None:
        """Intervals that were taken and could not be written."""
        with self._lock:
            if room := INTERVALS - len(self._ended):
                self._ended.extendleft(reversed(intervals[-room:]))

    def _now(self) -> int:
        return int(self._clock() // INTERVAL_S)

    def _begin(self, number: int) -> None:
        self._number, self._refused, self._failed, self._latency = number, 0, 0, [0] * BUCKETS

    def _turn(self) -> None:
        """End the present interval if its time is over."""
        if (now := self._now()) == self._number:
            return
        answered = sum(self._latency)
        if answered or self._refused or self._failed:
            at = datetime.fromtimestamp(INTERVAL_S * self._number, UTC)
            self._ended.append(Interval(at, answered, self._refused, self._failed, self._latency))
        self._begin(now)
