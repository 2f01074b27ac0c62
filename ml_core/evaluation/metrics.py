"""Metrics of held-out rows. Every value is a finite float, so JSON can carry it.

Definitions are scikit-learn's (``sklearn.metrics``); a metric that is not defined on the rows given is left out. Those
of every classification are computed here, since scikit-learn's checks take longer than a small table. Which way each is
better is in ``ml_core.domain.metric``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from ml_core.domain.signature import OutputKind

Metrics = dict[str, float]

# Rows for the metrics whose cost grows with their square.
_PAIRWISE_ROWS = 2_000


def classification(
    truth: NDArray[Any],
    predicted: NDArray[Any],
    probabilities: NDArray[np.float64] | None,
    classes: NDArray[Any],
) -> Metrics:
    """Gives accuracy, balanced_accuracy, f1_macro; with probabilities log_loss and, for two classes, roc_auc.

    A row whose label was not seen in training counts as wrong. Log loss and ROC AUC are of the other rows, since the
    model gives such a label no probability.

    Args:
        truth: ``(n_rows,)`` labels.
        predicted: ``(n_rows,)`` labels.
        probabilities: ``(n_rows, n_classes)``, or None.
        classes: ``(n_classes,)`` the model's classes, sorted.
    """
    labels, codes = np.unique(_together(truth, predicted), return_inverse=True)
    true, answered = codes[: len(truth)], codes[len(truth) :]
    of_truth, of_answer, of_both = (
        np.bincount(codes, minlength=len(labels)) for codes in (true, answered, true[true == answered])
    )
    values = of_counts(of_truth, of_answer, of_both)
    known = np.isin(truth, classes)
    if probabilities is not None and known.any():
        codes = np.searchsorted(classes, truth[known])
        right = np.clip(probabilities[known][np.arange(len(codes)), codes], np.finfo(np.float64).eps, 1.0)
        values["log_loss"] = float(-np.log(right).mean())
        if len(classes) == 2 and len(np.unique(codes)) == 2:
            values["roc_auc"] = _roc_auc(codes == 1, probabilities[known][:, 1])
    return _finite(values)


def of_counts(truth: NDArray[np.int64], answered: NDArray[np.int64], both: NDArray[np.int64]) -> Metrics:
    """Gives accuracy, balanced_accuracy and f1_macro.

    Args:
        truth: ``(n_labels,)`` rows that have each label; no label is neither true nor answered.
        answered: ``(n_labels,)`` rows to which each label was answered.
        both: ``(n_labels,)`` rows to which their label was answered.
    """
    present = truth > 0
    return {
        "accuracy": float(both.sum() / truth.sum()),
        "balanced_accuracy": float(np.mean(both[present] / truth[present])),
        "f1_macro": float(np.mean(2 * both / (truth + answered))),
    }


def regression(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> Metrics:
    """Gives r2 (left out where the truth is constant), mae and rmse, the last two in the target's unit."""
    error = truth - predicted
    values = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.square(error).mean()))}
    spread = float(np.square(truth - truth.mean()).sum())
    if spread > 0:
        values["r2"] = 1.0 - float(np.square(error).sum()) / spread
    return _finite(values)


def clustering(features: Any, clusters: NDArray[Any], truth: NDArray[Any] | None) -> Metrics:
    """Gives clusters (found on these rows), silhouette and davies_bouldin; adjusted_rand where labels are known.

    Args:
        features: ``(n_rows, n_features)`` encoded rows, dense or sparse.
        clusters: ``(n_rows,)`` cluster numbers.
        truth: ``(n_rows,)`` labels, or None.
    """
    values: Metrics = {"clusters": float(len(np.unique(clusters)))}
    step = max(1, math.ceil(len(clusters) / _PAIRWISE_ROWS))
    sample, labels = features[::step], clusters[::step]
    if 1 < len(np.unique(labels)) < len(labels):
        values["silhouette"] = float(sk.silhouette_score(sample, labels))
        dense = sample.toarray() if hasattr(sample, "toarray") else sample
        values["davies_bouldin"] = float(sk.davies_bouldin_score(dense, labels))
    if truth is not None:
        values["adjusted_rand"] = float(sk.adjusted_rand_score(truth, clusters))
    return _finite(values)


