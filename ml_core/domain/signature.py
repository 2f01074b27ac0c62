"""Signatures: what a version accepts and what it answers.

``Signature.columns_from_rows`` is the one way from raw rows, as a client sends them, to canonical columns. It either
returns columns that the pipeline can take or names the row and the column that do not fit. What a single value means is
decided in ``ml_core.domain.values``, for rows and data frames alike.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind, Columns, DateOrder
from ml_core.domain.values import (
    READERS,
    DoesNotFitError,
    composed,
    is_blank,
    is_missing,
    read_category,
    read_comma_number,
    read_datetime,
    says_missing,
)
from ml_core.exceptions import SignatureMismatchError, listed, shown

Row = Mapping[str, Any]
Label = str | int | float | bool

_PLAIN_NUMBERS = (float, int)
_LARGEST = sys.float_info.max
_NEVER_MISSING = "it had no missing value in training"
# What a message shows and compares: a row may have thousands of names, each as long as the request.
_NAMES_COMPARED = 50
_NAME_CHARACTERS = 80


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
        decimal_comma: Whether strings in a number column have a decimal comma, as in training.
    """

    name: str
    kind: ColumnKind
    nullable: bool
    categories: tuple[str, ...] = ()
    date_order: DateOrder | None = None
    decimal_comma: bool = False
    _read_value: Callable[[Any], Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_read_value", self._reader())

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
        read = self._read_value
        numeric = self.kind.is_numeric
        nothing, says_nothing = (math.nan, says_missing) if numeric else (None, is_blank)
        result: list[Any] = []
        is_number, seen = self.kind is ColumnKind.NUMBER, self.categories
        for index, value in enumerate(values):
            if is_number and type(value) in _PLAIN_NUMBERS and -_LARGEST <= value <= _LARGEST:
                result.append(value)  # what nearly all numbers of a request are; NaN fails the comparison
                continue
            if type(value) is str and value in seen:
                result.append(value)  # what nearly all categories are; the most frequent ones come first
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
        """What reads a value that is not missing."""
        if self.decimal_comma:
            return read_comma_number
        if self.date_order is not None:
            return partial(read_datetime, order=self.date_order)
        if self.categories:
            return partial(read_category, categories=self.categories)
        return READERS[self.kind]

    def to_json(self) -> dict[str, Any]:
        """A JSON-compatible description; ``from_json`` reads it back."""
        order = {} if self.date_order is None else {"date_order": self.date_order.value}
        comma = {"decimal_comma": True} if self.decimal_comma else {}
        return {
            "name": self.name,
            "kind": self.kind.value,
            "nullable": self.nullable,
            "categories": list(self.categories),
            **order,
            **comma,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputColumn:
        """The column that ``to_json`` described."""
        order = data.get("date_order")
        return cls(
            data["name"],
            ColumnKind(data["kind"]),
            data["nullable"],
            tuple(data["categories"]),
            None if order is None else DateOrder(order),
            data.get("decimal_comma", False),
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
    _names: frozenset[str] = field(init=False, repr=False, compare=False)
    _is_ascii: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", frozenset(column.name for column in self.inputs))
        object.__setattr__(self, "_is_ascii", all(name.isascii() for name in self._names))

    def columns_from_rows(self, rows: Sequence[Row], *, strict: bool = False) -> Columns:
        """Canonical columns of raw rows.

        A column that the signature does not name is ignored, or refused when ``strict``; so is a row that has no other.
        Names match however their accents are encoded. A missing column is null. Null is accepted where the column is
        nullable. An unseen category is accepted: the fitted encoder decides.

        Args:
            rows: One mapping a row, from column name to a JSON value; ``datetime`` objects are accepted too.
            strict: Refuse unknown columns.

        Returns:
            The table, see ``ml_core.domain.columns``.

        Raises:
            SignatureMismatchError: Names the first row (from 0) and column that do not fit.
        """
        if not self._is_ascii:
            rows = [{composed(name): value for name, value in row.items()} for row in rows]
        if strict:
            self._refuse_unknown(rows)
        names = self._names
        for index, row in enumerate(rows):
            keys = row.keys()
            if not row or not (keys <= names or keys >= names):
                self.check_names(row, index)
        return {c.name: c.read([row.get(c.name) for row in rows]) for c in self.inputs}

    def count_unknown(self, rows: Sequence[Row]) -> int:
        """How many values of the rows are of columns that the signature does not name."""
        names = self._names
        return sum(0 if row.keys() <= names else len(row.keys() - names) for row in rows)

    def check_names(self, given: Collection[str], row: int | None = None) -> None:
        """Refuse names of columns that can only be meant for other names.

        Args:
            given: The names of a row's or a table's columns; a row itself, to look into its values.
            row: The row's number; None: they are those of a table.

        Raises:
            SignatureMismatchError: None of them is the model's. Or one of the model's is not there but one like it is:
                in another case, or with blanks around it; or, where the column can't be null, of a similar spelling.
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
        """What may be wrong with names of which none is the model's; empty, or a sentence and a blank."""
        names = [column.name for column in self.inputs]
        for name in unknown[:_NAMES_COMPARED]:
            inner = given[name] if isinstance(given, Mapping) else None
            inner = inner[0] if isinstance(inner, list) and inner else inner
            if isinstance(inner, Mapping) and not inner.keys().isdisjoint(names):
                return f"They are in the value of {shown(name)}: send what it holds as rows. "
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


def _same_but_for_case(wanted: Sequence[str], given: Sequence[str]) -> tuple[str, str] | None:
    """The first of ``given`` that is one of ``wanted`` in another case or with blanks around it, and that one."""
    folded = {name.strip().casefold(): name for name in wanted}
    return next(((folded[key], name) for name in given if (key := name.strip().casefold()) in folded), None)


def _similar(wanted: Sequence[str], given: Sequence[str]) -> tuple[str, str] | None:
    """The first of ``wanted`` that a name of ``given`` is near, and that name."""
    candidates = [name for name in given[:_NAMES_COMPARED] if len(name) <= _NAME_CHARACTERS]
    for name in wanted[:_NAMES_COMPARED]:
        near = difflib.get_close_matches(name[:_NAME_CHARACTERS], candidates, n=1, cutoff=0.75)
        if near:
            return name, near[0]
    return None
