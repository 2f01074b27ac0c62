"""``select``: the algorithm of a training that names none, by cross-validation of a few candidates.

What a candidate costs is estimated from the table and not measured, so that the choice depends on no clock, and a
specification has one artifact digest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_core.domain.columns import ColumnKind
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.signature import OutputKind
from ml_core.evaluation.metrics import Metrics
from ml_core.exceptions import public_text
from ml_core.models.algorithms import CLASSIFICATION, REGRESSION
from ml_core.models.model_factory import ModelFactory
from ml_core.training.candidates import candidates_of, given_for_all
from ml_core.training.cross_validation import EncodedFold, Objective, divide_into_folds, encoded_folds, spread_rows
from ml_core.training.forest_size import most_bytes
from ml_core.training.request import TrainingRequest
from ml_core.training.strategies import Facts
from ml_core.training.table import TrainingTable

Spread = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], list[Any]]

_METRICS = {OutputKind.CLASSES: ("log_loss", "accuracy"), OutputKind.NUMBER: ("r2", "rmse")}
"""The metric that selects, and the one for a small table with a fold on which that is not defined."""
_SMALL, _FOLDS_OF_SMALL, _FOLDS = 5_000, 5, 3
_LARGE = 10_000
"""Rows from which one of the folds tells candidates apart well enough, if more would mean fewer rows."""
_MIN_ROWS = 1_000
"""On fewer rows no candidate is measured for the sake of the budget."""
_TIE = 0.01
"""Of the best loss: a loss that is so little greater is a price for a cheaper answer, if that much may be chance."""
_MAX_BYTES = 2**29
"""Of a candidate's artifact, of which a replica is to hold many."""
_SEED = 0
_MAX_ERROR = 200


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected hyperparameters, with ``algorithm``, and what the selection found as JSON.

    Attributes:
        record: ``metric``, ``folds``, ``rows`` and ``candidates``, the best score first: each with ``hyperparameters``,
            ``score``, ``std`` and ``selected``, or ``error``.
    """

    hyperparameters: Mapping[str, Any]
    record: Mapping[str, Any]


@dataclass(slots=True)
class _Effort:
    """How thoroughly candidates are measured: the most for which the estimates of all together are affordable."""

    candidates: list[dict[str, Any]]
    rows: int
    folds: int
    left_out: list[dict[str, Any]]

    def leave_out(self, candidate: dict[str, Any], why: str) -> None:
        """Record a candidate that is not measured."""
        self.left_out.append({"hyperparameters": candidate, "selected": False, "error": f"not measured: {why}"})


def select(request: TrainingRequest, table: TrainingTable, output: OutputKind, spread: Spread) -> Selection:
    """Measure the candidates by log loss or R² on the training rows; the held-out rows take no part.

    Each candidate is measured on the same folds. Of those whose score differs from the best one by at most a hundredth,
    and by at most one standard error of the differences, the first in the order of ``candidates_of`` is selected.

    Args:
        request: A training that selects.
        table: Its data.
        output: Of its model type.
        spread: Calls a function with each of a sequence of arguments, in any order or process.

    Raises:
        TrainingError: A hyperparameter of the caller's is none of a candidate's. What fails in the measurement is
            recorded, and raises nothing.
    """
    has_texts = any(column.kind is ColumnKind.TEXT for column in table.inputs)
    model_type, given = request.model_type_in_use, given_for_all(request.hyperparameters)
    candidates = candidates_of(model_type, request.hyperparameters, has_texts=has_texts)
    effort = _affordable(table, candidates, output, request.selection_seconds)
    objective = Objective(model_type, output, _METRICS[output][-1], given)
    measured = _measure(request, _sampled(table, effort.rows, output), effort, objective, spread)
    if not request.shows_cells:
        measured = [[of if isinstance(of, dict) else of.partition(":")[0] for of in each] for each in measured]
    chosen, record = _chosen(effort, measured, _METRICS[output])
    return Selection({**given, **chosen}, record)


def _measure(
    request: TrainingRequest, sample: TrainingTable, effort: _Effort, objective: Objective, spread: Spread
) -> list[list[Metrics | str]]:
    """For each candidate and fold its metrics, or why it has none."""
    try:
        count = max(_FOLDS, effort.folds)
        folds = divide_into_folds(sample, objective.output, count, _SEED, is_strict=False)[: effort.folds]
        # No candidate of a table with texts needs a dense matrix.
        encoded = list(encoded_folds(request, sample, folds, takes_sparse=True))
    except Exception as error:  # noqa: BLE001 - a processor of the caller's own can raise anything; the fit reports it
        return [[public_text(error)] for _ in effort.candidates]
    items = [(objective, fold, each) for each in effort.candidates for fold in encoded]
    found = [public_text(of) if isinstance(of, Exception) else of for of in spread(_measured, items)]
    return [found[start : start + len(encoded)] for start in range(0, len(found), len(encoded))]


def _measured(objective: Objective, fold: EncodedFold, hyperparameters: Mapping[str, Any]) -> Metrics | str:
    """The metrics of a candidate on a fold, or why it has none."""
    try:
        return objective.measure(fold, hyperparameters, 1.0)
    except Exception as error:  # noqa: BLE001 - an estimator can raise anything, and the other candidates remain
        return public_text(error)


def _chosen(
    effort: _Effort, measured: Sequence[Sequence[Metrics | str]], metrics: Sequence[str]
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The candidate that is selected, and the record; if none could be measured it is the first one."""
    every = [of for each in measured for of in each if isinstance(of, dict)]
    metric = next(name for name in metrics if all(name in of for of in every))
    sign = -1.0 if HIGHER_IS_BETTER[metric] else 1.0
    found: list[dict[str, Any]] = []
    losses: dict[int, Any] = {}
    for number, (hyperparameters, of) in enumerate(zip(effort.candidates, measured, strict=True)):
        entry: dict[str, Any] = {"hyperparameters": dict(hyperparameters), "selected": False}
        if (error := next((each for each in of if isinstance(each, str)), None)) is not None:
            found.append({**entry, "error": error[:_MAX_ERROR]})
            continue
        values = np.array([each[metric] for each in of if isinstance(each, dict)])
        losses[number] = sign * values
        found.append({**entry, "score": float(values.mean()), "std": float(values.std())})
    best = min(losses.values(), key=np.mean, default=None)
    chosen = next((number for number, loss in losses.items() if _is_tie(loss, best)), 0)
    found[chosen]["selected"] = True
    found.sort(key=lambda entry: sign * entry.get("score", sign * math.inf))
    record = {
        "metric": metric,
        "folds": len(measured[0]),
        "rows": effort.rows,
        "candidates": [*found, *effort.left_out],
    }
    return effort.candidates[chosen], record


