"""``fit_model``: from a request to a fitted, measured model. Nothing is read or written outside of this process."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import base
from sklearn.pipeline import Pipeline

from ml_core.data.evidence import fits
from ml_core.data.frames import readings_of
from ml_core.data.kinds import InferredColumn
from ml_core.data.processor import DataProcessor
from ml_core.domain.columns import ColumnKind
from ml_core.domain.diagnostics import Diagnostics
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.values import category_text, read_number
from ml_core.domain.version import SelfTest
from ml_core.evaluation.diagnostics import diagnose, learning_curves
from ml_core.evaluation.metrics import Answered, Metrics, answer, evaluate
from ml_core.exceptions import TrainingError, listed
from ml_core.ids import ModelId
from ml_core.models.algorithms import algorithm_of
from ml_core.models.loading import labels_to_json
from ml_core.models.model_factory import ModelFactory
from ml_core.training.baseline import baseline, worse_than_baseline
from ml_core.training.request import TrainingRequest, effective_hyperparameters
from ml_core.training.self_test import common_categories, record_self_test, rows_of_training, synthetic_rows
from ml_core.training.table import Part, TrainingTable, read_training_table
from ml_core.training.targets import OUTPUTS, invalid

_log = logging.getLogger(__name__)

_DIAGNOSTICS_SHARE = 0.1
"""Of a training's time until then, which its diagnostics may take."""
_MAX_WARNINGS = 5
_MAX_WARNING_CHARACTERS = 500
# For an estimator that takes no sparse matrix, words become a dense one: bounded in features and in bytes.
_MAX_DENSE_WORDS = 1_000
_MIN_DENSE_WORDS = 50
_MAX_DENSE_BYTES = 2**30


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
        notes: Sentences for the user: rows left out, a fit that did not converge.
        duration_s: Seconds of reading, fitting and measuring.
        diagnostics: What no metric shows of the held-out rows; None where there is nothing, or it failed.
        curves: Metric → its value after each round, see ``learning_curves``.
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
    diagnostics: Diagnostics | None = None
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


def fit_model(request: TrainingRequest, enter: Callable[[str], None] = lambda _stage: None) -> FittedModel:
    """Check the data, fit a pipeline, measure it on held-out rows and record a self-test.

    The pipeline is fitted on the training part only, so the held-out metrics are those of the very model that is
    returned. ``enter`` is called as a stage begins: ``read``, ``fit`` and ``evaluate``.

    Raises:
        TrainingError: ``stage`` is ``validate`` for data, kinds or hyperparameters that can't train, ``fit`` for an
            estimator that failed, ``evaluate`` for one that can't predict.
    """
    started = time.perf_counter()
    try:
        # First: a hyperparameter that does not exist is refused before the table is read.
        estimator = ModelFactory.create_model(request.model_type_in_use, dict(request.hyperparameters))
        enter("read")
        output = _output_of(estimator, request)
        table = read_training_table(request, output)
        if output is OutputKind.CLASSES and table.train.target is not None:
            set_class_weights(estimator, table.train.target)
        enter("fit")
        pipeline, warned = _fit(request, estimator, table)
        enter("evaluate")
        fitted = _evaluate(request, output, table, pipeline, started)
        return replace(fitted, notes=(*fitted.notes, *warned), duration_s=time.perf_counter() - started)
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


def encoding_steps(request: TrainingRequest, table: TrainingTable, *, takes_sparse: bool) -> list[tuple[str, Any]]:
    """The unfitted steps before an estimator, which takes sparse matrices or does not.

    Raises:
        TrainingError: The texts are too many for a dense matrix.
    """
    processor = request.processor or DataProcessor()
    encoding = {} if takes_sparse else _dense_encoding(table.inputs, table.train.n_rows)
    columns = [(column.name, column.kind.value) for column in table.inputs]
    if readings := readings_of(table.inputs):
        encoding["readings"] = readings
    return list(processor.build_steps(columns, **encoding))


