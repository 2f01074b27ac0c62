"""What a caller asks of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_core.domain.columns import ColumnKind
from ml_core.ids import ModelId


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
    """

    model_id: ModelId
    model_type: str | None
    training_data: tuple[Any, Any]
    validation_data: tuple[Any, Any] | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, ColumnKind] = field(default_factory=dict)
    processor: Any = None
