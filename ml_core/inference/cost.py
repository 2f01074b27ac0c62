"""How long a model takes and how fast its queue empties, learned from its calls.

The one decides where a batch runs; the other is sent to a client that was refused.
"""

from __future__ import annotations

import math

# Weight of the newest call: high enough to forget a cold first call within a dozen.
_WEIGHT = 0.25


class CostModel:
    """Seconds of processor time of one call, by the number of rows.

    Calls are kept in buckets of doubling size (1, 2-3, 4-7, … rows), each an exponentially weighted mean. It is the
    processor time of the calling thread that counts, so that waiting for the interpreter lock under load does not make
    a short model look long.
    """

    def __init__(self) -> None:
        self._seconds: list[float | None] = [None] * 33

    def observe(self, rows: int, seconds: float) -> None:
        """Note a call."""
        bucket = min(rows.bit_length(), 32)
        before = self._seconds[bucket]
        self._seconds[bucket] = seconds if before is None else before + _WEIGHT * (seconds - before)

    def estimate(self, rows: int) -> float:
        """Seconds that a call of so many rows takes; infinity before the first call.

        Where no call of that size was seen, the bound that the nearest sizes give: a larger call took longer, and a
        smaller one in proportion to its rows no less.
        """
        bucket = min(rows.bit_length(), 32)
        known = self._seconds[bucket]
        return self._bound(bucket) if known is None else known

    def _bound(self, bucket: int) -> float:
        smaller = next(((i, s) for i in range(bucket - 1, -1, -1) if (s := self._seconds[i]) is not None), None)
        larger = next((s for s in self._seconds[bucket + 1 :] if s is not None), math.inf)
        return larger if smaller is None else min(larger, smaller[1] * 2.0 ** (bucket - smaller[0]))


class DrainRate:
    """Rows that leave a queue a second while it is busy: by the wall clock, with all that the model waits for."""

    def __init__(self) -> None:
        self._rows = self._seconds = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Note that rows were answered, and how long after those before them."""
        self._rows += _WEIGHT * (rows - self._rows)
        self._seconds += _WEIGHT * (seconds - self._seconds)

    def seconds_for(self, rows: int) -> float:
        """Seconds until so many rows are answered; 0 before the first were."""
        return rows * self._seconds / self._rows if self._rows else 0.0
