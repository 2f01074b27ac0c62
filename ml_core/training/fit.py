"""``fit_model``: from a request to a fitted, measured model. Nothing is read or written outside of this process."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from sklearn import base
from sklearn.pipeline import Pipeline

from ml_core.data.kinds import InferredColumn
from ml_core.data.profile import profile_columns, profile_predictions
from ml_core.domain.columns import Columns
from ml_core.domain.diagnostics import Diagnostics
from ml_core.domain.intervals import Residuals
from ml_core.domain.quality import TrainingProfile
from ml_core.domain.signature import Output, OutputKind, Signature
from ml_core.domain.version import SelfTest
from ml_core.evaluation.diagnostics import diagnose, learning_curves
from ml_core.evaluation.metrics import Answered, Metrics, answer, evaluate
from ml_core.exceptions import PlatformError, TrainingError, public_text
from ml_core.ids import ModelId
from ml_core.models.algorithms import algorithm_of
from ml_core.models.loading import labels_to_json, threshold_of
from ml_core.models.model_factory import ModelFactory
from ml_core.training.baseline import baseline, worse_than_baseline
from ml_core.training.candidates import check_hyperparameters
from ml_core.training.column_notes import column_notes
from ml_core.training.forest_size import check_size
from ml_core.training.pipelines import check_options, estimator_of, fit_pipeline, forget_folds, pipeline_of
from ml_core.training.repetition import Repetition, repeated, repetitions_of
from ml_core.training.request import TrainingRequest, effective_hyperparameters
from ml_core.training.selection import Spread, select
from ml_core.training.self_test import common_categories, record_self_test, rows_of_training, synthetic_rows
from ml_core.training.table import Part, TrainingTable, read_training_table
from ml_core.training.targets import OUTPUTS

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_DIAGNOSTICS_SHARE = 0.1
"""Of a training's time until then, which its diagnostics may take."""
_HELD_OUT = 1_000
"""Rows that are kept until the version is registered."""
_MAX_WARNINGS = 5
_MAX_WARNING_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A fitted pipeline and all facts that a version records of it.

    Attributes:
        model_type: Such as ``classification``.
        pipeline: Encoder and estimator as one; takes canonical columns or a data frame.
        metrics: ``train`` and ``validation`` → metric → value; the pipeline was fitted on the training part only.
        baseline: Metric → value of an answer that ignores all columns, on the validation rows.
        hyperparameters: As given, as JSON.
        algorithm: Such as ``random_forest``; the class of an estimator that is not the platform's.
        effective_hyperparameters: The estimator's, those by default included.
        columns: The inferred columns of the data.
        n_rows: ``train`` and ``validation`` → rows.
        data_digest: sha256 of the training data as the pipeline saw it, see ``provenance.data_digest``.
        selection: How the algorithm was selected, see ``Selection.record``; empty where one was named.
        cross_validation: See ``repetition.repeated``; empty where there was none.
        notes: Sentences for the user: rows left out, a fit that did not converge.
        duration_s: Seconds of reading, fitting and measuring.
        diagnostics: What no metric shows of the held-out rows; None where there is nothing, or it failed.
        curves: Metric → its value after each round, see ``learning_curves``.
        profile: With which live rows are compared; None if that failed.
        held_out: Canonical columns of the first held-out rows, to prove a compiled form with.
    """

    model_id: ModelId
    model_type: str
    pipeline: Pipeline
    signature: Signature
    self_test: SelfTest
    metrics: Mapping[str, Metrics]
    baseline: Metrics
    hyperparameters: Mapping[str, Any]
    algorithm: str
    effective_hyperparameters: Mapping[str, Any]
    columns: tuple[InferredColumn, ...]
    n_rows: Mapping[str, int]
    data_digest: str
    notes: tuple[str, ...]
    duration_s: float = 0.0
    selection: Mapping[str, Any] = field(default_factory=dict)
    cross_validation: Mapping[str, Any] = field(default_factory=dict)
    diagnostics: Diagnostics | None = None
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    profile: TrainingProfile | None = None
    held_out: Columns = field(default_factory=dict)


def _in_turn(work: Callable[..., Any], items: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [work(*item) for item in items]


@dataclass(frozen=True, slots=True)
class Execution:
    """How the costly parts of a training are done; by default in this process.

    Attributes:
        read: A request and its output → the checked table.
        fit: Fits a pipeline on the columns that were read, ``(n_rows,)`` targets and perhaps weights, in place.
        answer: See ``ml_core.evaluation.metrics.answer``.
        spread: Calls a function with each of a sequence of arguments, for the selection of an algorithm and
            the folds of a cross-validation.
    """

    read: Callable[[TrainingRequest, OutputKind], TrainingTable] = read_training_table
    fit: Callable[..., object] = fit_pipeline
    answer: Callable[[Pipeline, Any, OutputKind], Answered] = answer
    spread: Spread = _in_turn


IN_PROCESS = Execution()


def fit_model(
    request: TrainingRequest,
    enter: Callable[[str], None] = lambda _stage: None,
    execution: Execution = IN_PROCESS,
) -> FittedModel:
    """Check the data, select an algorithm unless one is named, fit, measure on held-out rows and record a self-test.

    The pipeline is fitted on the training part only, so the held-out metrics are those of the very model that is
    returned. ``enter`` is called as a stage begins: ``read``, perhaps ``select``, ``fit``, ``evaluate`` and perhaps
    ``cross_validate``.

    Raises:
        TrainingError: ``stage`` is ``validate`` for data, kinds or hyperparameters that can't train, ``fit`` for an
            estimator that failed, ``evaluate`` for one that can't predict.
    """
    started = time.perf_counter()
    try:
        # First: a hyperparameter that does not exist is refused before the table is read.
        model_type, hyperparameters = request.model_type_in_use, request.hyperparameters
        selected: Mapping[str, Any] = {}
        if request.selects:
            check_hyperparameters(model_type, request.hyperparameters)
            output = OUTPUTS[model_type]
            check_options(request, output)
        else:
            estimator = ModelFactory.create_model(model_type, dict(request.hyperparameters))
            output = _output_of(estimator, request)
            check_options(request, output, estimator)
        enter("read")
        table = execution.read(request, output)
        if request.selects:
            enter("select")
            selection = select(request, table, output, execution.spread)
            hyperparameters, selected = selection.hyperparameters, selection.record
        enter("fit")
        pipeline = pipeline_of(request, hyperparameters, table, output)
        repetitions = repetitions_of(request, hyperparameters, table, output)
        warned = _fit(pipeline, table, execution)
        enter("evaluate")
        fitted = _evaluate(request, output, table, pipeline, execution, started)
        if repetitions:
            enter("cross_validate")
        cross_validation, failed = _repeated(repetitions, execution)
        return replace(
            fitted,
            notes=(*fitted.notes, *warned, *failed),
            selection=selected,
            cross_validation=cross_validation,
            duration_s=time.perf_counter() - started,
        )
    except TrainingError as error:
        error.__dict__["model_id"] = str(request.model_id)  # the readers of data don't know the model
        raise


def _output_of(estimator: Any, request: TrainingRequest) -> OutputKind:
    """The output of the model type; for a type of the caller's own, that of the estimator."""
    if (output := OUTPUTS.get(request.model_type_in_use)) is not None:
        return output
    for is_kind, kind in (
        (base.is_classifier, OutputKind.CLASSES),
        (base.is_regressor, OutputKind.NUMBER),
        (base.is_clusterer, OutputKind.CLUSTER),
        (base.is_outlier_detector, OutputKind.ANOMALY),
    ):
        if isinstance(estimator, base.BaseEstimator) and is_kind(estimator):
            return kind
    return OUTPUTS[request.inferred_model_type()]


