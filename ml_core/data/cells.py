"""Columns of strings as values: the cells of a text file, or the strings of a frame.

The rules are those of ``ml_core.domain.values`` for single values, applied here to Arrow arrays: ``(n_rows,)`` strings,
null where a cell is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_core.data.tables import series_of
from ml_core.domain.values import BOOLEAN_STRINGS, COMMA_NUMBER, MISSING_STRINGS, NUMBER

# A number that is a code: zero-padded, or written like a phone number. For Python's re and for RE2.
CODE = r"^\s*(?:0[0-9]|\+[0-9]{7,}\s*$)"

_WHOLE = r"\s*[+-]?[0-9]+\s*"
_GROUPED_BY_COMMAS = r"\s*[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+\s*"
_INFINITE = r"\s*[+-]?(?i:inf(?:inity)?)\s*"
_TRUE = [text for text, number in BOOLEAN_STRINGS.items() if number]
# Cells that are checked first: most columns that do not match fail within these.
_GLANCE = 100


@dataclass(frozen=True, slots=True)
class Cells:
    """A target from a text file: its labels are the values of its cells, such as ``1``, ``true`` or ``x``.

    Attributes:
        series: ``(n_rows,)`` strings.
        has_commas: Whether a column of the file has decimal commas.
    """

    series: pd.Series[Any]
    has_commas: bool

    @classmethod
    def of(cls, frame: pd.DataFrame, target: pd.Series[Any]) -> Cells:
        """A column of a table of cells."""
        return cls(target, has_decimal_comma(frame))

    def __len__(self) -> int:
        return len(self.series)

    def labels(self) -> pd.Series[Any]:
        """The labels, in one type."""
        return typed_series(self.series, has_commas=self.has_commas)


def cells_of(series: pd.Series[Any]) -> Any | None:
    """The strings of a series as an Arrow array; None where it holds other values or invalid Unicode."""
    try:
        if series.dtype == object:
            return pa.array(series.tolist(), pa.string())
        if isinstance(series.dtype, pd.StringDtype) or series.dtype == pd.ArrowDtype(pa.string()):
            return pa.array(series, from_pandas=True)
    except (pa.ArrowException, UnicodeError, TypeError):
        pass
    return None


def present(cells: Any, *, words_are_missing: bool = True) -> Any:
    """The cells, null where they are blank or, by default, a word for missing such as ``NA``."""
    missing = sorted(MISSING_STRINGS) if words_are_missing else [""]
    return pc.if_else(pc.or_(_is_any_of(cells, missing), pc.utf8_is_space(cells)), None, cells)


def truths(cells: Any) -> Any | None:
    """The cells as booleans; None if one of them is not a boolean."""
    words = list(BOOLEAN_STRINGS)
    if not _all(_is_any_of(cells.slice(0, _GLANCE), words)) or not _all(_is_any_of(cells, words)):
        return None
    return _is_any_of(cells, _TRUE, keep_null=True)


def numbers(cells: Any, *, decimal_comma: bool = False) -> Any | None:
    """The cells as float64; None if one of them is not a number."""
    fits = _all_match(cells, COMMA_NUMBER if decimal_comma else NUMBER)
    return floats(cells, decimal_comma=decimal_comma) if fits else None


def floats(cells: Any, *, decimal_comma: bool = False) -> Any:
    """The cells, which must be numbers, as float64."""
    if decimal_comma:
        cells = pc.replace_substring(pc.replace_substring(cells, ".", ""), ",", ".")
    return _digits(cells).cast(pa.float64())


def count_infinite(cells: Any) -> int:
    """How many of the cells are infinite, where all others are numbers; else 0."""
    if not _all_match(cells, f"{NUMBER}|{_INFINITE}"):
        return 0
    return int(pc.sum(pc.match_substring_regex(cells, f"^{_INFINITE}$")).as_py() or 0)


def decimal_of(cells: Any, *, has_commas: bool = False) -> str | None:
    """The decimal separator of a column of numbers, a point or a comma; None where the cells are not numbers.

    ``1,234`` alone may be 1234 or 1.234, and ``1.234`` beside decimal commas 1234. Such cells are read with a decimal
    comma only if another cell of the column, or another column of the table (``has_commas``), has one beyond doubt.
    """
    if _all_match(cells, NUMBER):
        return "," if has_commas and _any_matches(cells, "[.]") and _all_match(cells, COMMA_NUMBER) else "."
    if not _all_match(cells, COMMA_NUMBER):
        return None
    fractions = cells.filter(pc.match_substring(cells, ","))
    return "," if has_commas or not _all_match(fractions, _GROUPED_BY_COMMAS) else None


def has_decimal_comma(frame: pd.DataFrame) -> bool:
    """Whether some column of strings in a table has decimal commas beyond doubt."""
    for _, series in frame.items():  # noqa: PERF102 - a data frame, not a dict
        cells = cells_of(series)
        if cells is None or not pc.any(pc.match_substring(cells, ",")).as_py():
            continue
        if decimal_of(present(cells)) == ",":
            return True
    return False


@dataclass(frozen=True, slots=True)
class Literals:
    """A column of cells as values: booleans or float64, and whether its numbers have a decimal comma."""

    values: Any
    decimal_comma: bool = False


def literals(cells: Any, *, has_commas: bool = False) -> Literals | None:
    """The cells as booleans or numbers; None where they are other strings, codes such as ``007`` included."""
    if (values := truths(cells)) is not None:
        return Literals(values)
    decimal = decimal_of(cells, has_commas=has_commas)
    if decimal is None or _any_matches(cells, CODE):
        return None
    return Literals(floats(cells, decimal_comma=decimal == ","), decimal == ",")


def any_literal(cells: Any) -> bool:
    """Whether one of the cells is a number, a code, or a boolean."""
    present_cells = cells.filter(pc.is_valid(cells))
    words = _is_any_of(present_cells, list(BOOLEAN_STRINGS))
    return bool(pc.any(words).as_py()) or _any_matches(present_cells, f"^(?:{NUMBER}|{COMMA_NUMBER})$")


def typed_series(series: pd.Series[Any], *, has_commas: bool = False) -> pd.Series[Any]:
    """A series of cells as booleans, whole numbers (``Int64`` beside missing ones), numbers, or the cells themselves.

    Words for missing are null among booleans and numbers. Codes, and whole numbers beyond 64 bits, stay strings. A
    missing cell changes the type of no other.
    """
    cells = cells_of(series)
    valid = None if cells is None else present(cells)
    if valid is None or valid.null_count == len(valid):
        return series
    found = literals(valid, has_commas=has_commas)
    if found is None:
        return series
    values = found.values
    if pa.types.is_floating(values.type) and _all_match(valid, _WHOLE):
        try:
            values = _digits(valid).cast(pa.int64())
        except pa.ArrowInvalid:  # beyond 64 bits: as a float two of them could become equal
            return series
    return pd.Series(series_of(values).array, index=series.index, name=series.name)


def _digits(cells: Any) -> Any:
    """Numbers as Arrow's casts take them."""
    return pc.ascii_ltrim(pc.ascii_trim_whitespace(cells), "+")


def _is_any_of(cells: Any, texts: list[str], *, keep_null: bool = False) -> Any:
    found = pc.is_in(cells, value_set=pa.array(texts, cells.type))
    return pc.if_else(pc.is_valid(cells), found, None if keep_null else True)


def _all(flags: Any) -> bool:
    return bool(pc.all(flags).as_py() in (True, None))


def _any_matches(cells: Any, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(cells, pattern)).as_py())


def _all_match(cells: Any, pattern: str) -> bool:
    """Whether all cells that are not null match a pattern as a whole."""
    whole = f"^(?:{pattern})$"
    glance = cells.slice(0, _GLANCE)
    return _all(pc.match_substring_regex(glance, whole)) and _all(pc.match_substring_regex(cells, whole))