def _is_tie(loss: Any, best: Any) -> bool:
    """Whether ``(n_folds,)`` losses differ from the best ones by one standard error and by ``_TIE`` at most."""
    differences = loss - best
    error = differences.std(ddof=1) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return bool(differences.mean() <= min(error, _TIE * abs(best.mean())))


def _affordable(
    table: TrainingTable, candidates: Sequence[dict[str, Any]], output: OutputKind, seconds: float
) -> _Effort:
    """First there are fewer folds, then fewer rows, at last fewer candidates, the dearest of which is left out."""
    kinds, target = Counter(column.kind for column in table.inputs), table.train.target
    model_type = CLASSIFICATION if output is OutputKind.CLASSES else REGRESSION
    n_classes = len(np.unique(target)) if output is OutputKind.CLASSES and target is not None else 1
    n_rows = table.train.n_rows
    of = _Effort([], n_rows, _FOLDS_OF_SMALL if n_rows <= _SMALL else _FOLDS, [])
    for each in candidates:  # the first of which is no forest
        n_bytes = most_bytes(ModelFactory.create_model(model_type, each), n_rows, n_classes)
        if n_bytes <= _MAX_BYTES:
            of.candidates.append(each)
        else:
            of.leave_out(each, f"its artifact could take {n_bytes / 2**30:,.1f} GiB")

    def cost_s(hyperparameters: Mapping[str, Any]) -> float:
        algorithm = hyperparameters["algorithm"]
        facts = Facts(of.rows, kinds, algorithm, hyperparameters, is_regression=output is OutputKind.NUMBER)
        # Boosting and linear models fit one function a class, unless there are two.
        return of.folds * facts.fit_s * (n_classes if n_classes > 2 and algorithm != "random_forest" else 1)

    def total_s() -> float:
        return of.folds * Facts(of.rows, kinds).read_s + sum(map(cost_s, of.candidates))

    while (total := total_s()) > seconds:
        if of.folds > _FOLDS:
            of.folds = _FOLDS
        elif of.folds > 1 and n_rows >= _LARGE:
            of.folds = 1
        elif of.rows > _MIN_ROWS:
            of.rows = max(_MIN_ROWS, of.rows // 2)
        elif len(of.candidates) > 1:
            dearest = max(of.candidates, key=cost_s)
            of.candidates.remove(dearest)
            of.leave_out(dearest, f"it would take about {cost_s(dearest):,.0f} s of {total:,.0f} s")
        else:
            break
    return of


def _sampled(table: TrainingTable, rows: int, output: OutputKind) -> TrainingTable:
    """The table with so many of its training rows, in which classes have about their shares."""
    part = table.train
    if rows == part.n_rows:
        return table
    order = np.random.default_rng(_SEED).permutation(part.n_rows)
    labels = part.target if output is OutputKind.CLASSES else None
    return table.with_rows(np.sort(spread_rows(order, labels)[:rows]))
