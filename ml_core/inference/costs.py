"""What the calls of a model cost, and how fast they empty its queue, as measured."""

from __future__ import annotations

import math

import numpy as np

MAX_FIXED_SHARE = 0.25
"""Of the cost of a call; calls with a high fixed cost are longer for it than they are asked to be."""
FIRST_ROWS = 64
"""Rows of a call of which no cost is known."""
# Weight of the newest call in the moving average. A slow first call is forgotten after about twelve others.
_WEIGHT = 0.25


class CostModel:
    """Processor time of a call, in seconds, by number of rows. Calls on several threads may be recorded.

    Each bucket of doubling size (1, 2-3, 4-7, … rows) has exponentially weighted means of rows and seconds. Pass the
    processor time of the calling thread: wall time would include waiting for the interpreter lock.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, float]] = {}

    def observe(self, rows: int, seconds: float) -> None:
        """Record a call."""
        bucket, known = rows.bit_length(), self._known
        if (means := known.get(bucket)) is None:
            self._known = {**known, bucket: (rows, seconds)}  # a new one, since another thread may go through it
        else:
            of_rows, before = means
            known[bucket] = of_rows + _WEIGHT * (rows - of_rows), before + _WEIGHT * (seconds - before)

    def estimate(self, rows: int) -> float:
        """Estimate the seconds of a call; infinity before the first call.

        A size without a measurement has the upper bound that its neighbours give: at most that of a larger call, and
        at most proportional to that of a smaller call.
        """
        bucket, known = rows.bit_length(), self._known
        if bucket in known:
            return known[bucket][1]
        smaller = max((each for each in known if each < bucket), default=None)
        larger = min((each for each in known if each > bucket), default=None)
        bound = math.inf if larger is None else known[larger][1]
        return bound if smaller is None else min(bound, known[smaller][1] * 2.0 ** (bucket - smaller))

    def rows_within(self, seconds: float) -> int:
        """Estimate the rows of a call of so many seconds; ``FIRST_ROWS`` before the first call.

        At least so many that the fixed cost is no more than ``MAX_FIXED_SHARE`` of the call.
        """
        fixed, per_row = self._line()
        within = max(seconds, fixed / MAX_FIXED_SHARE) - fixed
        return FIRST_ROWS if per_row is None else max(1, int(min(within / per_row, 2.0**31)))

    def _line(self) -> tuple[float, float | None]:
        """The fixed seconds of a call and those for each row, by least squares of the relative error."""
        known = np.array([(1.0, rows, max(seconds, 1e-9)) for rows, seconds in self._known.values()])
        if not len(known):
            return 0.0, None
        relative = known[:, :2] / known[:, 2:]
        if len(known) > 1:
            fixed, per_row = np.linalg.lstsq(relative, np.ones(len(known)), rcond=None)[0].tolist()
            if fixed >= 0:
                return (fixed, per_row) if per_row > 0 else (float(known[:, 2].min()), 1e-12)
        rows = relative[:, 1]
        return 0.0, float(rows.sum() / (rows @ rows))


class DrainRate:
    """Rows per second that leave a busy queue, by the wall clock; gives the Retry-After of a refused request."""

    def __init__(self) -> None:
        self._rows = self._seconds = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Record answered rows and the seconds since the rows before them."""
        self._rows += _WEIGHT * (rows - self._rows)
        self._seconds += _WEIGHT * (seconds - self._seconds)

    def seconds_for(self, rows: int) -> float:
        """Estimate the seconds until the rows are answered; 0 before the first measurement."""
        return rows * self._seconds / self._rows if self._rows else 0.0
