"""Estimators from sufficient statistics: what parts of a table give is added, and equals what the table gives.

Counts are equal; sums of floats differ by the order of addition, within a relative 1e-9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg


@dataclass(frozen=True, slots=True)
class Moments:
    """The count, mean and squared deviations of rows; ``+`` gives those of both parts.

    The sum is that of Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979), which is as exact as two passes over all rows.

    Attributes:
        mean: ``(n_columns,)``.
        spread: ``(n_columns,)`` sums of squared deviations, or ``(n_columns, n_columns)`` sums of products of them.
    """

    count: int
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.float64], *, products: bool = False) -> Self:
        """Those of ``(n_rows, n_columns)``; zeros without a row."""
        width = rows.shape[1]
        if not len(rows):
            return cls(0, np.zeros(width), np.zeros((width, width) if products else width))
        mean = rows.mean(axis=0)
        deviations = rows - mean
        spread = deviations.T @ deviations if products else np.square(deviations, out=deviations).sum(axis=0)
        return cls(len(rows), mean, spread)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if not count:
            return self
        step = other.mean - self.mean
        squares = np.outer(step, step) if self.spread.ndim == 2 else step * step
        mean = self.mean + step * (other.count / count)
        return Moments(count, mean, self.spread + other.spread + squares * (self.count * other.count / count))


Statistics = Sequence[Moments]


def summarize(estimator: Any, X: NDArray[np.float64], y: NDArray[Any], classes: NDArray[Any] | None) -> Statistics:
    """The statistics of a part of the rows for naive Bayes (moments of each class) or ridge (of features and targets).

    Args:
        estimator: ``GaussianNB``, ``Ridge`` or ``RidgeClassifier``.
        X: ``(n_rows, n_features)``.
        y: ``(n_rows,)``.
        classes: Those of all parts, sorted; None for ``Ridge``.
    """
    if classes is not None and hasattr(estimator, "var_smoothing"):
        return [Moments.of(X[y == label]) for label in classes]
    targets = y.reshape(-1, 1) if classes is None else _plus_minus(y, classes)
    return [Moments.of(np.hstack([X, targets]), products=True)]


def _plus_minus(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """1 in the column of a row's class, else -1; of two classes one column, as ``LabelBinarizer`` has it."""
    columns = classes[1:] if len(classes) == 2 else classes
    return np.where(y.reshape(-1, 1) == columns, 1.0, -1.0)


def fit_from(estimator: Any, parts: Sequence[Statistics], classes: NDArray[Any] | None) -> None:
    """Fit an estimator from the statistics of all parts, in place.

    Ridge has an intercept and a positive ``alpha``; see ``ml_core.training.strategies``.
    """
    merged = [reduce(add, same) for same in zip(*parts, strict=True)]
    is_bayes = hasattr(estimator, "var_smoothing")
    n_targets = 1 if classes is None or len(classes) == 2 else len(classes)
    width = len(merged[0].mean) if is_bayes else len(merged[0].mean) - n_targets
    # scikit-learn checks the parameters and sets every attribute; the numbers follow.
    labels = np.array([0.0, 1.0]) if classes is None else classes
    estimator.fit(np.zeros((len(labels), width)), labels)
    if is_bayes:
        _set_bayes(estimator, merged)
    else:
        _set_ridge(estimator, merged[0], width)


def _set_bayes(estimator: Any, by_class: Statistics) -> None:
    total = reduce(add, by_class)
    counts = np.array([float(each.count) for each in by_class])
    estimator.epsilon_ = estimator.var_smoothing * np.max(total.spread / total.count)
    estimator.theta_ = np.array([each.mean for each in by_class])
    estimator.var_ = np.array([each.spread / each.count for each in by_class]) + estimator.epsilon_
    estimator.class_count_ = counts
    if estimator.priors is None:
        estimator.class_prior_ = counts / counts.sum()


def _set_ridge(estimator: Any, moments: Moments, width: int) -> None:
    gram = moments.spread[:width, :width] + estimator.alpha * np.eye(width)
    weights = linalg.solve(gram, moments.spread[:width, width:], assume_a="pos").T
    intercept = moments.mean[width:] - weights @ moments.mean[:width]
    estimator.coef_ = weights.reshape(estimator.coef_.shape)
    shape = np.shape(estimator.intercept_)
    estimator.intercept_ = intercept.reshape(shape) if shape else estimator.intercept_.dtype.type(intercept[0])