def _fit(request: TrainingRequest, estimator: Any, table: TrainingTable) -> tuple[Pipeline, list[str]]:
    _, algorithm = algorithm_of(estimator)
    takes_sparse = algorithm is None or algorithm.takes_sparse
    pipeline = Pipeline([*encoding_steps(request, table, takes_sparse=takes_sparse), ("estimate", estimator)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # by default Python shows a warning once a process, and the next fit none
        try:
            pipeline.fit(table.train.columns, table.train.target)
        except TrainingError:
            raise
        except Exception as error:
            raise TrainingError.wrap(
                error, f"Fitting {type(estimator).__name__} failed", remedy="See the cause above.", stage="fit"
            ) from error
    # A set: each tree or round of an ensemble may give the same warning.
    warned = sorted({f"{warning.category.__name__}: {warning.message}"[:_MAX_WARNING_CHARACTERS] for warning in caught})
    return pipeline, warned[:_MAX_WARNINGS]


def _dense_encoding(inputs: tuple[InputColumn, ...], n_rows: int) -> dict[str, Any]:
    texts = sum(column.kind is ColumnKind.TEXT for column in inputs)
    if not texts:
        return {}
    words = min(_MAX_DENSE_WORDS, _MAX_DENSE_BYTES // (8 * n_rows * texts))  # float64
    if words < _MIN_DENSE_WORDS:
        raise invalid(
            f"This algorithm takes no sparse matrix, and {n_rows} rows with {texts} text column(s) are too many for a "
            "dense one.",
            "Use algorithm=logistic_regression or random_forest.",
        )
    return {"dense_text": True, "max_text_features": words}


def _evaluate(
    request: TrainingRequest, output: OutputKind, table: TrainingTable, pipeline: Pipeline, started: float
) -> FittedModel:
    estimator = pipeline.steps[-1][1]
    try:
        # The signature lists categories, and one of few rows is a cell of those rows.
        inputs = table.inputs if request.shows_cells else common_categories(table.train, table.inputs)
        signature = Signature(inputs, Output(output, _classes(pipeline, output)))
        metrics = {
            "train": evaluate(estimator, answer(pipeline, table.train.columns, output), table.train.target, output)
        }
        held_out = answer(pipeline, table.validation.columns, output)
        metrics["validation"] = evaluate(estimator, held_out, table.validation.target, output)
        shows = request.shows_cells
        rows = rows_of_training(table.validation, inputs) if shows else synthetic_rows(table.train, inputs)
        self_test = record_self_test(pipeline, signature, rows)
    except Exception as error:
        raise TrainingError.wrap(
            error, "The fitted model can't predict its own rows", remedy="See the cause above.", stage="evaluate"
        ) from error
    algorithm, constant = algorithm_of(estimator)[0], baseline(table.train.target, table.validation.target, output)
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
        effective_hyperparameters=effective_hyperparameters(estimator),
        columns=table.columns if request.shows_cells else tuple(map(_without_cells, table.columns)),
        n_rows={"train": table.train.n_rows, "validation": table.validation.n_rows},
        data_digest=table.digest,
        notes=(
            *worse_than_baseline(metrics["validation"], constant, algorithm, output),
            *table.notes,
            *_unseen_labels(table.train, table.validation, output, shown=request.shows_cells),
        ),
        diagnostics=_diagnosed(pipeline, held_out, table.validation, output, constant, started),
        curves=learning_curves(estimator),
    )


def _diagnosed(
    pipeline: Pipeline, held_out: Answered, part: Part, output: OutputKind, constant: Metrics, started: float
) -> Diagnostics | None:
    budget_s = _DIAGNOSTICS_SHARE * (time.perf_counter() - started)
    try:
        return diagnose(pipeline, held_out, part.target, output, constant, budget_s)
    except Exception:  # noqa: BLE001 - an estimator of the caller's own can raise anything, and its training must not be lost
        _log.warning("The diagnostics of %s failed.", type(pipeline.steps[-1][1]).__name__, exc_info=True)
        return None


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


def set_class_weights(estimator: Any, target: NDArray[Any]) -> None:
    """Convert the keys of an estimator's class weights to the type of the classes.

    The keys of a JSON object are strings, so weights of the classes 0 and 1 can only be written ``{"0": 1, "1": 5}``
    there. A key names the class of the same text, see ``category_text``. The estimator is unfitted and changed in
    place, estimators inside of it too; the target is the ``(n_rows,)`` classes that it will be fitted on.

    Raises:
        TrainingError: A key names no class, two name one, or a weight is not a number from 0 up; ``stage`` is
            ``validate``.
    """
    given = estimator.get_params() if hasattr(estimator, "get_params") else {}
    weights = {
        name: value
        for name, value in given.items()
        if name.rpartition("__")[2] == "class_weight" and isinstance(value, Mapping)
    }
    if weights:
        classes = {category_text(label): label for label in np.unique(target).tolist()}
        estimator.set_params(**{name: _by_class(name, value, classes) for name, value in weights.items()})


def _by_class(name: str, weights: Mapping[Any, Any], classes: Mapping[str, Any]) -> dict[Any, float]:
    by_class: dict[Any, float] = {}
    for key, weight in weights.items():
        text = _text_of_class(key, classes)
        if text is None:
            raise invalid(
                f"{name} has a weight for {key!r}, which is not a class of the target.",
                f"Its classes are: {listed(map(repr, classes.values()))}.",
            )
        if text in by_class:
            raise invalid(f"{name} has two weights for the class {classes[text]!r}.", "Give one.")
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not 0 <= weight < np.inf:
            raise invalid(f"{name} gives the class {key!r} the weight {weight!r}.", "Give a number from 0 up.")
        by_class[text] = float(weight)
    # All classes, with 1 for those that were left out, by the keys that scikit-learn looks for.
    full: dict[Any, float] = {}
    for text, label in classes.items():
        if full.setdefault(_key(label), by_class.get(text, 1.0)) != by_class.get(text, 1.0):
            raise invalid(
                f"{name} has different weights for {label!r} and another class that scikit-learn reads as the same "
                "number.",
                "Give both the same weight, or rename one.",
            )
    return full


def _text_of_class(key: Any, classes: Mapping[str, Any]) -> str | None:
    """The class that a key names: by its text, or for numbers and booleans by an equal value in another form."""
    text = category_text(key)
    if text in classes:
        return text
    if not any(isinstance(label, str) for label in classes.values()):
        text = category_text(float(text)) if fits(read_number, text) else text.lower()
    return text if text in classes else None


def _key(label: Any) -> Any:
    """The key by which ``sklearn.utils.class_weight.compute_class_weight`` looks a class up."""
    try:
        return int(label)
    except ValueError:
        return str(label)
