"""Columns of strings, all values at once: what the cells of a text file, or a frame's strings, say.

The rules are those of ``ml_core.domain.values`` for single values. Here they are applied to Arrow arrays, ``(n_rows,)``
of strings, null where nothing is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_core.data.table_file import holds_cells, read_frame, series_of
from ml_core.domain.values import BOOLEAN_STRINGS, COMMA_NUMBER, MISSING_STRINGS, NUMBER

# A number that is a code: zero-padded, or written as phone numbers are. Read by Python and by RE2.
CODE = r"^\s*(?:0[0-9]|\+[0-9]{7,}\s*$)"

_WHOLE = r"\s*[+-]?[0-9]+\s*"
_GROUPED_BY_COMMAS = r"\s*[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+\s*"
_INFINITE = r"\s*[+-]?(?i:inf(?:inity)?)\s*"
_TRUE = [text for text, number in BOOLEAN_STRINGS.items() if number]
# Cells that are looked at before all of them are.
_GLANCE = 100


@dataclass(frozen=True, slots=True)
class Cells:
    """A target from a text file: its labels are what its cells say, such as ``1``, ``true`` or ``x``.

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
    """The strings of a series as an Arrow array; None where it holds other values, or strings that are no Unicode."""
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
    nothing = sorted(MISSING_STRINGS) if words_are_missing else [""]
    return pc.if_else(pc.or_(_is_any_of(cells, nothing), pc.utf8_is_space(cells)), None, cells)


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
    """The cells, which are known to be numbers, as float64."""
    if decimal_comma:
        cells = pc.replace_substring(pc.replace_substring(cells, ".", ""), ",", ".")
    return _digits(cells).cast(pa.float64())


def count_infinite(cells: Any) -> int:
    """How many of the cells are infinite, where all others are numbers; else 0."""
    if not _all_match(cells, f"{NUMBER}|{_INFINITE}"):
        return 0
    return int(pc.sum(pc.match_substring_regex(cells, f"^{_INFINITE}$")).as_py() or 0)


def has_codes(cells: Any) -> bool:
    """Whether some cell is a number that is written as codes are, such as ``007``."""
    return _any_matches(cells, CODE)


def decimal_of(cells: Any, *, has_commas: bool = False) -> str | None:
    """What the fractions of a column of numbers begin with: a point or a comma; None where the cells are no numbers.

    ``1,234`` alone may be 1234 or 1.234, and ``1.234`` beside decimal commas 1234. Such cells are read with a comma
    only if another cell of the column, or another column of the table, has a comma that can be no other.

    Args:
        cells: Without missing ones.
        has_commas: Whether another column has decimal commas.
    """
    if _all_match(cells, NUMBER):
        return "," if has_commas and _any_matches(cells, "[.]") and _all_match(cells, COMMA_NUMBER) else "."
    if not _all_match(cells, COMMA_NUMBER):
        return None
    fractions = cells.filter(pc.match_substring(cells, ","))
    return "," if has_commas or not _all_match(fractions, _GROUPED_BY_COMMAS) else None


def has_decimal_comma(frame: pd.DataFrame) -> bool:
    """Whether some column of strings in a table has decimal commas beyond doubt."""
    for position in range(frame.shape[1]):
        cells = cells_of(frame.iloc[:, position])
        if cells is None or not pc.any(pc.match_substring(cells, ",")).as_py():
            continue
        if decimal_of(present(cells)) == ",":
            return True
    return False


def typed(cells: Any, *, has_commas: bool = False) -> Any:
    """The values of a column of cells: booleans, whole numbers, numbers, or else the cells themselves.

    Words for missing are null among booleans and numbers. Codes, and whole numbers beyond 64 bits, stay strings. A
    missing cell changes the type of no other.
    """
    said = present(cells)
    if said.null_count == len(said):
        return cells
    if (values := truths(said)) is not None:
        return values
    decimal = decimal_of(said, has_commas=has_commas)
    if decimal is None or has_codes(said):
        return cells
    if _all_match(said, _WHOLE):
        try:
            return _digits(said).cast(pa.int64())
        except pa.ArrowInvalid:
            return cells
    return floats(said, decimal_comma=decimal == ",")


def typed_series(series: pd.Series[Any], *, has_commas: bool = False) -> pd.Series[Any]:
    """As ``typed``, of a series of cells; integers with missing ones are pandas' ``Int64``."""
    cells = cells_of(series)
    if cells is None:
        return series
    values = typed(cells, has_commas=has_commas)
    return series if values is cells else pd.Series(series_of(values).array, index=series.index, name=series.name)


def read_typed(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The table of a dataset's file as ``read_frame`` gives it, with cells of a text file as the values that they say.

    Raises:
        DataProcessingError: There is no such column.
    """
    frame = read_frame(path, columns)
    if not holds_cells(path):
        return frame
    has_commas = has_decimal_comma(frame if columns is None else read_frame(path))
    return pd.DataFrame({name: typed_series(frame[name], has_commas=has_commas) for name in frame.columns})


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
