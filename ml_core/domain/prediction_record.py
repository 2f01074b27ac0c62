"""Answered requests as replicas record them, and predictions as they are read back from the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import Columns
from ml_core.domain.notebook import fields_of, record_html
from ml_core.domain.signature import Label, Signature
from ml_core.domain.tenant_policies import PredictionPolicy

DAY_S = 86_400


class LossReason(StrEnum):
    """Why a prediction that was answered is missing in the prediction log."""

    QUEUE_FULL = "queue_full"
    """The registry was unavailable, or too slow, until the replica's queue was full."""
    SHUTDOWN = "shutdown"
    """The replica stopped before it could write the row, and had no spool to leave it in."""
    WRONG_CLOCK = "wrong_clock"
    """The day of the replica's clock is too far from the registry's."""
    REFUSED = "refused"
    """The registry can't store a value of the row."""
    TENANT_GONE = "tenant_gone"
    """The tenant was deleted before the row was written."""


@dataclass(slots=True, eq=False)
class AnsweredRequest:
    """An answered request.

    Attributes:
        version: The version that answered.
        environment: The environment of the request; None if the request named a version.
        rollout: The part of the rollout that answered: ``stable``, ``canary``, ``shadow`` or ``explicit``.
        request_id: The request id in the answer to the client.
        at: When it was answered, seconds since 1970-01-01 UTC.
        latency_ms: Milliseconds from the arrival of the request to its answer.
        signature: The signature of the version.
        columns: What the version read, as the signature names it.
        predictions: ``(n_rows,)``.
        probabilities: ``(n_rows, n_classes) float64`` if the request asked for them.
        policy: What is kept of it; not ``NOTHING``.
    """

    tenant_id: str
    model_id: str
    version: str
    environment: str | None
    rollout: str
    request_id: str
    at: float
    latency_ms: float
    signature: Signature
    columns: Columns
    predictions: NDArray[Any]
    probabilities: NDArray[np.float64] | None
    policy: PredictionPolicy

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.predictions)

    @property
    def day(self) -> int:
        """When it was answered, whole days since 1970-01-01 UTC."""
        return int(self.at // DAY_S)


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows of a day that are missing in the prediction log, and why."""

    tenant_id: str
    model_id: str
    day: date
    reason: LossReason
    rows: int


@dataclass(frozen=True, slots=True, repr=False)
class PredictionRecord:
    """One predicted row of the prediction log.

    Attributes:
        at: When it was answered, UTC.
        row: Which row of the request, from 0.
        version: The version that answered.
        environment: The environment of the request; None if the request named a version.
        rollout: ``stable``, ``canary``, ``shadow`` or ``explicit``.
        prediction: The label, number or cluster.
        probabilities: Class → probability, if the request asked for them.
        latency_ms: Milliseconds from the arrival of the request to its answer.
        input_digest: sha256 of the row's canonical values, see ``ml_core.registry.predictions.rendering``.
        inputs: The columns that the version read, if the policy keeps inputs. Sent again, they give the same digest.
        label: The true label, if it was recorded.
        labelled_at: When the label was recorded, UTC.
    """

    at: datetime
    request_id: str
    row: int
    model_id: str
    version: str
    environment: str | None
    rollout: str
    prediction: Label | None
    probabilities: dict[str, float] | None
    latency_ms: float
    input_digest: str
    inputs: dict[str, Any] | None
    label: Label | None = None
    labelled_at: datetime | None = None

    def __repr__(self) -> str:
        label = "" if self.label is None else f", label {self.label!r}"
        place = f"{self.request_id}[{self.row}]"
        return f"PredictionRecord({place}, {self.model_id}@{self.version}, {self.prediction!r}{label})"

    def _repr_html_(self) -> str:
        return record_html(f"Prediction {self.request_id}", fields_of(self))
