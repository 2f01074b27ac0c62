"""Measurements of a model: the cost of a call, and the rate at which its queue drains.

The cost decides where a batch runs; the rate gives the Retry-After of a refused request.
"""

from __future__ import annotations

import math

# Weight of the newest call in the moving average. A slow first call is forgotten after about twelve others.
_WEIGHT = 0.25


class CostModel:
    """Processor time of a call, in seconds, by number of rows.

    Each bucket of doubling size (1, 2-3, 4-7, … rows) has an exponentially weighted mean. Pass the processor time of
    the calling thread: wall time would include waiting for the interpreter lock.
    """

    def __init__(self) -> None:
        self._seconds: list[float | None] = [None] * 33

    def observe(self, rows: int, seconds: float) -> None:
        """Record a call."""
        bucket = min(rows.bit_length(), 32)
        before = self._seconds[bucket]
        self._seconds[bucket] = seconds if before is None else before + _WEIGHT * (seconds - before)

    def estimate(self, rows: int) -> float:
        """Estimate the seconds of a call; infinity before the first call.

        A size without a measurement has the upper bound that its neighbours give: at most that of a larger call, and
        at most proportional to that of a smaller call.
        """
        bucket = min(rows.bit_length(), 32)
        known = self._seconds[bucket]
        return self._bound(bucket) if known is None else known

    def _bound(self, bucket: int) -> float:
        smaller = next(((i, s) for i in range(bucket - 1, -1, -1) if (s := self._seconds[i]) is not None), None)
        larger = next((s for s in self._seconds[bucket + 1 :] if s is not None), math.inf)
        return larger if smaller is None else min(larger, smaller[1] * 2.0 ** (bucket - smaller[0]))


class DrainRate:
    """Rows per second that leave a busy queue, by the wall clock."""

    def __init__(self) -> None:
        self._rows = self._seconds = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Record answered rows and the seconds since the rows before them."""
        self._rows += _WEIGHT * (rows - self._rows)
        self._seconds += _WEIGHT * (seconds - self._seconds)

    def seconds_for(self, rows: int) -> float:
        """Estimate the seconds until the rows are answered; 0 before the first measurement."""
        return rows * self._seconds / self._rows if self._rows else 0.0
