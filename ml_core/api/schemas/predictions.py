"""The prediction log."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Input, Schema

Label = str | bool | int | float


class Prediction(Schema):
    """One predicted row of the prediction log."""

    at: datetime
    request_id: str
    row: int = Field(description="Which row of the request, from 0.")
    model_id: str
    version: str
    environment: str | None
    rollout: str = Field(description="`stable`, `canary`, `shadow` or `explicit`.")
    prediction: Label | None
    probabilities: dict[str, float] | None = None
    latency_ms: float
    input_digest: str
    inputs: dict[str, Any] | None = Field(default=None, description="The row, where the tenant's policy keeps inputs.")
    label: Label | None = None
    labelled_at: datetime | None = None


class NewLabel(Input):
    """The truth of a prediction."""

    model_id: str
    row: int = Field(default=0, ge=0)
    label: Label
    at: datetime | None = Field(default=None, description="When it was observed; null: now.")


class Loss(Schema):
    """Rows of a day that are missing in the log, and why."""

    model_id: str
    day: date
    reason: str
    rows: int


class LogPolicy(Schema):
    """What the prediction log keeps of a tenant."""

    policy: str


class NewLogPolicy(Input):
    """What the prediction log keeps from now on."""

    policy: str