def _fit(pipeline: Pipeline, table: TrainingTable, execution: Execution) -> list[str]:
    """Fit a pipeline in place; returns the warnings that it gave."""
    train = table.train
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # by default Python shows a warning once a process, and the next fit none
        try:
            check_size(pipeline, train.columns, train.target)
            execution.fit(pipeline, train.columns, train.target, *(() if train.weights is None else (train.weights,)))
            forget_folds(pipeline)
        except (TrainingError, PlatformError):
            raise
        except Exception as error:
            raise TrainingError.wrap(
                error, f"Fitting {type(pipeline[-1]).__name__} failed", remedy="See the cause above.", stage="fit"
            ) from error
    # A set: each tree or round of an ensemble may give the same warning.
    warned = sorted({f"{warning.category.__name__}: {warning.message}"[:_MAX_WARNING_CHARACTERS] for warning in caught})
    return warned[:_MAX_WARNINGS]


def _evaluate(
    request: TrainingRequest,
    output: OutputKind,
    table: TrainingTable,
    pipeline: Pipeline,
    execution: Execution,
    started: float,
) -> FittedModel:
    estimator = pipeline.steps[-1][1]
    try:
        # The signature lists categories, and one of few rows is a cell of those rows.
        inputs = table.inputs if request.shows_cells else common_categories(table.train, table.inputs)
        metrics = {
            "train": evaluate(
                estimator, execution.answer(pipeline, table.train.columns, output), table.train.target, output
            ),
        }
        held_out = execution.answer(pipeline, table.validation.columns, output)
        residuals = _residuals(held_out, table.validation, output, shown=request.shows_cells)
        made = Output(output, _classes(pipeline, output), residuals, threshold_of(estimator))
        signature = Signature(inputs, made)
        metrics["validation"] = evaluate(estimator, held_out, table.validation.target, output)
        shows = request.shows_cells
        rows = rows_of_training(table.validation, inputs) if shows else synthetic_rows(table.train, inputs)
        self_test = record_self_test(pipeline, signature, rows)
    except PlatformError:
        raise
    except Exception as error:
        raise TrainingError.wrap(
            error, "The fitted model can't predict its own rows", remedy="See the cause above.", stage="evaluate"
        ) from error
    uncalibrated = estimator_of(pipeline)
    algorithm, constant = algorithm_of(uncalibrated)[0], baseline(table.train.target, table.validation.target, output)
    is_split = request.validation_data is None
    budget_s = _DIAGNOSTICS_SHARE * (time.perf_counter() - started)
    return FittedModel(
        model_id=request.model_id,
        model_type=request.model_type_in_use,
        pipeline=pipeline,
        signature=signature,
        self_test=self_test,
        metrics=metrics,
        baseline=constant,
        hyperparameters=request.recorded_hyperparameters(),
        algorithm=algorithm,
        effective_hyperparameters=effective_hyperparameters(uncalibrated),
        columns=table.columns if request.shows_cells else tuple(map(_without_cells, table.columns)),
        n_rows={"train": table.train.n_rows, "validation": table.validation.n_rows},
        data_digest=table.digest,
        notes=(
            *worse_than_baseline(metrics["validation"], constant, algorithm, output, was_selected=request.selects),
            *table.notes,
            *(_optional("notes on columns", lambda: column_notes(table, output, is_split=is_split)) or ()),
            *_unseen_labels(table.train, table.validation, output, shown=request.shows_cells),
        ),
        diagnostics=_optional(
            f"diagnostics of {type(estimator).__name__}",
            lambda: diagnose(pipeline, held_out, table.validation.target, output, constant, budget_s),
        ),
        curves=learning_curves(uncalibrated),
        profile=_optional("profile of the data", lambda: _profile(request, table, held_out.predicted, output)),
        held_out={each.name: table.validation.columns[each.name][:_HELD_OUT] for each in inputs},
    )


