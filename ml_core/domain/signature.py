"""Signatures: the input columns and the output of a version, and whether one can replace another.

``Signature.columns_from_rows`` converts the rows of a request to canonical columns. ``ml_core.domain.values`` defines
how a single value is read, for rows and data frames.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import chain
from operator import methodcaller
from typing import Any, Final
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind, Columns, DateOrder
from ml_core.domain.document import Document
from ml_core.domain.intervals import Residuals
from ml_core.domain.values import (
    READERS,
    DoesNotFitError,
    category_text,
    composed,
    is_blank,
    is_missing,
    read_category,
    read_comma_number,
    read_datetime,
    says_missing,
)
from ml_core.exceptions import InvalidRequestError, SignatureMismatchError, listed, shown

Row = Mapping[str, Any]
Label = str | int | float | bool

_values = methodcaller("values")
_PLAIN_NUMBERS = (float, int)
_NUMBERS_OR_NULL = frozenset({float, int, type(None)})
_LARGEST = sys.float_info.max
_NEVER_MISSING = "it had no missing value in training"
# Bounds of suggestions in messages: a row may have thousands of names, each as long as the request.
_NAMES_COMPARED = 50
_NAME_CHARACTERS = 80
# (present kind, candidate kind) where the candidate reads every value of the present kind as the same value: a category
# accepts every string. Other pairs differ: the boolean "true" is not a number; 1 and "1.0" are one number but two
# categories.
SAFE_CHANGES = frozenset({(ColumnKind.TEXT, ColumnKind.CATEGORY)})


PREDICTION: Final = "prediction"
"""The column of the predictions in a table of them."""


def probability_column(label: Label) -> str:
    """The column of a class's probability in a table of predictions."""
    return f"probability_{category_text(label)}"


class OutputKind(StrEnum):
    """The kind of a prediction."""

    CLASSES = "classes"
    NUMBER = "number"
    CLUSTER = "cluster"
    ANOMALY = "anomaly"


@dataclass(frozen=True, slots=True)
class InputColumn(Document):
    """One input column.

    Attributes:
        name: The name in the training data.
        nullable: Whether a row may omit it or send null.
        categories: The values of a category that training saw, most frequent first; other values are accepted too.
        date_order: The order in dates such as ``01/02/2026``; None: such dates are refused.
        decimal_comma: Whether strings in a number column have a decimal comma, as in training.
    """

    name: str
    kind: ColumnKind
    nullable: bool
    categories: tuple[str, ...] = ()
    date_order: DateOrder | None = None
    decimal_comma: bool = False
    _read_value: Callable[[Any], Any] = field(init=False, repr=False, compare=False)
    _is_numeric: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_read_value", self._reader())
        object.__setattr__(self, "_is_numeric", self.kind.is_numeric)

    def read(self, values: Sequence[Any]) -> NDArray[Any]:
        """Convert raw values, one a row, to a canonical array, see ``ml_core.domain.columns``.

        None, NaN, NaT, ``pandas.NA`` and blank strings are missing; so are, except in a category or text, words such as
        ``NA`` (``ml_core.domain.values.says_missing``). A missing value is refused if the column is not nullable,
        except that a blank string in a category or text is always accepted.

        Raises:
            SignatureMismatchError: A value does not fit; names the first such row.
        """
        read = self._read_value
        numeric = self._is_numeric
        nothing, says_nothing = (math.nan, says_missing) if numeric else (None, is_blank)
        result: list[Any] = []
        is_number, seen = self.kind is ColumnKind.NUMBER, self.categories
        for index, value in enumerate(values):
            if is_number and type(value) in _PLAIN_NUMBERS and -_LARGEST <= value <= _LARGEST:
                result.append(value)  # the usual case, without a call; NaN fails the comparison
                continue
            if type(value) is str and value in seen:
                result.append(value)  # the usual case; the search is short, since frequent categories come first
                continue
            is_string = isinstance(value, str)
            if says_nothing(value) if is_string else is_missing(value):
                if not self.nullable and (numeric or not is_string):
                    said = f"is {shown(value)}, which is missing" if is_string else "is missing"
                    raise self._mismatch(index, said, _NEVER_MISSING)
                result.append(nothing)
                continue
            try:
                result.append(read(value))
            except DoesNotFitError as error:
                raise self._mismatch(index, f"is {shown(value)}", f"expected {error}") from None
        return _array(result, numeric)

    def _reader(self) -> Callable[[Any], Any]:
        """The function that reads a value that is not missing."""
        if self.decimal_comma:
            return read_comma_number
        if self.date_order is not None:
            return partial(read_datetime, order=self.date_order)
        if self.categories:
            return partial(read_category, categories=self.categories)
        return READERS[self.kind]

    def to_json(self) -> dict[str, Any]:
        """The JSON-compatible form; how strings are read is in it only where there is a rule."""
        absent = {name for name in ("date_order", "decimal_comma") if not getattr(self, name)}
        return {name: value for name, value in Document.to_json(self).items() if name not in absent}

    def _mismatch(self, row: int, what: str, why: str) -> SignatureMismatchError:
        return SignatureMismatchError(
            f"Row {row}: column {self.name!r} {what}; {why}.",
            remedy=f"Send a {self.kind.value}{' or null' if self.nullable else ''} for it.",
            row=row,
            column=self.name,
        )


