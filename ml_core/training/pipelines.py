"""From hyperparameters to a pipeline: the encoding of a table's columns, and an estimator that may be calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from ml_core.domain.signature import OutputKind
from ml_core.domain.train_spec import CALIBRATION_FOLDS, TrainSpec
from ml_core.exceptions import TrainingError
from ml_core.models.algorithms import algorithm_of
from ml_core.models.model_factory import ModelFactory
from ml_core.training.class_weights import add_numbers, set_class_weights
from ml_core.training.cross_validation import Rows, divide_into_folds
from ml_core.training.encoding import encoding_steps
from ml_core.training.request import TrainingRequest
from ml_core.training.table import TrainingTable
from ml_core.training.targets import invalid

_ESTIMATE = "estimate"
_SEED = 0


def pipeline_of(
    request: TrainingRequest, hyperparameters: Mapping[str, Any], table: TrainingTable, output: OutputKind
) -> Pipeline:
    """The unfitted pipeline of a training on a table.

    With a calibration, the estimator is fitted on all rows, and the calibration on answers for rows that it was not
    fitted on, in folds in which equal rows and those of a group are together (scikit-learn's ``CalibratedClassifierCV``
    without ensemble).

    Raises:
        TrainingError: The hyperparameters are refused, or don't fit the table.
    """
    estimator = ModelFactory.create_model(request.model_type_in_use, dict(hyperparameters))
    _, algorithm = algorithm_of(estimator)
    steps = encoding_steps(request, table, takes_sparse=algorithm is None or algorithm.takes_sparse)
    if output is OutputKind.CLASSES and table.train.target is not None:
        set_class_weights(estimator, table.train.target)
    if request.calibration is not None:
        if table.train.target is not None:
            add_numbers(estimator, table.train.target)
        method, folds = request.calibration.value, _folds_of_calibration(table)
        # One job: threads of folds would each use threads of their own.
        estimator = CalibratedClassifierCV(estimator, method=method, cv=folds, ensemble=False, n_jobs=1)
    return Pipeline([*steps, (_ESTIMATE, estimator)])


def fit_pipeline(pipeline: Pipeline, columns: Any, target: Any, weights: NDArray[Any] | None = None) -> None:
    """Fit a pipeline on columns, ``(n_rows,)`` targets and, if there are any, weights of the rows, in place."""
    pipeline.fit(columns, target, **({} if weights is None else {f"{_ESTIMATE}__sample_weight": weights}))


def estimator_of(pipeline: Pipeline) -> Any:
    """The fitted estimator, without its calibration."""
    estimator = pipeline[-1]
    is_calibrated = isinstance(estimator, CalibratedClassifierCV)
    return estimator.calibrated_classifiers_[0].estimator if is_calibrated else estimator


def forget_folds(pipeline: Pipeline) -> None:
    """Replace the rows of the folds of a fitted calibration, which a version does not need, by their number."""
    if isinstance(pipeline[-1], CalibratedClassifierCV) and isinstance(pipeline[-1].cv, list):
        pipeline[-1].set_params(cv=len(pipeline[-1].cv))


def check_options(of: TrainingRequest | TrainSpec, output: OutputKind | None, estimator: Any = None) -> None:
    """Refuse what only a classification has, and weights where each row is fitted alike.

    Args:
        of: The training.
        output: Of its model type; None: not known.
        estimator: Unfitted; None: it is selected, of some that take weights.

    Raises:
        TrainingError: It is refused; ``stage`` is ``validate``.
    """
    if of.calibration is not None and output not in (None, OutputKind.CLASSES):
        raise invalid("Only a classification can be calibrated.", "Leave calibration out.")
    if of.rare_classes is not None and output not in (None, OutputKind.CLASSES):
        raise invalid("rare_classes applies to a classification only.", "Leave rare_classes out.")
    if of.weight is not None and estimator is not None and not has_fit_parameter(estimator, "sample_weight"):
        name = algorithm_of(estimator)[0]
        raise invalid(f"{name} takes no weights of rows.", "Leave weight out, or use another algorithm.")


def _folds_of_calibration(table: TrainingTable) -> list[tuple[Rows, Rows]]:
    """As many folds as the table can be divided into; each row is measured in one, so they don't go by time."""
    refused = ""
    for count in range(CALIBRATION_FOLDS, 1, -1):
        try:
            return divide_into_folds(replace(table, times=None), OutputKind.CLASSES, count, _SEED)
        except TrainingError as error:
            refused = error.message
    raise invalid(f"Probabilities can't be calibrated. {refused}", "Leave calibration out, or add rows.")
