"""Trainings."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Input, Schema
from ml_core.domain.columns import ColumnKind
from ml_core.domain.train_spec import SELECTION_SECONDS, SPLIT_SEED, Calibration


class TrainingFields(Input):
    """How to train a model."""

    target: str | None = Field(default=None, description="The column to predict.")
    model_type: str | None = Field(
        default=None,
        description="`classification` or `regression`, by the target if left out; `clustering`, `anomaly_detection`.",
    )
    validation_dataset: str | None = Field(
        default=None, description="A dataset to measure on; null: a fifth of the rows is held out."
    )
    group: str | None = Field(
        default=None, description="A column whose equal values are held out together; it is no input of the model."
    )
    time: str | None = Field(default=None, description="A column by which the latest rows are held out.")
    weight: str | None = Field(
        default=None, description="A column of weights, with which rows count in the fit; it is no input of the model."
    )
    ignore: list[str] = Field(default_factory=list, description="Columns that are not used.")
    hyperparameters: dict[str, Any] = Field(
        default_factory=dict,
        description="`algorithm` and its own; none, or the algorithm `auto`: it is selected by cross-validation.",
        examples=[{"algorithm": "logistic_regression"}],
    )
    kinds: dict[str, ColumnKind] = Field(
        default_factory=dict, description="Column → kind, where the inferred kind is wrong."
    )
    selection_seconds: float = Field(
        default=SELECTION_SECONDS, gt=0, description="About how long the selection of an algorithm may take."
    )
    rare_classes: str | None = Field(
        default=None, description="`keep`, `drop`, `drop:5`, `merge:other` or `merge:other:5`."
    )
    calibration: Calibration | None = Field(default=None, description="How probabilities are calibrated.")
    cross_validation: int | None = Field(
        default=None, ge=2, le=20, description="Folds in which the training is repeated and measured."
    )
    split_seed: int = Field(default=SPLIT_SEED, ge=0, description="Of the rows that are held out.")
    version: str | None = Field(default=None, description="The version's name; null: the model's next number.")
    parent_version: str | None = Field(default=None, description="The version that it is derived from.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Notes on the version.")


class TrainingCheck(Schema):
    """A training that can be registered."""

    notes: list[str] = Field(description="What to know before its data is uploaded.")


class ReportedColumn(Schema):
    """A column of the training data."""

    name: str
    kind: ColumnKind | None = Field(description="Null: it can't be used.")
    used: bool
    reason: str


class TrainingReport(Schema):
    """What a training found, as it is recorded of its version."""

    model_id: str
    version: str
    run_id: str | None
    model_type: str
    dataset: str | None
    algorithm: str | None
    selection: dict[str, Any] = Field(
        description="How the algorithm was selected: `metric`, `folds`, `rows` and the `candidates` with their scores; "
        "empty if it was named."
    )
    cross_validation: dict[str, Any] = Field(
        description="`folds`, and `metrics`: metric → `mean` and `std`; empty if the training was not cross-validated."
    )
    hyperparameters: dict[str, Any]
    effective_hyperparameters: dict[str, Any]
    metrics: dict[str, dict[str, float | None]]
    baseline: dict[str, float | None] = Field(description="Of an answer that ignores all columns.")
    n_rows: dict[str, int]
    columns: list[ReportedColumn]
    columns_omitted: int = Field(description="Columns that are not used, and not listed.")
    notes: list[str]
    example: dict[str, Any] = Field(description="A row that the version accepts.")
    duration_s: float | None
