"""Answered requests as they are queued, and predictions as they are read back from the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import Columns
from ml_core.domain.signature import Label, Signature
from ml_core.domain.tenant_policies import PredictionPolicy

_REQUEST_BYTES = 700  # of one beside its values, as ``sys.getsizeof`` says
Texts = tuple[str | None, ...]


class LossReason(StrEnum):
    """Why a prediction that was answered is missing in the prediction log."""

    QUEUE_FULL = "queue_full"
    """The registry was unavailable, or too slow, until the replica's queue was full."""
    SHUTDOWN = "shutdown"
    """The replica ended before the registry took what it held."""
    WRONG_CLOCK = "wrong_clock"
    """The day of the replica's clock is too far from the registry's."""
    REFUSED = "refused"
    """The registry can't store a value."""
    TENANT_GONE = "tenant_gone"
    """The tenant was deleted meanwhile."""


@dataclass(slots=True, eq=False)
class AnsweredRequest:
    """A request as it was answered.

    Attributes:
        tenant_id: Whose it is.
        model_id: The model.
        version: The version that answered.
        environment: The pointer that was asked; None for a version that was asked by its name.
        rollout: Which part of the rollout answered: ``stable``, ``canary``, ``shadow`` or ``explicit``.
        request_id: As in the answer to the client.
        at: When it was answered, seconds since 1970-01-01 UTC.
        latency_ms: From the request's arrival to its answer, milliseconds.
        numbers: The canonical inputs that are numbers, as ``RowPacker`` packs them.
        texts: Those that are strings, likewise.
        signature: Of the version.
        predictions: ``(n_rows,)``.
        probabilities: ``(n_rows, n_classes) float64``, where they were asked for.
        policy: What is kept.
        size: Bytes in which the rows were sent.
    """

    tenant_id: str
    model_id: str
    version: str
    environment: str | None
    rollout: str
    request_id: str
    at: float
    latency_ms: float
    numbers: bytes
    texts: Sequence[Texts]
    signature: Signature
    predictions: NDArray[Any]
    probabilities: NDArray[np.float64] | None
    policy: PredictionPolicy
    size: int

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.predictions)

    @property
    def memory_bytes(self) -> int:
        """Bytes that holding it takes, roughly."""
        return _REQUEST_BYTES + self.size + len(self.numbers)


class RowPacker:
    """Packs canonical columns for the prediction log: rows in little memory, in the form that is digested.

    Args:
        signature: Whose columns they are.

    Attributes:
        signature: The signature.
        numeric: Names of the columns of numbers, booleans and datetimes, sorted.
        strings: Names of those of categories and texts, sorted.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.numeric = sorted(column.name for column in signature.inputs if column.kind.is_numeric)
        self.strings = sorted(column.name for column in signature.inputs if not column.kind.is_numeric)

    def pack(self, columns: Columns, rows: int) -> tuple[bytes, Sequence[Texts]]:
        """Pack the rows of a table.

        Returns:
            The numbers as little-endian float64, row after row; and the strings, one tuple a row, or none if no column
            holds strings.
        """
        arrays = [columns[name] for name in self.numeric]
        # The values of one row are joined as bytes in a third of the time that joining the arrays takes.
        numbers = b"".join(arrays) if rows == 1 else np.array(arrays, "<f8").T.tobytes()  # type: ignore[arg-type]
        texts = [columns[name].tolist() for name in self.strings]
        return numbers, list(zip(*texts, strict=True)) if texts else ()


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows of a day that are missing in the prediction log, and why."""

    tenant_id: str
    model_id: str
    day: date
    reason: LossReason
    rows: int


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """One predicted row of the prediction log.

    Attributes:
        at: When it was answered, UTC.
        request_id: The request's id.
        row: Which row of the request, from 0.
        model_id: The model.
        version: The version that answered.
        environment: The pointer that was asked; None for a version that was asked by its name.
        rollout: ``stable``, ``canary``, ``shadow`` or ``explicit``.
        prediction: The label, number or cluster.
        probabilities: Class → probability, where they were asked for.
        latency_ms: How long the whole request took, milliseconds.
        input_digest: sha256 of the row's canonical values, see ``ml_core.registry.predictions.rendering``.
        inputs: The row, where the tenant keeps inputs: what the version read, and nothing that it ignored. It can be
            sent again and gives the same digest.
        label: The true label, once it was recorded.
        labelled_at: When that was.
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
