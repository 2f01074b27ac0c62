"""Recording what a fitted pipeline answers to a few rows, so that every loaded copy can be asked the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from ml_core.domain.columns import ColumnKind, Columns
from ml_core.domain.signature import InputColumn, OutputKind, Signature
from ml_core.domain.version import SelfTest
from ml_core.models.loading import labels_to_json
from ml_core.training.table import Part

# Enough to touch every class of a small problem and most branches of an encoder; the rows are kept in the registry.
SELF_TEST_ROWS = 5
# A self-test need not carry a whole document: the answer recorded is that to the text as cut.
_MAX_TEXT_CHARACTERS = 300
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def record_self_test(pipeline: Any, signature: Signature, part: Part) -> SelfTest:
    """Ask a fitted pipeline some rows, as a client would send them, and record its answers.

    Args:
        pipeline: Fitted.
        signature: Its signature.
        part: Where the rows come from; they are taken evenly from it.
    """
    numbers = np.unique(np.linspace(0, part.n_rows - 1, SELF_TEST_ROWS).astype(np.intp))
    rows = raw_rows(part.columns, signature.inputs, numbers.tolist())
    columns = signature.columns_from_rows(rows)
    if signature.output.kind is OutputKind.CLASSES and hasattr(pipeline, "predict_proba"):
        probabilities = tuple(tuple(map(float, row)) for row in pipeline.predict_proba(columns))
    else:
        probabilities = ()
    return SelfTest(tuple(rows), tuple(labels_to_json(np.asarray(pipeline.predict(columns)))), probabilities)


def raw_rows(columns: Columns, inputs: Sequence[InputColumn], numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of a canonical table as a client would send them in JSON."""
    return [{column.name: _raw(columns[column.name][number], column.kind) for column in inputs} for number in numbers]


def _raw(value: Any, kind: ColumnKind) -> Any:
    if value is None or (kind.is_numeric and math.isnan(value)):
        return None
    if kind is ColumnKind.NUMBER:
        return float(value)
    if kind is ColumnKind.BOOLEAN:
        return bool(value)
    if kind is ColumnKind.DATETIME:
        return (_EPOCH + timedelta(seconds=float(value))).isoformat()
    return str(value)[:_MAX_TEXT_CHARACTERS] if kind is ColumnKind.TEXT else str(value)
