"""A training repeated in folds of its rows, so that its metrics have a deviation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from ml_core.domain.signature import OutputKind
from ml_core.domain.train_spec import MAX_SEED, RareClasses
from ml_core.evaluation.metrics import Metrics, answer, evaluate
from ml_core.training.cross_validation import Rows, divide_into_folds
from ml_core.training.pipelines import fit_pipeline, pipeline_of
from ml_core.training.request import TrainingRequest
from ml_core.training.selection import Spread
from ml_core.training.table import Part, TrainingTable

_SEED = MAX_SEED + 1
"""No search and no selection has it: the best score of several on the same folds would be too good."""

Repetition = tuple[Pipeline, Part, Rows, Rows, OutputKind]


def repetitions_of(
    request: TrainingRequest, hyperparameters: Mapping[str, Any], table: TrainingTable, output: OutputKind
) -> list[Repetition]:
    """An unfitted pipeline for each fold of the training rows, and its rows; the held-out rows take no part.

    It costs little, so that what is refused is refused before the fit.

    Raises:
        TrainingError: The rows can't be divided into so many folds, or a fold can't be fitted.
    """
    folds = folds_of(request, table, output)
    pipelines = [pipeline_of(request, hyperparameters, table.with_rows(rows), output) for rows, _ in folds]
    return [(pipeline, table.train, *rows, output) for pipeline, rows in zip(pipelines, folds, strict=True)]


def folds_of(request: TrainingRequest, table: TrainingTable, output: OutputKind) -> list[tuple[Rows, Rows]]:
    """The folds of a cross-validation; none if the request asks for none. Rare classes that are kept are not measured.

    Raises:
        TrainingError: The rows can't be divided into so many.
    """
    if request.cross_validation is None:
        return []
    keeps = request.rare_classes is not None and RareClasses.parse(request.rare_classes).is_kept
    return divide_into_folds(
        table, output, request.cross_validation, _SEED, is_strict=not keeps, field="cross_validation"
    )


def repeated(repetitions: Sequence[Repetition], spread: Spread) -> dict[str, Any]:
    """Fit and measure the pipelines of folds.

    Returns:
        ``folds``, and ``metrics``: metric → ``mean`` and ``std`` over the folds, of those that each fold has; empty if
        there are no folds.

    Raises:
        Exception: What an estimator raises.
    """
    found: list[Metrics] = []
    for of in spread(_measured, repetitions) if repetitions else ():
        if isinstance(of, Exception):
            raise of
        found.append(of)
    if not found:
        return {}
    common = [name for name in found[0] if all(name in of for of in found)]
    values = {name: np.array([of[name] for of in found]) for name in common}
    metrics = {name: {"mean": float(each.mean()), "std": float(each.std())} for name, each in values.items()}
    return {"folds": len(found), "metrics": metrics}


def _measured(pipeline: Pipeline, part: Part, train: Rows, test: Rows, output: OutputKind) -> Metrics:
    fitted, measured = part.take(train), part.take(test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit on all rows gives its own
        fit_pipeline(pipeline, fitted.columns, fitted.target, fitted.weights)
        answered = answer(pipeline, measured.columns, output)
        return evaluate(pipeline[-1], answered, measured.target, output)
