"""The paired bootstrap: how much better one model is than another on the same rows, with an interval.

Both models answer the same rows, so rows are resampled, with replacement: each resample holds, for every drawn row, its
truth and both answers, and gives one difference of the two metrics. The percentile interval of these
differences is that of Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Errors that both models
make drop out of the difference, which makes it narrow enough to decide on.

A version is "not worse" in the sense of a non-inferiority test: the interval's lower end, oriented so that higher is
better, is no lower than minus the margin. With a two-sided 95 % interval that is a one-sided test at the 2.5 % level.

Metrics are scikit-learn's (a test compares them), computed here for all resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.gates import LABEL_METRICS, PROBABILITY_METRICS, Interval
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.values import category_text, label_of

Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]

_BATCH_VALUES = 2_000_000
"""Resampled values that one array holds at a time: 16 MB of float64."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model answered.

    Attributes:
        predictions: ``(n_rows,)`` labels or numbers.
        probabilities: ``(n_rows, n_classes)``, or None.
        classes: The labels of the model, in the order of the probabilities.
    """

    predictions: NDArray[Any]
    probabilities: Floats | None = None
    classes: Sequence[Any] = ()


def compare(
    metric: str,
    truth: NDArray[Any],
    candidate: Answers,
    present: Answers,
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> Interval:
    """The difference of a metric between two models, and its paired bootstrap interval.

    Args:
        metric: One of ``ml_core.domain.gates.PAIRED_METRICS``.
        truth: ``(n_rows,)`` labels, compared as their ``category_text``, and strings as what they say where a model
            answers numbers or booleans; or float64.
        candidate: The new model's answers.
        present: The present model's.
        confidence: Of the two-sided interval.
        resamples: Number of resamples.
        seed: Of the draws.

    Returns:
        The interval; its ends are NaN where the metric is not defined on a resample (r2 of a constant truth).
    """
    from scipy import stats

    statistic = STATISTICS[metric]
    is_binary = _is_binary(candidate, present)
    new, old = (_row_values(metric, truth, answers, is_binary) for answers in (candidate, present))
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0

    def difference(*arrays: NDArray[Any], axis: int = -1) -> Floats:  # noqa: ARG001 - scipy names it, always the last
        half = len(new)
        return sign * (statistic(*arrays[:half]) - statistic(*arrays[half:]))

    found = stats.bootstrap(
        (*new, *old),
        difference,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=resamples,
        confidence_level=confidence,
        batch=max(1, _BATCH_VALUES // len(truth)),
        random_state=np.random.default_rng(seed),  # scipy 1.14 has no ``rng``
    )
    return Interval(
        difference=float(difference(*new, *old)),
        low=float(found.confidence_interval.low),
        high=float(found.confidence_interval.high),
        candidate=float(statistic(*new)),
        present=float(statistic(*old)),
    )


def measure(metric: str, truth: NDArray[Any], answers: Answers) -> float:
    """A metric of one model on all the rows."""
    return float(STATISTICS[metric](*_row_values(metric, truth, answers, _is_binary(answers))))


def _is_binary(*models: Answers) -> bool:
    """Whether each model has two classes. Both are measured on one scale: otherwise one Brier score would be halved."""
    return all(len(answers.classes) == 2 for answers in models)


def _row_values(metric: str, truth: NDArray[Any], answers: Answers, is_binary: bool) -> tuple[NDArray[Any], ...]:
    """What a metric needs to know of each row: arrays ``(n_rows,)``, which resampling indexes alike."""
    if metric in PROBABILITY_METRICS:
        return _probability_values(metric, truth, answers, is_binary)
    if metric in LABEL_METRICS:
        right, said = _truth_texts(truth, answers), _texts(answers.predictions)
        if metric == "accuracy":
            return ((right == said).astype(np.float64),)
        codes = {label: code for code, label in enumerate(sorted({*right.tolist(), *said.tolist()}))}
        return tuple(np.array([codes[label] for label in labels.tolist()]) for labels in (right, said))
    error = truth - np.asarray(answers.predictions, dtype=np.float64)
    if metric == "mae":
        return (np.abs(error),)
    return (truth, np.square(error)) if metric == "r2" else (np.square(error),)


def _probability_values(
    metric: str, truth: NDArray[Any], answers: Answers, is_binary: bool
) -> tuple[NDArray[Any], ...]:
    """The loss of each row. A label that is not one of the model's classes has the probability 0."""
    if answers.probabilities is None:
        raise ValueError(f"{metric} needs probabilities")
    position = {category_text(label): index for index, label in enumerate(answers.classes)}
    index = np.array([position.get(label, -1) for label in _truth_texts(truth, answers).tolist()])
    rows = np.arange(len(index))
    right = np.where(index >= 0, answers.probabilities[rows, index], 0.0)
    if metric == "log_loss":
        return (-np.log(np.clip(right, np.finfo(np.float64).eps, 1.0)),)
    # Brier's sum over the classes; halved for two, as scikit-learn does, so that it is the usual one of a yes or no. A
    # model of two classes is not halved beside one of more, see ``_is_binary``.
    squares = np.square(answers.probabilities).sum(axis=1) - np.square(right) + np.square(1.0 - right)
    return (squares / 2.0 if is_binary else squares,)


