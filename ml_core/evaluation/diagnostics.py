"""Diagnostics on held-out rows, and the learning curves that an estimator keeps of its own fit.

Every draw is seeded, so equal trainings have equal diagnostics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml_core.data.encoding.table import TableEncoder
from ml_core.domain.diagnostics import (
    CalibrationBin,
    Confusion,
    Diagnostics,
    Histogram,
    Importance,
    IntervalCoverage,
    ResidualBin,
)
from ml_core.domain.intervals import Residuals
from ml_core.domain.signature import OutputKind
from ml_core.domain.values import category_text
from ml_core.evaluation.metrics import Answered, Metrics

_SEED = 42
_MAX_CLASSES = 30
_CALIBRATION_BINS = 10
_RESIDUAL_BINS = 10
_HISTOGRAM_BINS = 20
_COVERAGES = (0.5, 0.8, 0.9, 0.95)
_HALVINGS = 20
_COVERAGE_ROWS = 20_000
_RESIDUAL_DIGITS = 2  # shown in a report, as those of the histogram
_ROWS_OF_BIN = 10  # the usual smallest cell of published tables
_INLIERS = 0.99
_LARGEST = 1e150  # its square is still a float
_IMPORTANCE_ROWS = 500
_MAX_PREDICTIONS = 50_000
_REPEATED_PREDICTIONS = 1_000
"""Where so many are not needed, each column is permuted several times, which makes its importance more exact."""
_CHUNK_ROWS = 5_000
_CHUNK_BYTES = 2**25


def diagnose(
    pipeline: Any,
    answered: Answered,
    truth: NDArray[Any] | None,
    output: OutputKind,
    baseline: Metrics,
    budget_s: float = math.inf,
) -> Diagnostics | None:
    """Diagnose a classifier or regressor on held-out rows.

    Args:
        pipeline: Fitted.
        answered: What it answered to the rows.
        truth: ``(n_rows,)`` labels or numbers.
        output: What the pipeline answers.
        baseline: The metrics of the baseline on these rows.
        budget_s: Seconds after which importances are given up; the first 5,000 predictions are made in any case.

    Returns:
        The diagnostics; None for a pipeline that answers neither classes nor numbers.
    """
    if truth is None or not len(truth) or output not in (OutputKind.CLASSES, OutputKind.NUMBER):
        return None
    found = Diagnostics(rows=len(truth), baseline=baseline)
    if output is OutputKind.CLASSES:
        classes = np.asarray(pipeline.steps[-1][1].classes_)
        confused = _confusion(truth, answered.predicted, classes)
        found = replace(found, confusion=confused, calibration=_calibration(truth, answered))
    else:
        found = replace(found, intervals=interval_coverage(truth, answered.predicted))
        found = _with_residuals(found, truth, answered.predicted)
    return _with_importances(found, pipeline, answered, truth, output, budget_s)


def interval_coverage(truth: NDArray[Any], predicted: NDArray[Any]) -> Sequence[IntervalCoverage]:
    """Measure intervals on held-out rows: each half is the judge of the other's, in several seeded halvings.

    A coverage for which half of the rows are too few is left out.
    """
    whole = Residuals.of(truth, predicted, _RESIDUAL_DIGITS)
    if whole is None or len(truth) < 2:
        return ()
    step = max(1, len(truth) // _COVERAGE_ROWS)
    sizes, random = np.abs(truth - predicted)[::step], np.random.default_rng(_SEED)
    half = len(sizes) // 2
    found: dict[float, list[float]] = {level: [] for level in _COVERAGES if level <= half / (half + 1)}
    for _ in range(_HALVINGS):
        order = random.permutation(len(sizes))
        made, judge = sizes[order[:half]], sizes[order[half:]]
        of_half = Residuals.of(made, np.zeros(half), 3)
        for level, shares in found.items():
            shares.append(float(np.mean(judge <= of_half.half_width(level))) if of_half else math.nan)
    return [IntervalCoverage(level, float(np.mean(shares)), whole.half_width(level)) for level, shares in found.items()]


def learning_curves(estimator: Any) -> Mapping[str, list[float]]:
    """Metric → its value after each round of boosting, where the estimator has kept them.

    scikit-learn's histogram boosting does so where it stops early, by default from 10,000 rows on. It then holds out
    rows of its own, ``rounds/early_stopping``.
    """
    scoring = getattr(estimator, "scoring", "train loss")  # GradientBoosting keeps losses and has no such parameter
    sign = -1.0 if scoring == "loss" else 1.0
    name = "loss" if scoring in ("loss", "train loss") else "score"
    kept = {"train": "train_score_", "early_stopping": "validation_score_"}
    curves = {part: np.asarray(getattr(estimator, attribute, ()), dtype=np.float64) for part, attribute in kept.items()}
    return {f"rounds/{part}/{name}": (sign * curve).tolist() for part, curve in curves.items() if curve.size > 1}


def _codes(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.intp]:
    """The place of each label among the sorted classes; their number for a label that is none of them."""
    codes = np.searchsorted(classes, labels)
    return np.where(np.isin(labels, classes), codes, len(classes)).astype(np.intp)


def _confusion(truth: NDArray[Any], predicted: NDArray[Any], classes: NDArray[Any]) -> Confusion:
    n_classes = len(classes)
    true, answer = _codes(truth, classes), _codes(predicted, classes)
    by_frequency = np.argsort(-np.bincount(true, minlength=n_classes)[:n_classes], kind="stable")
    shown = np.sort(by_frequency[:_MAX_CLASSES])
    places = np.full(n_classes + 1, len(shown), dtype=np.intp)
    places[shown] = np.arange(len(shown))
    size = len(shown) + 1
    counts = np.bincount(places[true] * size + places[answer], minlength=size * size).reshape(size, size)
    has_others = bool(counts[-1].any() or counts[:, -1].any())
    if not has_others:
        counts = counts[:-1, :-1]
    return Confusion([category_text(label) for label in classes[shown]], has_others, counts.tolist())


def _calibration(truth: NDArray[Any], answered: Answered) -> Sequence[CalibrationBin]:
    if answered.probabilities is None:
        return ()
    probability = np.clip(np.nan_to_num(answered.probabilities.max(axis=1)), 0.0, 1.0)
    right = answered.predicted == truth
    numbers = np.minimum((probability * _CALIBRATION_BINS).astype(np.intp), _CALIBRATION_BINS - 1)
    rows_of = (np.flatnonzero(numbers == number) for number in range(_CALIBRATION_BINS))
    return [
        CalibrationBin(float(probability[rows].mean()), float(right[rows].mean()), len(rows))
        for rows in rows_of
        if len(rows)
    ]


def _with_residuals(found: Diagnostics, truth: NDArray[Any], predicted: NDArray[Any]) -> Diagnostics:
    usable = (np.abs(truth) < _LARGEST) & (np.abs(predicted) < _LARGEST)
    prediction, residual = predicted[usable], truth[usable] - predicted[usable]
    if len(residual) < _ROWS_OF_BIN:
        note = f"Residuals are not shown: {_ROWS_OF_BIN} held-out rows are the fewest that a bin shows."
        return replace(found, notes=(*found.notes, note))
    order = np.argsort(prediction, kind="stable")
    bins = [
        ResidualBin(
            float(prediction[rows].mean()), float(residual[rows].mean()), float(residual[rows].std()), len(rows)
        )
        for rows in np.array_split(order, min(_RESIDUAL_BINS, len(order) // _ROWS_OF_BIN))
    ]
    # To two digits and symmetric, since an edge at the largest residual would show that row.
    end = float(f"{np.quantile(np.abs(residual), _INLIERS):.1e}") or 1.0
    counts, edges = np.histogram(np.clip(residual, -end, end), bins=_HISTOGRAM_BINS, range=(-end, end))
    return replace(found, residuals=bins, residual_histogram=Histogram(edges.tolist(), counts.tolist()))


def _with_importances(
    found: Diagnostics, pipeline: Any, answered: Answered, truth: NDArray[Any], output: OutputKind, budget_s: float
) -> Diagnostics:
    """Permutation importances: Breiman, Random Forests (2001), section 10, on held-out rows.

    The features of a column are permuted together, which equals a permutation of the column before it is encoded.
    """
    encoder, estimator = pipeline.steps[0][1], pipeline.steps[-1][1]
    if len(pipeline.steps) != 2 or not isinstance(encoder, TableEncoder):
        return _without(found, "the processor is the caller's own, so a feature may depend on several columns")
    names, owners = np.unique(encoder.feature_columns, return_inverse=True)
    random, rows = np.random.default_rng(_SEED), np.arange(len(truth))
    if len(rows) > _IMPORTANCE_ROWS:
        rows = np.sort(random.choice(rows, _IMPORTANCE_ROWS, replace=False))
    predictions = len(names) * len(rows)
    if predictions > _MAX_PREDICTIONS:
        return _without(found, f"they need {predictions} predictions, more than {_MAX_PREDICTIONS}")
    copies = max(1, _REPEATED_PREDICTIONS // predictions)
    features, truth = answered.features[rows], np.tile(truth[rows], copies)
    score = _score(truth, np.tile(answered.predicted[rows], copies), output)
    chunk = max(1, min(_CHUNK_ROWS // len(truth), _CHUNK_BYTES // max(1, features.data.nbytes * copies)))
    losses: list[float] = []
    began = time.perf_counter()
    for start in range(0, len(names), chunk):
        if start and time.perf_counter() - began > budget_s:
            return _without(found, "they would take more than a tenth of the training's time")
        tables = np.repeat(np.arange(start, min(start + chunk, len(names))), copies)
        orders = [random.permutation(len(rows)) for _ in tables]
        predicted = estimator.predict(_permuted(features, [owners == table for table in tables], orders))
        losses += [score - _score(truth, part, output) for part in np.split(predicted, len(tables) // copies)]
    if not np.isfinite(losses).all():
        return _without(found, "a prediction is too large")
    ranked = sorted(zip(names.tolist(), losses, strict=True), key=lambda item: -item[1])
    metric = "balanced_accuracy" if output is OutputKind.CLASSES else "rmse"
    return replace(found, importances=[Importance(*each) for each in ranked], importance_metric=metric)


def _without(found: Diagnostics, why: str) -> Diagnostics:
    return replace(found, notes=(*found.notes, f"Importances are not shown: {why}."))


def _permuted(features: Any, masks: Sequence[NDArray[np.bool_]], orders: Sequence[NDArray[np.intp]]) -> Any:
    """A table of ``(n_rows, n_features)`` for each mask, one below the other; its masked features are reordered."""
    n_rows, n_features = features.shape
    if not sparse.issparse(features):
        tables = np.repeat(features[np.newaxis], len(masks), axis=0)
        for table, mask, order in zip(tables, masks, orders, strict=True):
            table[:, mask] = features[np.ix_(order, mask)]
        return tables.reshape(-1, n_features)
    entries = features.tocoo()
    places = [
        number * n_rows + np.where(mask[entries.col], np.argsort(order)[entries.row], entries.row)
        for number, (mask, order) in enumerate(zip(masks, orders, strict=True))
    ]
    columns, values = np.tile(entries.col, len(masks)), np.tile(entries.data, len(masks))
    matrix = sparse.csr_matrix((values, (np.concatenate(places), columns)), shape=(n_rows * len(masks), n_features))
    matrix.sort_indices()
    return matrix


def _score(truth: NDArray[Any], predicted: NDArray[Any], output: OutputKind) -> float:
    """Higher is better: balanced accuracy, or minus the root mean square error."""
    if output is OutputKind.CLASSES:
        _, label = np.unique(truth, return_inverse=True)
        return float((np.bincount(label, weights=predicted == truth) / np.bincount(label)).mean())
    with np.errstate(over="ignore", invalid="ignore"):
        return -float(np.sqrt(np.square(truth - predicted).mean()))
