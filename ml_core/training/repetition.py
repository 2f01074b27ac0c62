"""``cross_validated``: a training repeated in folds of its rows, so that its metrics have a deviation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from ml_core.domain.signature import OutputKind
from ml_core.evaluation.metrics import Metrics, answer, evaluate
from ml_core.training.cross_validation import Rows, divide_into_folds
from ml_core.training.pipelines import fit_pipeline, pipeline_of
from ml_core.training.request import TrainingRequest
from ml_core.training.selection import Spread
from ml_core.training.table import Part, TrainingTable

_SEED = 1
"""Other folds than those that selected the algorithm, on which its score is the best of several."""


def cross_validated(
    request: TrainingRequest,
    hyperparameters: Mapping[str, Any],
    table: TrainingTable,
    output: OutputKind,
    spread: Spread,
) -> dict[str, Any]:
    """Fit and measure on the folds of the training rows; the held-out rows take no part.

    Returns:
        ``folds``, and ``metrics``: metric → ``mean`` and ``std`` over the folds, of those that each fold has; empty if
        the request asks for none.

    Raises:
        TrainingError: The rows can't be divided into so many folds.
        Exception: What an estimator raises.
    """
    if request.cross_validation is None:
        return {}
    folds = divide_into_folds(table, output, request.cross_validation, _SEED)
    pipelines = [pipeline_of(request, hyperparameters, table.with_rows(rows), output) for rows, _ in folds]
    items = [(pipeline, table.train, *rows, output) for pipeline, rows in zip(pipelines, folds, strict=True)]
    found: list[Metrics] = []
    for of in spread(_measured, items):
        if isinstance(of, Exception):
            raise of
        found.append(of)
    common = [name for name in found[0] if all(name in of for of in found)]
    values = {name: np.array([of[name] for of in found]) for name in common}
    metrics = {name: {"mean": float(each.mean()), "std": float(each.std())} for name, each in values.items()}
    return {"folds": len(folds), "metrics": metrics}


def _measured(pipeline: Pipeline, part: Part, train: Rows, test: Rows, output: OutputKind) -> Metrics:
    fitted, measured = part.take(train), part.take(test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit on all rows gives its own
        fit_pipeline(pipeline, fitted.columns, fitted.target, fitted.weights)
        answered = answer(pipeline, measured.columns, output)
        return evaluate(pipeline[-1], answered, measured.target, output)
