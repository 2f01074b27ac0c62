"""The self-test: a few rows and a fitted pipeline's predictions, with which every loaded copy is compared.

The rows are rows of training or, by the tenant's policy, synthetic: then no cell of a single row is stored, only values
that many rows share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind, Columns
from ml_core.domain.signature import InputColumn, Row, Signature
from ml_core.domain.version import SELF_TEST_CHARACTERS, SELF_TEST_ROWS, SelfTest
from ml_core.evaluation.metrics import answer
from ml_core.models.loading import labels_to_json
from ml_core.training.table import Part

# Rows that must share a value before it is stored: the usual smallest cell of published tables.
FEWEST_ROWS = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXTS = ("one synthetic text", "a text that nobody wrote", "words for a test", "hello", "the last of five texts")


def record_self_test(pipeline: Any, signature: Signature, rows: Sequence[Row]) -> SelfTest:
    """Record a fitted pipeline's predictions for rows, as a client would send them."""
    columns = signature.columns_from_rows(rows)
    answered = answer(pipeline, columns, signature.output.kind)
    probabilities = () if answered.probabilities is None else answered.probabilities.tolist()
    return SelfTest(tuple(rows), tuple(labels_to_json(answered.predicted)), tuple(map(tuple, probabilities)))


def rows_of_training(part: Part, inputs: Sequence[InputColumn]) -> list[dict[str, Any]]:
    """A few evenly spaced rows of a table."""
    numbers = np.unique(np.linspace(0, part.n_rows - 1, SELF_TEST_ROWS).astype(np.intp))
    return raw_rows(part.columns, inputs, numbers.tolist())


def synthetic_rows(part: Part, inputs: Sequence[InputColumn]) -> list[dict[str, Any]]:
    """Rows that resemble those of a table and equal none of them.

    Numbers are quantiles to two digits, datetimes quantiles to the month, categories those of the inputs, texts always
    the same. The last row has null wherever it may. The inputs have the categories that may be shown, see
    ``common_categories``.
    """
    made = {column.name: _synthetic(column, part.columns[column.name]) for column in inputs}
    return [{name: values[index] for name, values in made.items()} for index in range(SELF_TEST_ROWS)]


def common_categories(part: Part, inputs: Sequence[InputColumn]) -> tuple[InputColumn, ...]:
    """The columns without the categories that fewer than ``FEWEST_ROWS`` rows have."""
    return tuple(replace(column, categories=_common(column, part)) for column in inputs)


def _common(column: InputColumn, part: Part) -> tuple[str, ...]:
    if column.kind is not ColumnKind.CATEGORY:
        return column.categories
    counts = Counter(part.columns[column.name].tolist())
    return tuple(category for category in column.categories if counts[category] >= FEWEST_ROWS)


def _synthetic(column: InputColumn, values: NDArray[Any]) -> list[Any]:
    if column.kind is ColumnKind.TEXT:
        made: list[Any] = list(_TEXTS)
    elif column.kind is ColumnKind.CATEGORY:
        categories = column.categories or ("another value",)
        made = [categories[index % len(categories)] for index in range(SELF_TEST_ROWS)]
    elif column.kind is ColumnKind.BOOLEAN:
        made = [index % 2 == 0 for index in range(SELF_TEST_ROWS)]
    else:
        present = values[~np.isnan(values)]
        quantiles = np.quantile(present, np.linspace(0.1, 0.9, SELF_TEST_ROWS)) if len(present) >= FEWEST_ROWS else []
        is_date = column.kind is ColumnKind.DATETIME
        made = [(_month if is_date else _two_digits)(quantile) for quantile in quantiles]
        made = made or [_month(0.0) if is_date else float(index) for index in range(SELF_TEST_ROWS)]
    return [*made[:-1], None] if column.nullable else made


def _two_digits(number: float) -> float:
    rounded = float(f"{number:.1e}")
    # Near the largest float, rounding up gives infinity, which no request may send.
    return rounded if math.isfinite(rounded) else math.copysign(1e308, number)


def _month(seconds: float) -> str:
    moment = _EPOCH + timedelta(seconds=float(seconds))
    return datetime(moment.year, moment.month, 1, tzinfo=UTC).isoformat()


def raw_rows(columns: Columns, inputs: Sequence[InputColumn], numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of a canonical table as a client would send them in JSON."""
    # Column by column: one of shards is gathered when it is asked for.
    taken = {column.name: [_raw(value, column.kind) for value in columns[column.name][numbers]] for column in inputs}
    return [{name: values[index] for name, values in taken.items()} for index in range(len(numbers))]


def _raw(value: Any, kind: ColumnKind) -> Any:
    if value is None or (kind.is_numeric and math.isnan(value)):
        return None
    if kind is ColumnKind.NUMBER:
        return float(value)
    if kind is ColumnKind.BOOLEAN:
        return bool(value)
    if kind is ColumnKind.DATETIME:
        return (_EPOCH + timedelta(seconds=float(value))).isoformat()
    return str(value)[:SELF_TEST_CHARACTERS] if kind is ColumnKind.TEXT else str(value)
