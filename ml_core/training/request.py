"""``TrainingRequest``: one training with its data, and the form in which its parameters are recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import orjson

from ml_core.domain.columns import ColumnKind
from ml_core.domain.tenant_policies import SelfTestRows
from ml_core.domain.train_spec import SELECTION_SECONDS, SPLIT_SEED, Calibration
from ml_core.exceptions import TrainingError
from ml_core.ids import Digest, ModelId, TenantId
from ml_core.training.candidates import selects
from ml_core.training.targets import Target, invalid, model_type_of, read_target

_MAX_EFFECTIVE_BYTES = 4 * 2**10
"""Of the effective hyperparameters as JSON: they are stored in the version's metadata, beside those of the caller."""
_MAX_VALUE_BYTES = 200


@dataclass(frozen=True, slots=True)
class TableFile:
    """The columns of a stored dataset that are trained on, unread.

    Attributes:
        names: The columns, in the order of the dataset.
        texts: Those of them that hold strings.
    """

    tenant_id: TenantId
    digest: Digest
    size_bytes: int
    n_rows: int
    names: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)  # without slots, which leave no room for a cached property
class TrainingRequest:
    """One training: the fields of a ``TrainSpec`` that concern the fit, which are described there, with the data.

    Attributes:
        training_data: ``(X, y)``: raw columns as a data frame (or rows as dicts, or a matrix, whose columns are then
            called x0, x1, …), and one target value a row; ``y`` may be None for clustering and anomaly detection. A
            ``TableFile`` in the place of ``X`` is for an execution that reads it itself.
        validation_data: The same, to measure on; None: a fifth of the training data is held out.
        processor: The caller's own ``DataProcessor``, if any.
        self_test_rows: Which rows the version keeps. With synthetic ones, notes and reasons don't show cells either.

    Raises:
        TrainingError: A value is not a pair.
    """

    model_id: ModelId
    model_type: str | None
    training_data: tuple[Any, Any]
    validation_data: tuple[Any, Any] | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, ColumnKind] = field(default_factory=dict)
    group: str | None = None
    time: str | None = None
    weight: str | None = None
    processor: Any = None
    rare_classes: str | None = None
    calibration: Calibration | None = None
    cross_validation: int | None = None
    split_seed: int = SPLIT_SEED
    selection_seconds: float = SELECTION_SECONDS
    self_test_rows: SelfTestRows = SelfTestRows.TRAINING

    @property
    def shows_cells(self) -> bool:
        """Whether notes and reasons may show values of the training data."""
        return self.self_test_rows is SelfTestRows.TRAINING

    @cached_property
    def target(self) -> Target | None:
        """The training data's target, read once; None without one.

        Raises:
            TrainingError: It can't be read.
        """
        y = self.training_data[1]
        return None if y is None else read_target(y)

    @property
    def model_type_in_use(self) -> str:
        """The model type; where the caller gave none, that of the target.

        Raises:
            TrainingError: There is no target, or it can't be read.
        """
        return self.model_type or self.inferred_model_type()

    def inferred_model_type(self) -> str:
        """The model type of the target, whatever the caller gave.

        Raises:
            TrainingError: There is no target, or it can't be read.
        """
        y = self.training_data[1]
        if y is not None and not len(y):
            raise invalid("The training data has no rows.", "Give at least ten.")
        if self.target is None:
            raise invalid("There is no target to infer the model type from.", "Name a model_type, such as clustering.")
        return model_type_of(self.target)

    @property
    def selects(self) -> bool:
        """Whether the training selects its algorithm.

        Raises:
            TrainingError: As ``model_type_in_use``.
        """
        return selects(self.model_type_in_use, self.hyperparameters)

    def recorded_hyperparameters(self) -> dict[str, Any]:
        """The hyperparameters as JSON; values without a JSON form are described by their ``repr``."""
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
    """A value as JSON; ``unless_json`` converts one without a JSON form, also inside of containers."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()  # of a scalar, too, the value of Python
    if isinstance(value, list | tuple):
        return [recorded(item, unless_json) for item in value]
    if isinstance(value, Mapping):
        return {str(key): recorded(item, unless_json) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return unless_json(value)


def effective_hyperparameters(estimator: Any) -> dict[str, Any]:
    """An estimator's parameters, defaults included.

    Values without a JSON form and long ones are left out: the caller gave them, so the hyperparameters have them.
    """
    effective: dict[str, Any] = {}
    left = _MAX_EFFECTIVE_BYTES
    for name, value in (estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}).items():
        try:
            size = len(orjson.dumps({name: recorded(value, unless_json=_refuse)}))
        except TypeError:
            continue
        if size <= min(left, _MAX_VALUE_BYTES):
            effective[name] = recorded(value)
            left -= size
    return effective


def _refuse(value: Any) -> Any:
    raise TypeError(f"{value!r} has no JSON form")