def _texts(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as ``(n_rows,) object`` of str: 1, 1.0 and "1" are one label, whichever table they came through."""
    texts = np.empty(len(labels), dtype=object)
    texts[:] = [category_text(label) for label in labels.tolist()]
    return texts


def _truth_texts(truth: NDArray[Any], answers: Answers) -> NDArray[Any]:
    """As ``_texts``, with strings as what they say unless the model's own labels are strings: ``1.0`` is 1, a cell."""
    if not answers.classes or any(isinstance(label, str) for label in answers.classes):
        return _texts(truth)
    labels = np.empty(len(truth), dtype=object)
    labels[:] = [label_of(value) if isinstance(value, str) else value for value in truth.tolist()]
    return _texts(labels)


def _mean(values: Floats) -> Floats:
    return np.asarray(values.mean(axis=-1))


def _root_mean(values: Floats) -> Floats:
    return np.sqrt(_mean(values))


def _r2(truth: Floats, squared_error: Floats) -> Floats:
    spread = np.square(truth - truth.mean(axis=-1, keepdims=True)).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, 1.0 - squared_error.sum(axis=-1) / spread, np.nan)


def _balanced_accuracy(right: NDArray[Any], said: NDArray[Any]) -> Floats:
    support, hits, _ = _counts(right, said)
    return _mean_where(support > 0, hits, support)


def _f1_macro(right: NDArray[Any], said: NDArray[Any]) -> Floats:
    support, hits, predicted = _counts(right, said)
    return _mean_where(support + predicted > 0, 2.0 * hits, support + predicted)


def _mean_where(there: NDArray[np.bool_], numerator: Floats, denominator: Floats) -> Floats:
    """The mean of the quotients over the classes that are there, ``(…, n_classes)`` to ``(…)``."""
    quotients = np.where(there, numerator / np.maximum(denominator, 1.0), 0.0)
    return np.asarray(quotients.sum(axis=-1) / there.sum(axis=-1))


def _counts(right: NDArray[Any], said: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """How often each class is true, rightly said and said: three arrays ``(…, n_classes)``, one row a resample."""
    n_classes = int(max(right.max(), said.max())) + 1
    shape = right.shape[:-1]
    resamples = int(np.prod(shape, dtype=np.int64))
    start = np.arange(resamples)[:, None] * n_classes
    cells = [(codes.reshape(resamples, -1) + start).ravel() for codes in (right, said)]
    hit = (right == said).ravel().astype(np.float64)
    count = [
        np.bincount(at, weights, minlength=resamples * n_classes).astype(np.float64).reshape(*shape, n_classes)
        for at, weights in ((cells[0], None), (cells[0], hit), (cells[1], None))
    ]
    return count[0], count[1], count[2]


STATISTICS: dict[str, Statistic] = {
    "accuracy": _mean,
    "balanced_accuracy": _balanced_accuracy,
    "brier_score": _mean,
    "f1_macro": _f1_macro,
    "log_loss": _mean,
    "mae": _mean,
    "mse": _mean,
    "r2": _r2,
    "rmse": _root_mean,
}
"""Metric → its value of the row values on the last axis."""
