"""From a data frame to canonical columns, and back.

An element of a frame is read as ``ml_core.domain.values`` reads the same value in a JSON row. Common dtypes are
converted at once; all other values go through the row reader one by one, so that numbers and errors are the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ml_core.data.cells import cells_of, numbers, present, truths
from ml_core.domain.columns import ColumnKind, Columns, DateOrder
from ml_core.domain.signature import InputColumn
from ml_core.domain.values import composed
from ml_core.exceptions import DataProcessingError, SignatureMismatchError, listed

# The forms of date and time that pandas and ml_core.domain.values read alike, with the format string of pandas.
_PLAIN_DATE = r"[0-9]{{1,2}}{0}[0-9]{{1,2}}{0}[0-9]{{4}}"
_TIMES = {"": "", " [0-9]{1,2}:[0-9]{2}": " %H:%M", " [0-9]{1,2}:[0-9]{2}:[0-9]{2}": " %H:%M:%S"}


def columns_from_frame(frame: pd.DataFrame, inputs: Sequence[InputColumn]) -> Columns:
    """Canonical columns of a data frame of any dtypes, see ``ml_core.domain.columns``.

    Columns of the frame that ``inputs`` does not name are ignored; a column that the frame lacks is null in every row.
    Names are compared as strings.

    Raises:
        SignatureMismatchError: Names the first row (by position, from 0) and column that do not fit.
    """
    given = {composed(str(name)): series for name, series in frame.items()}
    return {
        column.name: read_series(given[column.name], column)
        if column.name in given
        else column.read([None] * len(frame))
        for column in inputs
    }


def require_columns(frame: pd.DataFrame, names: Iterable[str], what: str) -> None:
    """Refuse a table that lacks one of the named columns; the message calls it ``what``.

    Raises:
        DataProcessingError: Names the missing columns, and columns of the table with a similar name.
    """
    there = [composed(str(name)) for name in frame.columns]
    lacking = [name for name in names if name not in there]
    if lacking:
        near = [match for name in lacking for match in difflib.get_close_matches(name, there, n=1)]
        raise DataProcessingError(
            f"{what} has no column {listed(map(repr, lacking), 10)}, which the model reads.",
            remedy=f"Rename {', '.join(map(repr, near))}, or add what is missing."
            if near
            else f"Add what is missing; a column may be empty. Its columns are: {listed(there)}.",
            column=lacking[0],
        )


def read_series(series: pd.Series[Any], column: InputColumn) -> NDArray[Any]:
    """The canonical array of one series, ``(n_rows,)``.

    Raises:
        SignatureMismatchError: Names the first row that does not fit.
    """
    if column.date_order is not None and isinstance(series.dtype, pd.StringDtype):
        return _ordered_dates(series, column, column.date_order)
    array = _vectorised(series, column)
    if array is None or np.isinf(array).any() or (not column.nullable and np.isnan(array).any()):
        return _by_distinct_value(series, column)
    return array


def _vectorised(series: pd.Series[Any], column: InputColumn) -> NDArray[np.float64] | None:
    """The values as float64; None where they have to be read one by one."""
    dtype, kind = series.dtype, column.kind
    if isinstance(dtype, pd.StringDtype):
        return _read_cells(series, column)
    is_boolean = pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype)
    is_real = pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)
    if (kind is ColumnKind.NUMBER and is_real) or (kind is ColumnKind.BOOLEAN and is_boolean):
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    if kind is ColumnKind.DATETIME and pd.api.types.is_datetime64_any_dtype(dtype):
        return _epoch_seconds(series)
    return None


def _read_cells(series: pd.Series[Any], column: InputColumn) -> NDArray[np.float64] | None:
    """Strings as numbers or booleans; None where a value or the kind of the column is neither."""
    cells = cells_of(series) if column.kind in (ColumnKind.NUMBER, ColumnKind.BOOLEAN) else None
    if cells is None:
        return None
    valid = present(cells)
    is_number = column.kind is ColumnKind.NUMBER
    found = numbers(valid, decimal_comma=column.decimal_comma) if is_number else truths(valid)
    if found is None:
        return None
    return np.asarray(found.cast(pa.float64()).to_numpy(zero_copy_only=False))


def _epoch_seconds(series: pd.Series[Any]) -> NDArray[np.float64]:
    """Seconds since 1970-01-01 UTC; naive times are UTC, digits below a microsecond are cut off."""
    utc = pd.to_datetime(series, utc=True).dt.tz_localize(None)
    microseconds = utc.to_numpy().astype("datetime64[us]").astype(np.int64)
    missing = utc.isna().to_numpy()
    # Python's division of two integers is rounded once, as in datetime.timestamp(); float64 division of an int64
    # beyond 2**53 (the year 2255) would be rounded twice.
    seconds = np.array([value / 1_000_000 for value in microseconds.tolist()], dtype=np.float64)
    seconds[missing] = np.nan
    return seconds


def _ordered_dates(series: pd.Series[Any], column: InputColumn, order: DateOrder) -> NDArray[np.float64]:
    """Dates such as ``25/12/2026``, with or without a time, at once; all other values by the row reader."""
    texts = series.reset_index(drop=True)
    seconds = np.full(len(texts), np.nan)
    left = np.ones(len(texts), dtype=bool)
    day_and_month = ("%d", "%m") if order is DateOrder.DAY_FIRST else ("%m", "%d")
    for separator, (time_form, time) in product("/-", _TIMES.items()):
        plain = left & texts.str.fullmatch(_PLAIN_DATE.format(separator) + time_form).fillna(False).to_numpy(dtype=bool)
        if plain.any():
            form = separator.join((*day_and_month, "%Y")) + time
            read = pd.to_datetime(texts[plain], format=form, errors="coerce")
            seconds[plain] = _epoch_seconds(read)
            left[plain] = read.isna().to_numpy()
    if left.any():
        try:
            seconds[left] = column.read(texts[left].tolist())
        except SignatureMismatchError:
            column.read(texts.tolist())  # names the row among all
            raise
    return seconds


def _by_distinct_value(series: pd.Series[Any], column: InputColumn) -> NDArray[Any]:
    """Each value through the row reader; of strings and categoricals each distinct value once."""
    if isinstance(series.dtype, pd.CategoricalDtype) and len(series.cat.categories) < len(series):
        read = _read_distinct(series.cat.codes.to_numpy(), series.cat.categories, column)
    elif isinstance(series.dtype, pd.StringDtype):
        read = _read_distinct(*pd.factorize(series), column)
    else:
        read = None
    return column.read(series.tolist()) if read is None else read


def _read_distinct(codes: NDArray[Any], distinct: pd.Index[Any], column: InputColumn) -> NDArray[Any] | None:
    """The array of ``(n_rows,)`` positions in the distinct values, below 0 where missing; None where one is refused."""
    used = np.unique(codes[codes >= 0])
    if not column.nullable and (codes < 0).any():
        return None  # the row reader names the row
    try:
        values = replace(column, nullable=True).read(distinct[used].tolist())
    except SignatureMismatchError:
        return None  # names the row, not the category
    if not column.nullable and column.kind.is_numeric and np.isnan(values).any():
        return None
    table = np.empty(len(distinct) + 1, dtype=values.dtype)
    table[-1] = np.nan if column.kind.is_numeric else None
    table[used] = values
    read: NDArray[Any] = table[codes]
    return read


def frame_from_columns(columns: Columns, kinds: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """A data frame of the canonical columns that ``kinds`` names, ``(name, kind)`` each, in this order.

    Returns:
        Numbers and booleans as float64, datetimes as UTC ``datetime64``, categories and texts as object str or None.
    """
    series: dict[str, Any] = {}
    for name, kind in kinds:
        array = columns[name]
        series[name] = pd.to_datetime(array, unit="s", utc=True) if kind == ColumnKind.DATETIME else array
    return pd.DataFrame(series)
