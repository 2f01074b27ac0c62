"""Requests, errors and latency of the last quarter of an hour, in intervals of ten seconds."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Final

INTERVAL_S: Final = 10
INTERVALS: Final = 90
"""How many are kept: 15 minutes."""

# In seconds; those of mlcore_request_seconds, so that both tell the same. The last bucket has no bound.
_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BUCKETS: Final = len(_BOUNDS) + 1


def bucket_of(seconds: float) -> int:
    """The bucket of a duration; a bucket holds what is at most its bound."""
    return bisect_left(_BOUNDS, seconds)


@dataclass(frozen=True, slots=True)
class Interval:
    """The requests of a replica, or of a whole cell, that ended in an interval.

    Attributes:
        at: Its beginning, UTC.
        answered: With a status below 400.
        refused: With a status of 400 to 499, or the client left.
        failed: With a status of 500 or above.
        latency: Answered requests in each bucket.
    """

    at: datetime
    answered: int
    refused: int
    failed: int
    latency: Sequence[int]

    def quantile_ms(self, share: float) -> float | None:
        """A quantile of the latency, interpolated within its bucket; None if nothing was answered.

        Beyond the last bound it is that bound: the true value is larger.
        """
        total = sum(self.latency)
        if not total:
            return None
        rank = share * total
        sums = list(accumulate(self.latency))
        bucket = bisect_left(sums, rank)
        if bucket == len(_BOUNDS):
            return 1000 * _BOUNDS[-1]
        low = _BOUNDS[bucket - 1] if bucket else 0.0
        inside = (rank - (sums[bucket] - self.latency[bucket])) / self.latency[bucket]
        return 1000 * (low + inside * (_BOUNDS[bucket] - low))


@dataclass(frozen=True, slots=True)
class TrafficPoint:
    """An interval as it is shown.

    Attributes:
        at: Its beginning, UTC.
        requests_per_s: All that ended in it.
        refused_per_s: Those that were refused for what the caller sent, or for a quota; None: it is not known.
        errors_per_s: Those that the platform failed; None: it is not known.
        p50_ms: The median latency of the answered ones; None: there were none.
        p99_ms: The 99th percentile.
    """

    at: datetime
    requests_per_s: float
    refused_per_s: float | None
    errors_per_s: float | None
    p50_ms: float | None
    p99_ms: float | None


def point_of(interval: Interval) -> TrafficPoint:
    """An interval as it is shown."""
    requests = interval.answered + interval.refused + interval.failed
    return TrafficPoint(
        interval.at,
        requests / INTERVAL_S,
        interval.refused / INTERVAL_S,
        interval.failed / INTERVAL_S,
        interval.quantile_ms(0.5),
        interval.quantile_ms(0.99),
    )


def shown_intervals(now: datetime) -> list[datetime]:
    """The beginnings of the intervals that are shown, oldest first.

    Without the present one, the one before, which replicas report in the course of the present one, and the oldest that
    is kept, which may be removed at any moment.
    """
    present = math.floor(now.timestamp() / INTERVAL_S)
    return [datetime.fromtimestamp(INTERVAL_S * each, UTC) for each in range(present - INTERVALS + 1, present - 1)]
