"""The kind of each column of a data frame, with the reason in words that a user can check.

Kinds are inferred from dtypes and values, never from a model's needs. Every value of a column passes the row reader of
its inferred kind (``ml_core.domain.values``), so rows like those of the training data are accepted in serving too.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pandas as pd

from ml_core.data.cells import cells_of, decimal_of, has_decimal_comma
from ml_core.data.evidence import Evidence, Inference, fits, holds_objects, infer_numbers, unless_constant
from ml_core.data.strings import FEW_MIXED, infer_strings, is_code, order_of_datetimes
from ml_core.domain.columns import ColumnKind, check_lengths
from ml_core.domain.signature import InputColumn
from ml_core.domain.values import category_text, composed, read_category, read_datetime, read_number
from ml_core.exceptions import DataProcessingError, shown

# Categories that have a column of their own in the encoding, and that a signature lists; the others share one.
MAX_CATEGORIES = 50
_TypeName = Literal["string", "number", "boolean", "datetime", "code"]

# The kinds in which NA and None are values; see ml_core.domain.values.
_WORDS_ARE_VALUES = (ColumnKind.CATEGORY, ColumnKind.TEXT)


@dataclass(frozen=True, slots=True)
class InferredColumn:
    """The result for one column.

    Attributes:
        input: How a model reads it; the categories are the most frequent, at most ``MAX_CATEGORIES``. None: it is not
            used.
        reason: Why, in a phrase such as ``text: 8.2 words on average, 412 distinct values``.
    """

    name: str
    input: InputColumn | None
    reason: str

    @property
    def kind(self) -> ColumnKind | None:
        """The kind; None if it is not used."""
        return None if self.input is None else self.input.kind


def infer_columns(
    frame: pd.DataFrame, *, kinds: Mapping[str, ColumnKind] | None = None, has_commas: bool = False
) -> tuple[InferredColumn, ...]:
    """Infer the kind of each column and whether the column is used.

    Not used are constant columns, identifiers (a different code in every row) and dates that can be read in two ways.
    Columns whose kind the caller knows, ``kinds``, are always used. ``has_commas`` says whether there are decimal
    commas in a column that is not in the frame, such as the target.

    Raises:
        DataProcessingError: No row, no column, no usable column, a name used twice, an all-missing or mixed column,
            values of a type that no kind holds, or ``kinds`` names no column. Has ``column`` where one is at fault.
    """
    names = [composed(str(name)) for name in frame.columns]
    kinds = {composed(name): ColumnKind(kind) for name, kind in (kinds or {}).items()}
    check_table(len(frame), names, kinds)
    has_commas = has_commas or has_decimal_comma(frame)
    inferred = tuple(
        infer_column(name, series, kinds.get(name), has_commas)
        for name, (_, series) in zip(names, frame.items(), strict=True)
    )
    return require_usable(inferred)


def require_usable(inferred: tuple[InferredColumn, ...]) -> tuple[InferredColumn, ...]:
    """The columns.

    Raises:
        DataProcessingError: None can be used.
    """
    if not any(column.input for column in inferred):
        reasons = "; ".join(f"{column.name!r}: {column.reason}" for column in inferred[:5])
        raise DataProcessingError(
            f"No column can be used ({reasons}).",
            remedy="Add columns that differ between rows, or name a column's kind.",
            stage="infer",
        )
    return inferred


def check_table(n_rows: int, names: Sequence[str], kinds: Mapping[str, ColumnKind]) -> None:
    """Check what of ``infer_columns`` concerns the whole table.

    Raises:
        DataProcessingError: No row, no column, a name used twice or too long, or ``kinds`` names no column.
    """
    if not names or not n_rows:
        raise DataProcessingError(
            f"The table has {n_rows} rows and {len(names)} columns.",
            remedy="It needs at least one of each.",
            stage="infer",
        )
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise DataProcessingError(
            f"Two columns are called {twice!r}.", remedy="Rename one of them.", column=twice, stage="infer"
        )
    check_lengths(names)
    for name in kinds:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3) or names[:10]
            raise DataProcessingError(
                f"A kind is given for {name!r}, which is not a column.",
                remedy=f"Did you mean {', '.join(map(repr, near))}?",
                column=name,
                stage="infer",
            )


def infer_column(name: str, series: pd.Series[Any], kind: ColumnKind | None, has_commas: bool) -> InferredColumn:
    """Infer one column of a table, see ``infer_columns``; ``kind`` is what the caller knows."""
    evidence = _evidence(name, series, kind, has_commas)
    if kind is not None:
        order = order_of_datetimes(evidence) if kind is ColumnKind.DATETIME else None
        found = Inference(kind, "as given", order, kind is ColumnKind.NUMBER and _has_comma(evidence))
    else:
        found = infer_kind(evidence)
        if found.kind in _WORDS_ARE_VALUES:
            evidence, found = _with_words(series, evidence, found)
    if found.kind is None:
        return InferredColumn(name, None, f"not used: {found.reason}")
    reason = f"{found.kind}: {found.reason}"
    if evidence.n_missing:
        reason += f", {evidence.n_missing} missing"
    if found.decimal_comma:
        reason += ", decimal comma read; send 180.5, or the string '180,5', in requests"
    categories = _categories(evidence) if found.kind is ColumnKind.CATEGORY else ()
    nullable = evidence.n_missing > 0
    made = InputColumn(name, found.kind, nullable, categories, found.date_order, found.decimal_comma)
    return InferredColumn(name, made, reason)


def infer_kind(evidence: Evidence) -> Inference:
    """The kind of a column that has values.

    Numbers, booleans and datetimes are recognised by their dtype or, in columns of Python objects, by their type;
    strings by their content, see ``ml_core.data.strings``.

    Raises:
        DataProcessingError: Values of mixed types, of a type that no kind holds, or infinite.
    """
    dtype = evidence.values.dtype
    if isinstance(dtype, pd.CategoricalDtype):  # first: pandas takes a categorical of booleans for booleans
        if isinstance(dtype.categories, pd.IntervalIndex | pd.PeriodIndex):  # of pandas.cut
            example = dtype.categories[0]
            what = f"holds categories of type {type(example).__name__}, such as {shown(example)}."
            raise evidence.error(what, "Turn them into strings: frame[column].astype(str).")
        return unless_constant(evidence, ColumnKind.CATEGORY)
    if holds_objects(evidence.values):
        return _infer_objects(evidence)
    if pd.api.types.is_bool_dtype(dtype):  # before numbers, which booleans are to pandas
        return unless_constant(evidence, ColumnKind.BOOLEAN)
    if pd.api.types.is_complex_dtype(dtype):
        raise evidence.error("holds complex numbers.", "Split it into real and imaginary part.")
    if pd.api.types.is_numeric_dtype(dtype):
        return infer_numbers(evidence)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return unless_constant(evidence, ColumnKind.DATETIME)
    if pd.api.types.is_timedelta64_dtype(dtype):
        raise evidence.error("holds durations.", "Give them as numbers: frame[column].dt.total_seconds().")
    return _infer_objects(evidence)


def _infer_objects(evidence: Evidence) -> Inference:
    values = evidence.values.tolist()
    if isinstance(evidence.values.dtype, pd.StringDtype):
        return infer_strings(evidence, values)
    types = Counter(_type_name(evidence, value) for value in values)
    if types.keys() == {"string"}:
        return infer_strings(evidence, values)
    if types.keys() == {"boolean"}:
        return unless_constant(evidence, ColumnKind.BOOLEAN)
    if types.keys() <= {"number", "boolean"}:
        return infer_numbers(Evidence(evidence.name, evidence.values.map(float), evidence.n_rows))
    if types.keys() == {"datetime"}:
        return unless_constant(evidence, ColumnKind.DATETIME)
    if types.keys() == {"code"}:
        return Inference(None, "an identifier: UUIDs")
    return _infer_mixed(evidence, values, types)


def _type_name(evidence: Evidence, value: Any) -> _TypeName:
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool | np.bool_):  # before numbers: a bool is an int
        return "boolean"
    if isinstance(value, int | float | np.number | Decimal) and not isinstance(value, np.complexfloating):
        return "number"
    if isinstance(value, date | np.datetime64):
        return "datetime"
    if isinstance(value, UUID):
        return "code"
    raise evidence.error(
        f"holds values of type {type(value).__name__}, such as {shown(value)}.",
        "Turn them into numbers, strings or datetimes, or drop the column.",
    )


def _infer_mixed(evidence: Evidence, values: list[Any], types: Counter[_TypeName]) -> Inference:
    has_codes = types.keys() == {"string", "number"} and any(isinstance(v, str) and is_code(v) for v in values)
    if has_codes and all(fits(read_number, value) for value in values):
        # As a spreadsheet gives them: 94110 is a number there, 01234 can only be a string.
        texts = evidence.values.map(category_text)
        return infer_strings(replace(evidence, values=texts), texts.tolist())
    for kind, read in ((ColumnKind.NUMBER, read_number), (ColumnKind.DATETIME, read_datetime)):
        if all(fits(read, value) for value in values):
            return unless_constant(evidence, kind)
    distinct = len({category_text(value) for value in values})
    if distinct <= FEW_MIXED and distinct <= len(values) / 2:
        return Inference(ColumnKind.CATEGORY, f"{distinct} distinct values of several types")
    common, rare = types.most_common()[0][0], types.most_common()[-1][0]
    row = next(i for i, value in enumerate(values) if _type_name(evidence, value) == rare)
    counts = " and ".join(f"{count:,} {name}s" for name, count in types.most_common())
    raise evidence.error(
        f"mixes {counts}; row {evidence.values.index[row]} is {shown(values[row])}.",
        f"Make all of them {common}s, name the column's kind (a category takes all types), or drop the column.",
    )


def _has_comma(evidence: Evidence) -> bool:
    cells = cells_of(evidence.values)
    return cells is not None and decimal_of(cells, has_commas=evidence.has_commas) == ","


def _evidence(name: str, series: pd.Series[Any], kind: ColumnKind | None, has_commas: bool) -> Evidence:
    words_are_missing = kind not in _WORDS_ARE_VALUES
    evidence = Evidence.of(name, series, words_are_missing=words_are_missing, has_commas=has_commas)
    if not len(evidence.values):
        raise DataProcessingError(
            f"Column {name!r} has no value in any of the {evidence.n_rows} rows.",
            remedy="Drop the column, or fill it.",
            column=name,
            stage="infer",
        )
    return evidence


def has_missing(series: pd.Series[Any], kind: ColumnKind) -> bool:
    """Whether a column of a kind has missing values."""
    return Evidence.of("", series, words_are_missing=kind not in _WORDS_ARE_VALUES).n_missing > 0


def _with_words(series: pd.Series[Any], evidence: Evidence, found: Inference) -> tuple[Evidence, Inference]:
    """The same column with words such as ``NA`` as values of it."""
    if not evidence.n_missing:
        return evidence, found
    whole = Evidence.of(evidence.name, series, words_are_missing=False, has_commas=evidence.has_commas)
    if whole.n_missing == evidence.n_missing:
        return evidence, found
    try:
        again = infer_kind(whole)
    except DataProcessingError:  # with the words the column is a mixture, without them it is not
        return whole, found
    return whole, again if again.kind is found.kind else found


def _categories(evidence: Evidence) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for value, count in evidence.counts():
        text = read_category(value) if isinstance(value, str) else category_text(value)
        counts[text] = counts.get(text, 0) + count
    return tuple(most_frequent(counts)[:MAX_CATEGORIES])


def most_frequent(counts: Mapping[str, int]) -> list[str]:
    """The texts by descending count; equal counts in the order of the text."""
    return sorted(counts, key=lambda text: (-counts[text], text))
