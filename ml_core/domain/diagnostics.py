"""The diagnostics of a run: what a person wants to see of its model on the held-out rows and no metric holds.

They are stored as JSON in the run's file ``diagnostics.json``, whose fields are those of ``Diagnostics``. They hold
column names and classes, and no cell: a value of a row enters only in a mean of ten rows or more, or as a quantile of
residuals that is rounded to two digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

DIAGNOSTICS_FILE = "diagnostics.json"


@dataclass(frozen=True, slots=True)
class Confusion:
    """Truth against prediction.

    Attributes:
        classes: The most frequent classes, as texts, in the order of the model.
        has_others: Whether ``counts`` ends with a row and a column of all other classes and of unknown labels.
        counts: ``(n, n)`` rows, by truth and then by prediction.
    """

    classes: Sequence[str]
    has_others: bool
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows whose predicted class has a similar probability.

    Attributes:
        probability: The mean probability of the predicted class.
        share_right: The share of the rows whose predicted class is the true one.
    """

    probability: float
    share_right: float
    rows: int


@dataclass(frozen=True, slots=True)
class ResidualBin:
    """Rows with similar predictions; residuals are truth minus prediction, in the target's unit.

    Attributes:
        prediction: The mean prediction.
        residual: The mean residual.
        spread: The standard deviation of the residuals.
    """

    prediction: float
    residual: float
    spread: float
    rows: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows by residual: ``counts[i]`` lie from ``edges[i]`` to ``edges[i + 1]``; the outer bins have all beyond."""

    edges: Sequence[float]
    counts: Sequence[int]


@dataclass(frozen=True, slots=True)
class IntervalCoverage:
    """How often intervals of a coverage hold the truth.

    Attributes:
        coverage: What was asked for.
        measured: The share of held-out rows whose interval holds the truth, where the interval was made of the other
            half of the held-out rows; the mean over several halvings.
        half_width: What the version's interval adds to a prediction on each side, in the target's unit.
    """

    coverage: float
    measured: float
    half_width: float


@dataclass(frozen=True, slots=True)
class Importance:
    """How much worse the metric becomes when the values of an input column are permuted among the rows."""

    column: str
    worse_by: float


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """The diagnostics of a model. What does not apply is empty or None.

    Attributes:
        rows: The number of held-out rows.
        baseline: Metric → value of an answer that ignores all columns.
        intervals: Of a regression.
        importances: By input column, the most important first.
        importance_metric: ``balanced_accuracy`` or ``rmse``: what ``Importance.worse_by`` is a difference of.
        notes: Sentences on what was left out.
    """

    rows: int
    baseline: Mapping[str, float] = field(default_factory=dict)
    confusion: Confusion | None = None
    calibration: Sequence[CalibrationBin] = ()
    residuals: Sequence[ResidualBin] = ()
    residual_histogram: Histogram | None = None
    intervals: Sequence[IntervalCoverage] = ()
    importances: Sequence[Importance] = ()
    importance_metric: str | None = None
    notes: Sequence[str] = ()
