"""What each column of a data frame holds, with the reason in words that a user can check.

The kinds are inferred from dtypes and values, never from a model's needs. A kind that is inferred can be read: every
value of the column passes the row reader of ``ml_core.domain.values``, so rows like those of the training data are
accepted at serving too.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ml_core.data.cells import cells_of, decimal_of, has_decimal_comma
from ml_core.data.dates import order_of_datetimes
from ml_core.data.evidence import Evidence, Verdict
from ml_core.data.judgement import judge
from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.signature import InputColumn
from ml_core.domain.values import category_text, composed, read_category
from ml_core.exceptions import DataProcessingError

# Categories that have a column of their own in the encoding, and that a signature lists; the others share one.
MAX_CATEGORIES = 50
# The kinds in which NA and None are values; see ml_core.domain.values.
_WORDS_ARE_VALUES = (ColumnKind.CATEGORY, ColumnKind.TEXT)


@dataclass(frozen=True, slots=True)
class InferredColumn:
    """What was found of one column.

    Attributes:
        name: The column's name, as a string.
        kind: What it holds; None where it is not used.
        nullable: Whether it has missing values.
        categories: For a category, the values, most frequent first, at most ``MAX_CATEGORIES``.
        reason: Why, in a phrase such as ``text: 8.2 words on average, 412 distinct values``.
        used: Whether it is an input of the model.
        date_order: How ``01/02/2026`` is read, for a datetime column whose values need an order.
        decimal_comma: Whether the strings of a number column have a decimal comma.
    """

    name: str
    kind: ColumnKind | None
    nullable: bool
    categories: tuple[str, ...]
    reason: str
    used: bool
    date_order: DateOrder | None = None
    decimal_comma: bool = False

    def to_input(self) -> InputColumn:
        """The signature's input column.

        Raises:
            ValueError: The column is not used.
        """
        if self.kind is None or not self.used:
            raise ValueError(f"column {self.name!r} is not used: {self.reason}")
        return InputColumn(self.name, self.kind, self.nullable, self.categories, self.date_order, self.decimal_comma)


def infer_columns(
    frame: pd.DataFrame, *, kinds: Mapping[str, ColumnKind] | None = None, has_commas: bool = False
) -> tuple[InferredColumn, ...]:
    """Say of each column what it holds and whether it is used.

    Not used are constant columns, identifiers (a different code in every row) and dates that can be read in two ways.

    Args:
        frame: ``(n_rows, n_columns)``, without the target.
        kinds: Column name → kind, for columns whose kind the caller knows; these are always used.
        has_commas: Whether there are decimal commas in a column that is left out, such as the target.

    Returns:
        One a column, in the order of the frame.

    Raises:
        DataProcessingError: No row, no column, no usable column, a name used twice, an all-missing or mixed column,
            values of a type that no kind holds, or ``kinds`` names no column. Has ``column`` where one is at fault.
    """
    names = [composed(str(name)) for name in frame.columns]
    kinds = {composed(name): ColumnKind(kind) for name, kind in (kinds or {}).items()}
    _check_table(frame, names, kinds)
    has_commas = has_commas or has_decimal_comma(frame)
    inferred = tuple(
        _infer(name, frame.iloc[:, position], kinds.get(name), has_commas) for position, name in enumerate(names)
    )
    if not any(column.used for column in inferred):
        reasons = "; ".join(f"{column.name!r}: {column.reason}" for column in inferred[:5])
        raise DataProcessingError(
            f"No column can be used ({reasons}).",
            remedy="Add columns that tell the rows apart, or name a column's kind.",
            stage="infer",
        )
    return inferred


def _check_table(frame: pd.DataFrame, names: Sequence[str], kinds: Mapping[str, ColumnKind]) -> None:
    if not names or not len(frame):
        raise DataProcessingError(
            f"The table has {len(frame)} rows and {len(names)} columns.",
            remedy="It needs at least one of each.",
            stage="infer",
        )
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise DataProcessingError(
            f"Two columns are called {twice!r}.", remedy="Rename one of them.", column=twice, stage="infer"
        )
    for name in kinds:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3) or names[:10]
            raise DataProcessingError(
                f"A kind is given for {name!r}, which is not a column.",
                remedy=f"Did you mean {', '.join(map(repr, near))}?",
                column=name,
                stage="infer",
            )


def _infer(name: str, series: pd.Series[Any], kind: ColumnKind | None, has_commas: bool) -> InferredColumn:
    evidence = _evidence(name, series, kind, has_commas)
    if kind is not None:
        order = order_of_datetimes(evidence) if kind is ColumnKind.DATETIME else None
        verdict = Verdict(kind, "as given", order, kind is ColumnKind.NUMBER and _has_comma(evidence))
    else:
        verdict = judge(evidence)
        if verdict.kind in _WORDS_ARE_VALUES:
            evidence, verdict = _with_words(series, evidence, verdict)
    reason = f"{verdict.kind}: {verdict.reason}" if verdict.kind else f"not used: {verdict.reason}"
    if evidence.n_missing and verdict.kind:
        reason += f", {evidence.n_missing} missing"
    if verdict.decimal_comma:
        reason += ", decimal comma read; send 180.5, or the string '180,5', in requests"
    return InferredColumn(
        name=name,
        kind=verdict.kind,
        nullable=evidence.n_missing > 0,
        categories=_categories(evidence) if verdict.kind is ColumnKind.CATEGORY else (),
        reason=reason,
        used=verdict.kind is not None,
        date_order=verdict.date_order,
        decimal_comma=verdict.decimal_comma,
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


def _with_words(series: pd.Series[Any], evidence: Evidence, verdict: Verdict) -> tuple[Evidence, Verdict]:
    """The same column, now that words such as ``NA`` turn out to be values of it."""
    whole = Evidence.of(evidence.name, series, words_are_missing=False, has_commas=evidence.has_commas)
    if whole.n_missing == evidence.n_missing:
        return evidence, verdict
    try:
        again = judge(whole)
    except DataProcessingError:  # with the words it is a mixture, without them it is not
        return whole, verdict
    return whole, again if again.kind is verdict.kind else verdict


def _categories(evidence: Evidence) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for value, count in evidence.counts():
        text = read_category(value) if isinstance(value, str) else category_text(value)
        counts[text] = counts.get(text, 0) + count
    return tuple(most_frequent(counts)[:MAX_CATEGORIES])


def most_frequent(counts: Mapping[str, int]) -> list[str]:
    """The texts by falling count, equal counts in the order of the text."""
    return sorted(counts, key=lambda text: (-counts[text], text))
