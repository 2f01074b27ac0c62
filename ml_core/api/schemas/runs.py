"""Runs: experiment tracking."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Input, Schema
from ml_core.domain.notebook import run_comparison_html
from ml_core.domain.run import RunStatus


class MetricSummary(Schema):
    """A metric's series in one line."""

    points: int
    not_finite: int
    last_step: int
    last_value: float | None
    minimum: float | None
    maximum: float | None


class Run(Schema):
    """One training or tuning execution."""

    run_id: str
    model_id: str
    kind: str
    status: RunStatus
    parameters: dict[str, Any]
    metrics: dict[str, MetricSummary]
    tags: dict[str, str]
    versions: list[str] = Field(description="Versions that came of it, such as `tickets@3`.")
    parent_run_id: str | None = None
    error: str | None = None
    created_by: str | None = None
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None = None


class NewRun(Input):
    """A run to start."""

    model_id: str
    kind: str = "train"
    parameters: dict[str, Any] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    parent_run_id: str | None = None


class RunEnd(Input):
    """How a run ended."""

    status: RunStatus = Field(description="`finished`, `failed` or `cancelled`.")
    error: str | None = Field(default=None, description="Why it failed, or was cancelled.")


class TagChanges(Input):
    """Tags to set; null removes one, others stay."""

    tags: dict[str, str | None]


class Points(Input):
    """Values of one metric, or of several at each step."""

    metrics: list[str]
    steps: list[int]
    values: list[float | None] = Field(description="Step after step, one value a metric; null is NaN.")


class Series(Schema):
    """A metric's points in the order of steps, all or a selection."""

    metric: str
    total: int = Field(description="How many points there are.")
    steps: list[int]
    values: list[float | None] = Field(description="Null where the value is not finite.")
    at: list[datetime]


class RunFile(Schema):
    """A file of a run."""

    name: str
    digest: str
    size_bytes: int
    format: str
    created_at: datetime


class ComparedRun(Schema):
    """A run in a comparison."""

    run_id: str
    model_id: str
    kind: str
    status: RunStatus
    started_at: datetime


class RunMetric(Schema):
    """A metric of one of the compared runs."""

    last: float | None
    last_step: int
    best: float | None
    points: int


class ComparedMetric(Schema):
    """A metric in several runs."""

    higher_is_better: bool | None
    runs: dict[str, RunMetric]
    best_run: str | None
    best_last_run: str | None


class RunComparison(Schema):
    """Runs side by side."""

    runs: list[ComparedRun]
    parameters: dict[str, dict[str, Any]] = Field(description="Those that differ: name → run → value.")
    same_parameters: dict[str, Any] = Field(description="Those that all of them have: name → value.")
    tags: dict[str, dict[str, str]]
    metrics: dict[str, ComparedMetric]

    def _repr_html_(self) -> str:
        return run_comparison_html(self.model_dump())
