"""What a caller asks of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ml_core.domain.columns import ColumnKind
from ml_core.domain.tenant_policies import SelfTestRows
from ml_core.exceptions import TrainingError
from ml_core.ids import ModelId
from ml_core.training.targets import infer_model_type, invalid


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """One training.

    Attributes:
        model_id: The model of which a version is to be made.
        model_type: A type that ``ModelFactory`` builds; None: classification or regression, by the target.
        training_data: ``(X, y)``: raw columns as a data frame (or rows as dicts, or a matrix, whose columns are then
            called x0, x1, …), and one target value a row; ``y`` may be None for clustering and anomaly detection.
        validation_data: The same, to measure on; None: a fifth of the training data is held out.
        hyperparameters: See ``ModelFactory.create_model``.
        kinds: Column name → kind, where the inferred one is wrong.
        processor: The caller's own ``DataProcessor``, if any.
        rare_classes: What is done with classes of few rows, see ``RareClasses.parse``; None: a class of one row that
            can't be held out is refused.
        self_test_rows: Which rows the version keeps; with synthetic ones no cell is in what was found either.

    Raises:
        TrainingError: A value is not a pair.
    """

    model_id: ModelId
    model_type: str | None
    training_data: tuple[Any, Any]
    validation_data: tuple[Any, Any] | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, ColumnKind] = field(default_factory=dict)
    processor: Any = None
    rare_classes: str | None = None
    self_test_rows: SelfTestRows = SelfTestRows.TRAINING

    @property
    def tells_cells(self) -> bool:
        """Whether notes and reasons may show values of the training data."""
        return self.self_test_rows is SelfTestRows.TRAINING

    def known_model_type(self) -> str:
        """The model type; where the caller gave none, what the target says.

        Raises:
            TrainingError: There is no target, or it can't be read.
        """
        return self.model_type or self.inferred_model_type()

    def inferred_model_type(self) -> str:
        """The model type that the target says, whatever the caller gave.

        Raises:
            TrainingError: There is no target, or it can't be read.
        """
        y = self.training_data[1]
        if y is None:
            raise invalid("There is no target to infer the model type from.", "Name a model_type, such as clustering.")
        if not len(y):
            raise invalid("The training data has no rows.", "Give at least ten.")
        return infer_model_type(y)

    def recorded_hyperparameters(self) -> dict[str, Any]:
        """The hyperparameters in a form that JSON can carry; what has none is described by its ``repr``."""
        return {str(name): recorded(value) for name, value in self.hyperparameters.items()}

    def __post_init__(self) -> None:
        for name in ("training_data", "validation_data"):
            data = getattr(self, name)
            if name == "validation_data" and data is None:
                continue
            if not isinstance(data, tuple | list) or len(data) != 2:
                raise TrainingError(
                    f"The {name} is not a pair (X, y).",
                    remedy="Give a table and one target value a row.",
                    stage="validate",
                    model_id=str(self.model_id),
                )


def recorded(value: Any, unless_json: Callable[[Any], Any] = repr) -> Any:
    """A value in a form that JSON can carry.

    Args:
        value: Any.
        unless_json: What is made of a value, in it too, that has no JSON form.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [recorded(item, unless_json) for item in value]
    if isinstance(value, Mapping):
        return {str(key): recorded(item, unless_json) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return unless_json(value)
