"""Signatures: what a version accepts and what it answers.

``Signature.columns_from_rows`` is the one way from raw rows, as a client sends them, to canonical columns. It either
returns columns that the pipeline can take or names the row and the column that do not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind, Columns
from ml_core.exceptions import SignatureMismatchError

Row = Mapping[str, Any]
Label = str | int | float | bool


class OutputKind(StrEnum):
    """What a prediction is."""

    CLASSES = "classes"
    NUMBER = "number"
    CLUSTER = "cluster"
    ANOMALY = "anomaly"


@dataclass(frozen=True, slots=True)
class InputColumn:
    """One input column.

    Attributes:
        name: As in the training data.
        kind: How it is read and encoded.
        nullable: Whether a row may leave it out or send null.
        categories: The values seen in training, most frequent first, for a category; others are still accepted.
    """

    name: str
    kind: ColumnKind
    nullable: bool
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """What a version answers: ``classes`` in the order of the probabilities, for a classifier; else empty."""

    kind: OutputKind
    classes: tuple[Label, ...] = ()


class _DoesNotFitError(ValueError):
    """A single value is not of its column's kind; carries what was expected."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The input columns, in the order of the training data, and the output of a version."""

    inputs: tuple[InputColumn, ...]
    output: Output

    def columns_from_rows(self, rows: Sequence[Row], *, strict: bool = False) -> Columns:
        """Canonical columns of raw rows.

        A column that the signature does not name is ignored, or refused when ``strict``. A missing column is null. Null
        is accepted where the column is nullable. An unseen category is accepted: the fitted encoder decides.

        Args:
            rows: One mapping a row, from column name to a JSON value; ``datetime`` objects are accepted too.
            strict: Refuse unknown columns.

        Returns:
            The table, see ``ml_core.domain.columns``.

        Raises:
            SignatureMismatchError: Names the first row (from 0) and column that do not fit.
        """
        if strict:
            self._refuse_unknown(rows)
        return {column.name: _read_column(column, rows) for column in self.inputs}

    def count_unknown(self, rows: Sequence[Row]) -> int:
        """How many values of the rows are of columns that the signature does not name."""
        names = {column.name for column in self.inputs}
        return sum(len(row.keys() - names) for row in rows)

    def _refuse_unknown(self, rows: Sequence[Row]) -> None:
        names = {column.name for column in self.inputs}
        for index, row in enumerate(rows):
            for name in row:
                if name not in names:
                    raise SignatureMismatchError(
                        f"Row {index} has the unknown column {name!r}.",
                        remedy=f"Known columns: {', '.join(sorted(names))}.",
                        row=index,
                        column=name,
                    )

    def to_json(self) -> dict[str, Any]:
        """A JSON-compatible description; ``from_json`` reads it back."""
        return {
            "inputs": [
                {"name": c.name, "kind": c.kind.value, "nullable": c.nullable, "categories": list(c.categories)}
                for c in self.inputs
            ],
            "output": {"kind": self.output.kind.value, "classes": list(self.output.classes)},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Signature:
        """The signature that ``to_json`` described."""
        inputs = tuple(
            InputColumn(c["name"], ColumnKind(c["kind"]), c["nullable"], tuple(c["categories"])) for c in data["inputs"]
        )
        output = Output(OutputKind(data["output"]["kind"]), tuple(data["output"]["classes"]))
        return cls(inputs, output)


def _read_column(column: InputColumn, rows: Sequence[Row]) -> NDArray[Any]:
    read = _READERS[column.kind]
    values: list[Any] = []
    for index, row in enumerate(rows):
        value = row.get(column.name)
        if value is None or (value != value):  # noqa: PLR0124 - NaN and NaT differ from themselves
            if not column.nullable:
                raise _mismatch(column, index, "is missing", "it had no missing value in training")
            values.append(math.nan if column.kind.is_numeric else None)
            continue
        try:
            values.append(read(value))
        except _DoesNotFitError as error:
            raise _mismatch(column, index, f"is {_shown(value)}", f"expected {error}") from None
    if column.kind.is_numeric:
        return np.array(values, dtype=np.float64)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _mismatch(column: InputColumn, row: int, what: str, why: str) -> SignatureMismatchError:
    return SignatureMismatchError(
        f"Row {row}: column {column.name!r} {what}; {why}.",
        remedy=f"Send a {column.kind.value}{' or null' if column.nullable else ''} for it.",
        row=row,
        column=column.name,
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _read_number(value: Any) -> float:
    if isinstance(value, str | bytes) or not isinstance(value, int | float | np.number | np.bool_):
        raise _DoesNotFitError("a number")
    try:
        number = float(value)
    except OverflowError:
        raise _DoesNotFitError("a number that fits a 64-bit float") from None
    if math.isinf(number):
        raise _DoesNotFitError("a finite number")
    return number


def _read_boolean(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or (isinstance(value, int | float | np.number) and value in (0, 1)):
        return float(value)
    raise _DoesNotFitError("true or false")


def _read_datetime(value: Any) -> float:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _DoesNotFitError("an ISO 8601 date or time, such as '2026-01-31' or '2026-01-31T08:30:00Z'") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - made aware just below
    if not isinstance(value, datetime):
        raise _DoesNotFitError("an ISO 8601 date or time")
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return aware.timestamp()


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _DoesNotFitError("a string")
    return value


def category_text(value: Any) -> str:
    """The canonical text of a category: ``true``/``false`` for booleans, whole numbers without a point, else ``str``.

    So ``3``, ``3.0`` and ``"3"`` are one category, whichever of CSV, Parquet and JSON they came through.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _read_category(value: Any) -> str:
    if isinstance(value, list | dict):
        raise _DoesNotFitError("a string, number or boolean")
    return category_text(value)


_READERS: dict[ColumnKind, Callable[[Any], Any]] = {
    ColumnKind.NUMBER: _read_number,
    ColumnKind.BOOLEAN: _read_boolean,
    ColumnKind.DATETIME: _read_datetime,
    ColumnKind.CATEGORY: _read_category,
    ColumnKind.TEXT: _read_text,
}