@dataclass(frozen=True, slots=True)
class Output(Document):
    """The output of a version.

    Attributes:
        classes: In the order of the probabilities; empty unless it is a classifier.
        residuals: Of a regression: what its intervals are made of; None: it has none.
        threshold: Of an anomaly detector with scores: a row with a higher score is an anomaly.
    """

    kind: OutputKind
    classes: tuple[Label, ...] = ()
    residuals: Residuals | None = field(default=None, compare=False)
    threshold: float | None = field(default=None, compare=False)

    def intervals(self, predictions: NDArray[Any], coverage: float) -> NDArray[np.float64]:
        """``(n_rows, 2)``: the lower and upper ends of the intervals of ``(n_rows,)`` predictions.

        Raises:
            InvalidRequestError: The version has no intervals, or none of this coverage.
        """
        if self.residuals is None:
            raise InvalidRequestError(
                "The version has no intervals.",
                remedy="Train a regression on the platform, which measures it on held-out rows.",
                field="interval",
            )
        half = self.residuals.half_width(coverage)
        return np.stack([predictions - half, predictions + half], axis=-1)

    def to_json(self) -> dict[str, Any]:
        """The JSON-compatible form, without what the version does not have."""
        absent = {name for name in ("residuals", "threshold") if getattr(self, name) is None}
        return {name: value for name, value in Document.to_json(self).items() if name not in absent}

    @property
    def probability_columns(self) -> list[str]:
        """The column of each class's probability, in a table of predictions."""
        return [probability_column(each) for each in self.classes]


class NumberColumns:
    """The number columns of a signature, which are read together: one pass and one matrix for all rows and columns."""

    __slots__ = ("_is_required", "_names")

    def __init__(self, inputs: Sequence[InputColumn]) -> None:
        numbers = [column for column in inputs if column.kind is ColumnKind.NUMBER]
        self._names = tuple(column.name for column in numbers)
        self._is_required = np.array([not column.nullable for column in numbers], dtype=bool)

    def read(self, rows: Sequence[Row], shape: tuple[str, ...] = ()) -> dict[str, NDArray[np.float64]] | None:
        """Name → ``(n_rows,)``; None if a value is neither a number nor, in a nullable column, null.

        ``InputColumn.read`` then reads such values, or says which one does not fit.

        Args:
            rows: The rows.
            shape: The names in each of them, in their order; empty if rows differ in that.
        """
        names = self._names
        values: list[Any]
        if shape == names:
            values = list(chain.from_iterable(map(_values, rows)))
        else:
            values = [value for row in rows for value in map(row.get, names)]
        kinds = set(map(type, values))
        if not kinds <= _NUMBERS_OR_NULL:
            return None
        try:
            matrix = np.array(values, dtype=np.float64).reshape(len(rows), len(names)).T
            # A sum that is finite has finite terms.
            is_finite = type(None) not in kinds and math.isfinite(sum(values))
        except OverflowError:  # of an integer
            return None
        if not is_finite and (np.isinf(matrix).any() or np.isnan(matrix)[self._is_required].any()):
            return None
        return dict(zip(names, np.ascontiguousarray(matrix), strict=True))


