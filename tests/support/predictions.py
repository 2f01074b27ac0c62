"""Answered requests for tests of the prediction log."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.columns import ColumnKind
from ml_core.domain.prediction_record import AnsweredRequest
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.inference.prediction_spool import Spool, segment_bytes
from ml_core.registry.predictions.ingest import PredictionIngest, Written
from ml_core.registry.predictions.rendering import RenderedRequest, RenderedRequests, RequestRenderer

SIGNATURE = Signature(
    (
        InputColumn("text", ColumnKind.TEXT, nullable=True),
        InputColumn("amount", ColumnKind.NUMBER, nullable=True),
        InputColumn("is_paying", ColumnKind.BOOLEAN, nullable=True),
        InputColumn("opened", ColumnKind.DATETIME, nullable=True),
    ),
    Output(OutputKind.CLASSES, ("a", "b")),
)


_REST = {"amount": 1.5, "is_paying": True, "opened": "2026-02-01"}


def answered(tenant_id: str, rows: list[dict[str, Any]] | None = None, **fields: Any) -> AnsweredRequest:
    """A request of ``tickets`` with one row, or those given, whose text may be left out. Each answer is ``a``."""
    given = [{"text": None, **row} for row in rows or [{"text": "hello", **_REST}]]
    values: dict[str, Any] = {
        "tenant_id": tenant_id,
        "model_id": "tickets",
        "version": "1",
        "environment": "production",
        "rollout": "stable",
        "request_id": uuid.uuid4().hex,
        "at": time.time(),
        "latency_ms": 1.5,
        "signature": SIGNATURE,
        "columns": SIGNATURE.columns_from_rows(given),
        "predictions": np.array(["a"] * len(given), dtype=object),
        "probabilities": None,
        "policy": PredictionPolicy.INPUTS,
    }
    return AnsweredRequest(**{**values, **fields})


def spooled(*arguments: Any, **fields: Any) -> RenderedRequest:
    """An answered request as it is spooled."""
    return RequestRenderer().render(answered(*arguments, **fields))


def rendered(*requests: AnsweredRequest) -> list[RenderedRequests]:
    """Requests as they are written."""
    found = [RequestRenderer().render(request) for request in requests]
    segment = Spool(None).segment(segment_bytes(sum(len(each.lines) + 64 for each in found)))
    assert all(map(segment.append, found))
    return segment.read().requests


def write(db: DatabaseConnection, *requests: AnsweredRequest) -> Written:
    """Write requests in a batch of their own."""
    return PredictionIngest(db).write(rendered(*requests), [], uuid.uuid4().hex)


def today() -> date:
    """Today, UTC."""
    return datetime.now(UTC).date()