def _repeated(repetitions: Sequence[Repetition], execution: Execution) -> tuple[dict[str, Any], list[str]]:
    """What a cross-validation found, and a note if it failed."""
    try:
        return repeated(repetitions, execution.spread), []
    except Exception as error:  # noqa: BLE001 - a finished training must not be lost for the repetitions of it
        return {}, [f"The cross-validation failed: {public_text(error)}"]


def _optional(what: str, find: Callable[[], _T]) -> _T | None:
    """What is found, or None if that fails: a finished training must not be lost for it."""
    try:
        return find()
    except Exception:  # noqa: BLE001 - an estimator or processor of the caller's own can raise or make anything
        _log.warning("The %s failed.", what, exc_info=True)
        return None


def _profile(request: TrainingRequest, table: TrainingTable, predicted: Any, output: OutputKind) -> TrainingProfile:
    predictions = profile_predictions(np.asarray(predicted), are_numbers=output is OutputKind.NUMBER)
    # Columns in shards are not in memory; they are those of a registered dataset, which has a profile.
    is_here = request.shows_cells and isinstance(table.train.columns, dict)
    return TrainingProfile(predictions, profile_columns(table.train.columns, table.inputs) if is_here else None)


def _residuals(held_out: Answered, part: Part, output: OutputKind, *, shown: bool) -> Residuals | None:
    """Of a regression; to two digits where the tenant's policy is synthetic rows, as those have them."""
    if output is not OutputKind.NUMBER or part.target is None:
        return None
    return Residuals.of(part.target, held_out.predicted, 3 if shown else 2)


def _classes(pipeline: Pipeline, output: OutputKind) -> tuple[Any, ...]:
    return tuple(labels_to_json(pipeline.steps[-1][1].classes_)) if output is OutputKind.CLASSES else ()


def _without_cells(column: InferredColumn) -> InferredColumn:
    reason = "not shown, since it may quote cells and the tenant's policy is synthetic rows"
    if column.input is None:
        return replace(column, reason=reason)
    return InferredColumn(column.name, replace(column.input, categories=()), f"{column.input.kind}: {reason}")


def _unseen_labels(train: Part, validation: Part, output: OutputKind, *, shown: bool) -> list[str]:
    if output is not OutputKind.CLASSES or train.target is None or validation.target is None:
        return []
    seen = set(train.target.tolist())
    unseen = [label for label in validation.target.tolist() if label not in seen]
    if not unseen:
        return []
    such = f", such as {unseen[0]!r}" if shown else ""
    return [
        f"{len(unseen)} of {validation.n_rows} validation rows have a label that no training row has{such}; they count "
        "as wrong."
    ]