@dataclass(frozen=True, slots=True)
class Signature(Document):
    """The input columns, in the order of the training data, and the output."""

    inputs: tuple[InputColumn, ...]
    output: Output
    _names: frozenset[str] = field(init=False, repr=False, compare=False)
    _is_ascii: bool = field(init=False, repr=False, compare=False)
    _numbers: NumberColumns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", frozenset(column.name for column in self.inputs))
        object.__setattr__(self, "_is_ascii", all(name.isascii() for name in self._names))
        object.__setattr__(self, "_numbers", NumberColumns(self.inputs))

    def columns_from_rows(self, rows: Sequence[Row]) -> Columns:
        """Convert raw rows to canonical columns, see ``read_rows``."""
        return self.read_rows(rows)[0]

    def read_rows(self, rows: Sequence[Row], *, strict: bool = False) -> tuple[Columns, int]:
        """Convert raw rows to canonical columns, and count the values in columns that the signature does not name.

        A column that the signature does not name is ignored, or refused if ``strict``. A column that a row omits is
        null. A row without any column of the signature is refused. Names are compared in Unicode's composed form.
        An unseen category is accepted.

        Args:
            rows: One mapping per row, from column name to a JSON value; ``datetime`` objects are accepted too.
            strict: Refuse unknown columns.

        Returns:
            The table, see ``ml_core.domain.columns``, and the number of values that were ignored.

        Raises:
            SignatureMismatchError: A row does not fit; names the row (from 0) and the column.
        """
        if not self._is_ascii:  # spares the usual signature a copy of each row
            rows = [{composed(name): value for name, value in row.items()} for row in rows]
        if strict:
            self._refuse_unknown(rows)
        # Rows of the same names in the same order, which mostly all are, are looked at once.
        unknown = {shape: len(frozenset(shape) - self._names) for shape in set(map(tuple, rows))}
        ignored = 0
        if any(unknown.values()) or () in unknown:
            ignored = sum(unknown[tuple(row)] for row in rows)
            self._refuse_misspelled(rows, unknown)
        numbers = self._numbers.read(rows, next(iter(unknown)) if len(unknown) == 1 else ()) or {}
        if len(numbers) == len(self.inputs):
            return numbers, ignored
        columns = {
            c.name: numbers[c.name] if c.name in numbers else c.read([row.get(c.name) for row in rows])
            for c in self.inputs
        }
        return columns, ignored

    def _refuse_misspelled(self, rows: Sequence[Row], unknown: Mapping[tuple[str, ...], int]) -> None:
        # Only a row that lacks a column and has another in its place can be misspelled.
        columns = len(self._names)
        suspicious = {
            shape for shape, extra in unknown.items() if not shape or (extra and len(shape) - extra < columns)
        }
        if suspicious:
            for index, row in enumerate(rows):
                if tuple(row) in suspicious:
                    self.check_names(row, index)

    def check_names(self, given: Collection[str], row: int | None = None) -> None:
        """Check for misspelled column names.

        Args:
            given: The column names of a row or a table. Pass the row itself to detect rows that are nested in it.
            row: The number of the row; None for a table.

        Raises:
            SignatureMismatchError: No name is in the signature; or a column is absent while an unknown name differs
                from it only in case or surrounding blanks or, for a column that is not nullable, is similar.
        """
        names = {column.name: column for column in self.inputs}
        where = "The table" if row is None else f"Row {row}"
        spelled = {normalize("NFC", name) for name in given}
        missing = [name for name in names if name not in given and normalize("NFC", name) not in spelled]
        unknown = [name for name in given if name not in names]
        if missing and len(missing) == len(names):
            raise SignatureMismatchError(
                f"{where} has none of the model's columns.",
                remedy=f"{self._meant(given, unknown)}Known columns: {listed(names)}.",
                row=row,
            )
        meant = _same_but_for_case(missing, unknown) or _similar([m for m in missing if not names[m].nullable], unknown)
        if meant is not None:
            column, instead = meant
            raise SignatureMismatchError(
                f"{where} has no column {shown(column)}.",
                remedy=f"Did you mean {shown(column)} instead of {shown(instead)}? Names are compared exactly.",
                row=row,
                column=column,
            )

    def _meant(self, given: Collection[str], unknown: Sequence[str]) -> str:
        """A suggestion for names of which none is in the signature: empty, or a sentence and a blank."""
        names = [column.name for column in self.inputs]
        for name in unknown[:_NAMES_COMPARED]:
            inner = given[name] if isinstance(given, Mapping) else None
            inner = inner[0] if isinstance(inner, list) and inner else inner
            if isinstance(inner, Mapping) and not inner.keys().isdisjoint(names):
                return f"The value of {shown(name)} has them: send that value as rows. "
        meant = _same_but_for_case(names, unknown) or _similar(names, unknown)
        return "" if meant is None else f"Did you mean {shown(meant[0])} instead of {shown(meant[1])}? "

    def _refuse_unknown(self, rows: Sequence[Row]) -> None:
        for index, row in enumerate(rows):
            for name in row:
                if name not in self._names:
                    raise SignatureMismatchError(
                        f"Row {index} has the unknown column {shown(name)}.",
                        remedy=f"Known columns: {listed(sorted(self._names))}.",
                        row=index,
                        column=name,
                    )