def anomalies(predicted: NDArray[Any], normality: NDArray[np.float64], truth: NDArray[Any] | None) -> Metrics:
    """Gives anomaly_rate; with a two-valued truth, whose rarer value is the anomaly, roc_auc and average_precision.

    Args:
        predicted: ``(n_rows,)`` -1 for an anomaly, else 1.
        normality: ``(n_rows,)`` higher is more normal.
        truth: ``(n_rows,)`` labels, or None.
    """
    values: Metrics = {"anomaly_rate": float(np.mean(predicted == -1))}
    labels, counts = np.unique(truth, return_counts=True) if truth is not None else (np.array([]), np.array([]))
    if len(labels) == 2 and truth is not None:
        is_anomaly = truth == labels[counts.argmin()]
        values["roc_auc"] = _roc_auc(is_anomaly, -normality)
        values["average_precision"] = float(sk.average_precision_score(is_anomaly, -normality))
    return _finite(values)


@dataclass(frozen=True, slots=True)
class Answered:
    """What a fitted pipeline answered to rows.

    Attributes:
        features: ``(n_rows, n_features)`` encoded rows, dense or sparse.
        predicted: ``(n_rows,)`` labels or numbers.
        probabilities: ``(n_rows, n_classes)``, or None.
    """

    features: Any
    predicted: NDArray[Any]
    probabilities: NDArray[np.float64] | None


def answer(pipeline: Any, columns: Any, output: OutputKind) -> Answered:
    """The answers of a pipeline, whose last step estimates, to canonical columns."""
    estimator = pipeline.steps[-1][1]
    features = columns
    for _, step in pipeline.steps[:-1]:
        features = step.transform(features)
    has_probabilities = output is OutputKind.CLASSES and hasattr(estimator, "predict_proba")
    probabilities = estimator.predict_proba(features) if has_probabilities else None
    return Answered(features, np.asarray(estimator.predict(features)), probabilities)


def evaluate(estimator: Any, answered: Answered, truth: NDArray[Any] | None, output: OutputKind) -> Metrics:
    """The metrics that fit an estimator's output.

    Args:
        estimator: Fitted.
        answered: What its pipeline answered.
        truth: ``(n_rows,)`` labels or numbers; None for clustering and anomaly detection without them.
        output: What the pipeline answers.
    """
    predicted = answered.predicted
    if output is OutputKind.CLASSES and truth is not None:
        return classification(truth, predicted, answered.probabilities, np.asarray(estimator.classes_))
    if output is OutputKind.NUMBER and truth is not None:
        return regression(truth, predicted)
    if output is OutputKind.CLUSTER:
        return clustering(answered.features, predicted, truth)
    if output is OutputKind.ANOMALY and hasattr(estimator, "decision_function"):
        return anomalies(predicted, np.asarray(estimator.decision_function(answered.features)), truth)
    return {}


def _together(truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[Any]:
    """Both, one after the other.

    Raises:
        ValueError: One holds strings and the other numbers, which NumPy would make strings.
    """
    if len({isinstance(label, str) for labels in (truth, predicted) for label in labels[:1]}) > 1:
        raise ValueError("the labels mix strings and numbers")
    return np.concatenate([truth, predicted])


def _roc_auc(is_positive: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """The share of pairs of a positive and a negative row that the score puts in order (Mann and Whitney, 1947)."""
    _, place, counts = np.unique(np.asarray_chkfinite(score), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # the mean of those that equal scores share
    positives = np.count_nonzero(is_positive)
    in_order = ranks[is_positive].sum() - positives * (positives + 1) / 2
    return float(in_order / (positives * (len(ranks) - positives)))


def _finite(values: Metrics) -> Metrics:
    return {name: value for name, value in values.items() if math.isfinite(value)}
