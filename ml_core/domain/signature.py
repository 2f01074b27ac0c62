"""Signatures: what a version accepts and what it answers.

``Signature.columns_from_rows`` is the one way from raw rows, as a client sends them, to canonical columns. It either
returns columns that the pipeline can take or names the row and the column that do not fit. What a single value means is
decided in ``ml_core.domain.values``, for rows and data frames alike.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind, Columns, DateOrder
from ml_core.domain.values import READERS, DoesNotFitError, is_blank, is_missing, read_datetime, says_missing
from ml_core.exceptions import SignatureMismatchError

Row = Mapping[str, Any]
Label = str | int | float | bool

_PLAIN_NUMBERS = (float, int)
_LARGEST = sys.float_info.max
_NEVER_MISSING = "it had no missing value in training"


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
        date_order: How ``01/02/2026`` is read in a datetime column; None: it is refused.
    """

    name: str
    kind: ColumnKind
    nullable: bool
    categories: tuple[str, ...] = ()
    date_order: DateOrder | None = None

    def read(self, values: Sequence[Any]) -> NDArray[Any]:
        """The canonical array of raw values, see ``ml_core.domain.columns``.

        None, NaN, NaT and ``pandas.NA`` are missing, and refused where the column is not nullable. So are blank strings
        and, unless the column is a category or text, words for missing (``ml_core.domain.values.says_missing``). In a
        category or text a blank is never refused: like an unseen category it was sent, and is scored as missing.

        Args:
            values: One a row.

        Raises:
            SignatureMismatchError: Names the first row that does not fit.
        """
        read = READERS[self.kind] if self.date_order is None else partial(read_datetime, order=self.date_order)
        numeric = self.kind.is_numeric
        nothing, says_nothing = (math.nan, says_missing) if numeric else (None, is_blank)
        result: list[Any] = []
        is_number = self.kind is ColumnKind.NUMBER
        for index, value in enumerate(values):
            if is_number and type(value) in _PLAIN_NUMBERS and -_LARGEST <= value <= _LARGEST:
                result.append(value)  # what nearly all numbers of a request are; NaN fails the comparison
            elif isinstance(value, str) and says_nothing(value):
                if numeric and not self.nullable:
                    raise self._mismatch(index, f"is {_shown(value)}, which is missing", _NEVER_MISSING)
                result.append(nothing)
            elif is_missing(value):
                if not self.nullable:
                    raise self._mismatch(index, "is missing", _NEVER_MISSING)
                result.append(nothing)
            else:
                try:
                    result.append(read(value))
                except DoesNotFitError as error:
                    raise self._mismatch(index, f"is {_shown(value)}", f"expected {error}") from None
        return _array(result, numeric)

    def to_json(self) -> dict[str, Any]:
        """A JSON-compatible description; ``from_json`` reads it back."""
        order = {} if self.date_order is None else {"date_order": self.date_order.value}
        return {
            "name": self.name,
            "kind": self.kind.value,
            "nullable": self.nullable,
            "categories": list(self.categories),
            **order,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputColumn:
        """The column that ``to_json`` described; descriptions from before there were date orders have none."""
        order = data.get("date_order")
        return cls(
            data["name"],
            ColumnKind(data["kind"]),
            data["nullable"],
            tuple(data["categories"]),
            None if order is None else DateOrder(order),
        )

    def _mismatch(self, row: int, what: str, why: str) -> SignatureMismatchError:
        return SignatureMismatchError(
            f"Row {row}: column {self.name!r} {what}; {why}.",
            remedy=f"Send a {self.kind.value}{' or null' if self.nullable else ''} for it.",
            row=row,
            column=self.name,
        )


@dataclass(frozen=True, slots=True)
class Output:
    """What a version answers: ``classes`` in the order of the probabilities, for a classifier; else empty."""

    kind: OutputKind
    classes: tuple[Label, ...] = ()


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
        return {c.name: c.read([row.get(c.name) for row in rows]) for c in self.inputs}

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
            "inputs": [column.to_json() for column in self.inputs],
            "output": {"kind": self.output.kind.value, "classes": list(self.output.classes)},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Signature:
        """The signature that ``to_json`` described."""
        inputs = tuple(InputColumn.from_json(column) for column in data["inputs"])
        output = Output(OutputKind(data["output"]["kind"]), tuple(data["output"]["classes"]))
        return cls(inputs, output)


def _array(values: list[Any], numeric: bool) -> NDArray[Any]:
    if numeric:
        return np.array(values, dtype=np.float64)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
