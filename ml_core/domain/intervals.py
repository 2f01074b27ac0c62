"""Intervals around predicted numbers: split conformal prediction (Lei et al., 2018, JASA 113:1094).

The absolute residuals of n held-out rows, which the model was not fitted on, are sorted. An interval is the prediction
plus and minus the k-th smallest, k = ⌈(n + 1) · coverage⌉. If held-out and future rows are exchangeable, it holds the
truth of a future row with at least that probability, on average over rows and trainings, whatever the model. Rows that
drift, or that are later in time, are not exchangeable.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.document import Document
from ml_core.exceptions import InvalidRequestError, shown

# Coverages whose residuals are kept of many rows; one in between gets the next. A replica holds them for each version.
_LEVELS: Final = (*(number / 100 for number in (*range(5, 50, 5), *range(50, 100))), 0.995, 0.999)
_ALL_UP_TO: Final = 64
_ROUNDING = 1e-9  # of products such as 100 * 0.95


@dataclass(frozen=True, slots=True)
class Residuals(Document):
    """The absolute residuals of held-out rows that intervals need.

    Attributes:
        rows: The number of held-out rows, n.
        ranks: Ascending, from 1; all of them where there are few.
        sizes: The residual of each rank, in the target's unit, rounded up, so that rounding makes no interval narrower.
    """

    rows: int
    ranks: tuple[int, ...]
    sizes: tuple[float, ...]

    @classmethod
    def of(cls, truth: NDArray[Any], predicted: NDArray[Any], digits: int) -> Self | None:
        """Those of ``(n_rows,)`` truths and predictions; None where there is no row, or one is not finite.

        ``digits`` is the number of significant digits that are kept.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = np.sort(np.abs(truth - predicted))
        rows = len(sizes)
        if not rows or not np.isfinite(sizes).all():
            return None
        levels = (_rank(rows, level) for level in _LEVELS)
        ranks = range(1, rows + 1) if rows <= _ALL_UP_TO else sorted({*(k for k in levels if k <= rows), rows})
        return cls(rows, tuple(ranks), tuple(_rounded_up(float(sizes[rank - 1]), digits) for rank in ranks))

    def half_width(self, coverage: float) -> float:
        """What an interval adds to a prediction on each side.

        Raises:
            InvalidRequestError: The coverage is not between 0 and 1, or too high for so few held-out rows.
        """
        check_coverage(coverage)
        rank = _rank(self.rows, coverage)
        if rank > self.rows:
            needed = math.ceil(coverage / (1 - coverage) - _ROUNDING)
            highest = math.floor(1000 * self.rows / (self.rows + 1)) / 1000
            raise InvalidRequestError(
                f"A coverage of {coverage:g} needs {needed:,} held-out rows; the version has {self.rows:,}.",
                remedy=f"Ask for at most {highest:g}, or train on more rows.",
                field="interval",
            )
        return self.sizes[bisect_left(self.ranks, rank)]


def check_coverage(coverage: float) -> float:
    """A coverage that can be asked for.

    Raises:
        InvalidRequestError: It is not a number between 0 and 1.
    """
    if isinstance(coverage, bool) or not isinstance(coverage, int | float) or not 0 < coverage < 1:
        raise InvalidRequestError(
            f"The coverage of an interval is {shown(coverage)}; it must be a number between 0 and 1.",
            remedy="Ask for 0.9, for intervals that hold nine of ten truths.",
            field="interval",
        )
    return float(coverage)


def _rank(rows: int, coverage: float) -> int:
    return max(1, math.ceil((rows + 1) * coverage - _ROUNDING))


def _rounded_up(size: float, digits: int) -> float:
    if size == 0:
        return 0.0
    # By text: a power of ten below 1 is no float, and 0.3 would not be 0.3.
    shown = f"{size:.{digits - 1}e}"
    if float(shown) < size:
        mantissa, _, exponent = shown.partition("e")
        shown = f"{float(mantissa) + 10.0 ** (1 - digits):.{digits - 1}f}e{exponent}"
    return float(shown) if math.isfinite(float(shown)) else size