def _array(values: list[Any], numeric: bool) -> NDArray[Any]:
    if numeric:
        return np.array(values, dtype=np.float64)
    # np.array(values, dtype=object) would make a matrix of values that are sequences.
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _same_but_for_case(wanted: Sequence[str], given: Sequence[str]) -> tuple[str, str] | None:
    """The first pair of a wanted and a given name that differ only in case or surrounding blanks."""
    folded = {name.strip().casefold(): name for name in wanted}
    return next(((folded[key], name) for name in given if (key := name.strip().casefold()) in folded), None)


def _similar(wanted: Sequence[str], given: Sequence[str]) -> tuple[str, str] | None:
    """The first pair of a wanted and a given name that are similar."""
    candidates = [name for name in given[:_NAMES_COMPARED] if len(name) <= _NAME_CHARACTERS]
    for name in wanted[:_NAMES_COMPARED]:
        near = difflib.get_close_matches(name[:_NAME_CHARACTERS], candidates, n=1, cutoff=0.75)
        if near:
            return name, near[0]
    return None


def signature_problems(present: Signature, candidate: Signature) -> tuple[str, ...]:
    """List the reasons why rows that fit the present signature may not fit the candidate that replaces it.

    The candidate may add a nullable column and may drop a column, because unknown columns are ignored. A client that
    sends ``strict`` requests is affected by a dropped column.

    Returns:
        One clause per problem, in the order of the candidate's columns, then the output; empty if compatible.
    """
    now = {column.name: column for column in present.inputs}
    problems = []
    for column in candidate.inputs:
        if column.name in now:
            problems += _column_problems(now[column.name], column)
        elif not column.nullable:
            problems.append(f"the column {column.name!r} is new and required")
    if present.output.kind is not candidate.output.kind:
        problems.append(
            f"the output is {candidate.output.kind.value} where the present version has {present.output.kind.value}"
        )
    return tuple(problems)


def _column_problems(now: InputColumn, then: InputColumn) -> list[str]:
    problems = []
    if then.kind is not now.kind and (now.kind, then.kind) not in SAFE_CHANGES:
        problems.append(f"the column {now.name!r} is a {then.kind.value} where it was a {now.kind.value}")
    if now.nullable and not then.nullable:
        problems.append(f"the column {now.name!r} is now required")
    if now.kind is then.kind and now.decimal_comma is not then.decimal_comma:
        problems.append(
            f"the column {now.name!r} reads strings with a decimal {'comma' if then.decimal_comma else 'point'}, not a "
            f"decimal {'comma' if now.decimal_comma else 'point'}"
        )
    reads_dates = now.kind is then.kind is ColumnKind.DATETIME
    if reads_dates and now.date_order is not None and then.date_order is not now.date_order:
        order = "not at all" if then.date_order is None else then.date_order.value.replace("_", " ")
        was = now.date_order.value.replace("_", " ")
        problems.append(f"the column {now.name!r} reads dates such as 01/02/2026 {order} where it was {was}")
    return problems
