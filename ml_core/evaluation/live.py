"""Live scores, their confidence intervals, and whether one is worse than another by more than chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.quality import Score, Verdict
from ml_core.evaluation import metrics
from ml_core.evaluation.metrics import Metrics

MIN_LABELS = 30
"""Of a day for a verdict; the interval is as wide as so few labels make it."""
ACCURACY_TOLERANCE = 0.05
"""How much less than on the held-out rows is no alert: a split at random flatters (rows of the same time are on both
sides), so that a model which lost nothing is a little worse on live rows."""
ERROR_TOLERANCE = 0.1
"""The same of the mean absolute error, as a share of it."""
Z_95 = 1.959964
Z_99 = 2.575829


@dataclass(frozen=True, slots=True)
class LabelCount:
    """So many rows have this label and were answered so; both as texts."""

    prediction: str
    label: str
    rows: int


def measure_classes(counts: Iterable[LabelCount]) -> tuple[Metrics, Score] | None:
    """The metrics of classification that need no probabilities, of counted rows; None without rows."""
    truth, answered, both = Counter[str](), Counter[str](), Counter[str]()
    for each in counts:
        truth[each.label] += each.rows
        answered[each.prediction] += each.rows
        if each.label == each.prediction:
            both[each.label] += each.rows
    if not truth:
        return None
    names = sorted(truth.keys() | answered.keys())
    values = metrics.of_counts(*(np.array([tally[name] for name in names]) for tally in (truth, answered, both)))
    return values, Score("accuracy", values["accuracy"], truth.total())


def measure_numbers(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> tuple[Metrics, Score] | None:
    """The metrics of regression of ``(n,)`` labels and predictions; None without rows, or if none is finite."""
    if not len(truth):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        values = metrics.regression(truth, predicted)
        std = float(np.abs(truth - predicted).std(ddof=1)) if len(truth) > 1 else None
    if "mae" not in values:
        return None
    return values, Score("mae", values["mae"], len(truth), std if std is not None and math.isfinite(std) else None)


def held_out_score(metric: str, held_out: Mapping[str, float], rows: int) -> Score | None:
    """The score of the held-out rows of training; None if it was not measured."""
    value = held_out.get(metric)
    return None if value is None or rows < 1 else Score(metric, float(value), rows)


def interval(score: Score, z: float = Z_95) -> tuple[float, float] | None:
    """The confidence interval of a score; None if its standard deviation is not known.

    Of an accuracy that of Wilson (Journal of the American Statistical Association 22, 1927), which holds for few rows
    and near 1; of a mean absolute error that of the normal approximation of a mean.
    """
    n, value = score.rows, score.value
    if score.metric == "accuracy":
        center = (value + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
        return max(0.0, center - half), min(1.0, center + half)
    if score.std is None:
        return None
    half = z * score.std / math.sqrt(n)
    return max(0.0, value - half), value + half


def worse_by(now: Score, before: Score, z: float = Z_99) -> tuple[float, float] | None:
    """The confidence interval of how much worse a score is than another; below 0: it is better.

    Of accuracies that of Newcombe (Statistics in Medicine 17, 1998, method 10), made of those of Wilson. Of mean
    absolute errors the normal one; a standard deviation that is not known is taken to be that of the other.

    Returns:
        Low and high; None if no standard deviation is known.
    """
    if now.metric == "accuracy":
        (low_n, high_n), (low_b, high_b) = interval(now, z) or (0.0, 1.0), interval(before, z) or (0.0, 1.0)
        difference = before.value - now.value
        below = math.hypot(before.value - low_b, high_n - now.value)
        above = math.hypot(high_b - before.value, now.value - low_n)
        return difference - below, difference + above
    std_n, std_b = now.std, before.std
    if std_n is None and std_b is None:
        return None
    of_now, of_before = (each if each is not None else std_b if std_n is None else std_n for each in (std_n, std_b))
    half = z * math.sqrt((of_now or 0.0) ** 2 / now.rows + (of_before or 0.0) ** 2 / before.rows)
    return now.value - before.value - half, now.value - before.value + half


def judge(now: Score, held_out: Score | None) -> Verdict:
    """Whether live rows are answered worse than held-out ones, by more than the tolerance and with 99 % confidence."""
    if held_out is None or now.rows < MIN_LABELS or (found := worse_by(now, held_out)) is None:
        return Verdict.UNKNOWN
    tolerance = ACCURACY_TOLERANCE if now.metric == "accuracy" else ERROR_TOLERANCE * held_out.value
    return Verdict.ALERT if found[0] > tolerance else Verdict.OK
