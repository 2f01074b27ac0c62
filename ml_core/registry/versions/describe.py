"""The description of a model file: its type and, where possible, its signature and a self-test.

It is needed where the caller brings no signature. A pipeline of the platform knows its columns and their kinds. For any
other, a sample of its rows shows them (``with_sample``). Without a sample it is treated as an estimator over numbers,
named by its ``feature_names_in_`` or else ``x0``, ``x1``, …, if it answers such a row. Otherwise the version has no
signature, and no environment can serve it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn import base
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ml_core.data.encoding.frame import FRAME, MATRIX, FrameStep, shape_for, table_of
from ml_core.data.frames import as_pandas, nullable_inputs
from ml_core.data.reading import rows_from_frame
from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.version import SELF_TEST_CHARACTERS, SELF_TEST_ROWS, SelfTest, ServableVersion
from ml_core.exceptions import DataProcessingError, PredictionError
from ml_core.ids import Digest, ModelId, TenantId, VersionId, VersionRef
from ml_core.models.formats import skops_format
from ml_core.models.graph import tune_for_serving
from ml_core.models.loading import (
    SELF_TEST_TOLERANCE,
    LoadedModel,
    WrongShapeError,
    labels_to_json,
    takes_columns,
    threshold_of,
)

NO_SIGNATURE = Signature((), Output(OutputKind.NUMBER))
NO_SELF_TEST = SelfTest((), ())

_STEP = "mlcore-table"  # a name that no caller's pipeline has
_SAMPLE_ROWS = 200  # compared at most

_OUTPUTS = {
    "classification": OutputKind.CLASSES,
    "regression": OutputKind.NUMBER,
    "clustering": OutputKind.CLUSTER,
    "anomaly_detection": OutputKind.ANOMALY,
}


@dataclass(frozen=True, slots=True)
class Description:
    """Type, signature and self-test of a model; ``NO_SIGNATURE`` if its columns are not known."""

    model_type: str
    signature: Signature
    self_test: SelfTest


def describe(pipeline: Any, digest: Digest, model_type: str | None = None) -> Description:
    """Describe a fitted pipeline or estimator.

    Args:
        pipeline: The model, which passed the audit.
        digest: Of the bytes that it was read from.
        model_type: As the caller or the registry says; None: the kind of the estimator.

    Raises:
        DataProcessingError: It is of another type, predicts several targets, or was never fitted.
    """
    kind = _model_type(pipeline, model_type)
    inputs = _inputs(pipeline)
    if not inputs:
        _check_fitted(pipeline)
        return Description(kind, NO_SIGNATURE, NO_SELF_TEST)
    signature = Signature(inputs, _output(pipeline, kind))
    # A row without values for a pipeline that handles them; of zeros for one that does not.
    row = {column.name: None if column.nullable else 0.0 for column in inputs}
    try:
        return Description(kind, signature, _ask(_loaded(pipeline, signature, kind, digest), [row]))
    except PredictionError as error:
        if isinstance(error.__cause__, WrongShapeError):
            _check_targets(error.__cause__.n_dimensions)
        return Description(kind, NO_SIGNATURE, NO_SELF_TEST)


def with_sample(pipeline: Any, sample: Any) -> tuple[Any, pd.DataFrame]:
    """A pipeline that takes raw rows, of one that was fitted elsewhere, and the sample as the table that it takes.

    Args:
        pipeline: Fitted on a frame, an array or a series of texts.
        sample: A few rows of that, without the target: see ``ml_core.data.encoding.frame.table_of``.

    Raises:
        DataProcessingError: The sample is no table, or lacks a column that the pipeline was fitted on.
    """
    sample = as_pandas(sample)
    table = table_of(sample)
    steps = list(pipeline.steps) if isinstance(pipeline, Pipeline) else [("model", pipeline)]
    if takes_columns(steps[0][1]):
        raise DataProcessingError(
            "The model knows its columns already.", remedy="Register it without sample.", stage="sample"
        )
    names = getattr(pipeline, "feature_names_in_", None)
    if names is not None:
        if missing := [name for name in names if name not in table.columns]:
            raise DataProcessingError(
                f"The sample lacks {len(missing)} of the model's {len(names)} columns, such as {missing[0]!r}.",
                remedy="Give rows as they were given to fit.",
                column=str(missing[0]),
                stage="sample",
            )
        table = table[list(names)]
    step = FrameStep(shape_for(pipeline, sample)).fit(table)
    return Pipeline([(_STEP, step), *steps]), table


def describe_with_sample(
    pipeline: Any, table: pd.DataFrame, digest: Digest, model_type: str | None = None
) -> Description:
    """Signature and self-test of the pipeline that ``with_sample`` made, checked on the rows of the sample.

    A column may be missing if the pipeline answers a row without it.

    Raises:
        DataProcessingError: The pipeline is of another type, or does not answer the rows, or otherwise than before, or
            with several targets.
    """
    kind = _model_type(pipeline, model_type)
    columns = tuple(InputColumn(name, ColumnKind(column), nullable=True) for name, column in pipeline[0].columns_)
    head = table.head(_SAMPLE_ROWS)
    rows = rows_from_frame(head)
    model = _loaded(pipeline, Signature(columns, _output(pipeline, kind)), kind, digest)
    try:
        _compare(model, pipeline, head, rows)
    except DataProcessingError:
        raise
    except Exception as error:  # a pipeline of the caller's can raise anything
        raise DataProcessingError.wrap(
            error,
            "The model does not answer the sample",
            remedy="Give rows as they were given to fit: a Series for one column of texts.",
            stage="sample",
        ) from error
    optional = _optional(model, rows[0])
    inputs = tuple(replace(column, nullable=column.name in optional) for column in columns)
    model = _loaded(pipeline, Signature(inputs, model.version.signature.output), kind, digest)
    asked = [{name: _cut(value) for name, value in row.items()} for row in rows[:SELF_TEST_ROWS]]
    return Description(kind, model.version.signature, _ask(model, asked))


def _compare(model: LoadedModel, pipeline: Any, head: pd.DataFrame, rows: list[dict[str, Any]]) -> None:
    """Check that raw rows get the answers that the pipeline gives to the table."""
    given: Any = head
    if pipeline[0].shape != FRAME:
        given = head.to_numpy() if pipeline[0].shape == MATRIX else head.iloc[:, 0]
    theirs = np.asarray(pipeline[1:].predict(given))
    _check_targets(theirs.ndim)
    ours = np.asarray(model.predict(model.version.signature.columns_from_rows(rows)))
    same = ours.shape == theirs.shape == (len(rows),)
    if same and theirs.dtype.kind == "f":
        same = bool(np.allclose(ours, theirs, rtol=SELF_TEST_TOLERANCE, atol=SELF_TEST_TOLERANCE, equal_nan=True))
    elif same:
        same = labels_to_json(ours) == labels_to_json(theirs)
    if not same:
        raise DataProcessingError(
            f"The model answers the sample of {len(rows)} rows with {_shown(theirs)} and the same raw rows with "
            f"{_shown(ours)}.",
            remedy="A model answers each row with one label or number. Give the sample in the form and with the dtypes "
            "that it was fitted on: one column of texts as a Series.",
            stage="sample",
        )


def _optional(model: LoadedModel, row: dict[str, Any]) -> frozenset[str]:
    """The columns that a row may lack: all are tried at once, and one by one if that fails."""
    without = {name: {**row, name: None} for name in row}

    def answers(rows: list[dict[str, Any]]) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.predict(model.version.signature.columns_from_rows(rows))
        except PredictionError:
            return False
        return True

    if answers(list(without.values())):
        return frozenset(without)
    return frozenset(name for name, changed in without.items() if answers([changed]))


def _loaded(pipeline: Any, signature: Signature, kind: str, digest: Digest) -> LoadedModel:
    ref = VersionRef(TenantId("self"), ModelId("self"), VersionId("0"))
    tune_for_serving(pipeline)
    return LoadedModel(ServableVersion(ref, kind, digest, 0, skops_format.FORMAT, signature, NO_SELF_TEST), pipeline)


def _ask(model: LoadedModel, rows: list[dict[str, Any]]) -> SelfTest:
    predictions, probabilities = model.predict_both(model.version.signature.columns_from_rows(rows))
    answers = () if probabilities is None else tuple(tuple(map(float, line)) for line in probabilities)
    return SelfTest(tuple(rows), tuple(labels_to_json(predictions)), answers)


def _output(pipeline: Any, kind: str) -> Output:
    found = getattr(pipeline, "classes_", np.empty(0))
    _check_targets(len(found) if isinstance(found, list) else 1)  # scikit-learn has a list of classes for each target
    classes = tuple(labels_to_json(np.asarray(found)))
    output = _OUTPUTS.get(kind, OutputKind.CLASSES if classes else OutputKind.NUMBER)
    return Output(output, classes, threshold=threshold_of(getattr(pipeline, "steps", [("", pipeline)])[-1][1]))


def _check_fitted(pipeline: Any) -> None:
    """Refuse an estimator of scikit-learn that is not fitted; of others it can't be known."""
    last = pipeline[-1] if isinstance(pipeline, Pipeline) else pipeline
    try:
        if type(last).__module__.startswith("sklearn."):
            check_is_fitted(last)
    except NotFittedError as error:
        raise DataProcessingError(
            f"The {type(last).__name__} is not fitted.", remedy="Fit it, save it and register it.", stage="register"
        ) from error


def _check_targets(number: int) -> None:
    if number > 1:
        raise DataProcessingError(
            "The model predicts several targets at once; a model of the platform predicts one.",
            remedy="Fit and register a model for each target.",
            stage="register",
        )


def _cut(value: Any) -> Any:
    return value[:SELF_TEST_CHARACTERS] if isinstance(value, str) else value


def _shown(answers: Any) -> str:
    return f"{answers.shape} {str(answers.ravel()[:3].tolist())[:60]}"


_TELLS: dict[str, Callable[[Any], bool]] = {
    "anomaly_detection": base.is_outlier_detector,
    "clustering": base.is_clusterer,
    "regression": base.is_regressor,
    "classification": base.is_classifier,
}
"""The standard types, with the test whether an estimator is of one."""


def _model_type(pipeline: Any, said: str | None) -> str:
    """The given type, or that of the estimator if none is given.

    Raises:
        DataProcessingError: A standard type is given, and the estimator is of another.
    """
    own = next((kind for kind, tells in _TELLS.items() if tells(pipeline)), None)
    if said in _TELLS and own is not None and own != said:
        raise DataProcessingError(
            f"The model is of the type {own}, not {said}.", remedy=f"Register it as {own}.", stage="register"
        )
    return said or own or "classification"


def _inputs(pipeline: Any) -> tuple[InputColumn, ...]:
    first = pipeline.steps[0][1] if hasattr(pipeline, "steps") else pipeline
    own = getattr(first, "columns_", None)
    if type(first).__module__.startswith("ml_core.data.") and own:
        return tuple(nullable_inputs(own, getattr(first, "readings_", None)))
    count = int(getattr(first, "n_features_in_", 0))
    names = getattr(first, "feature_names_in_", None)
    listed = [f"x{index}" for index in range(count)] if names is None else [str(name) for name in names]
    return tuple(InputColumn(name, ColumnKind.NUMBER, nullable=False) for name in listed)
