"""Data frames of any library as pandas frames; features of texts and datetimes, and values for missing ones."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ml_core.data.encoding.datetime import PARTS, calendar_parts
from ml_core.data.encoding.text import tokenize
from ml_core.data.tables import NULLABLE
from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.signature import InputColumn
from ml_core.domain.values import category_text, composed, is_missing
from ml_core.exceptions import DataProcessingError, shown

DECIMAL_COMMA = "decimal_comma"
_MISSING_CATEGORY = "missing"
_MAX_EXACT = 2**53  # above it, float64 does not hold each whole number


def as_pandas(data: Any) -> Any:
    """A table or column of any library as a pandas frame or series; other values are returned unchanged.

    Tables and columns of polars, pyarrow, DuckDB and others are read through the Arrow PyCapsule interface
    (https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html), which needs none of these libraries.

    Raises:
        DataProcessingError: pandas has no form for its type, or it is a query that was not run.
    """
    if isinstance(data, pd.DataFrame | pd.Series):
        return data
    if isinstance(data, pd.MultiIndex):
        return data.to_frame(index=False)
    if isinstance(data, pd.Index | pd.api.extensions.ExtensionArray):
        return pd.Series(data, name=getattr(data, "name", None))
    if isinstance(data, np.ndarray) and data.dtype.names:
        return pd.DataFrame(data)
    if not hasattr(data, "__arrow_c_stream__") and not hasattr(data, "__arrow_c_array__"):
        if callable(getattr(data, "collect", None)):  # such as a LazyFrame of polars
            what = f"The {type(data).__name__} is a query, not a table."
            raise DataProcessingError(what, remedy="Give the result of its collect().", stage="preprocess")
        return data
    try:
        is_stream = hasattr(data, "__arrow_c_stream__")
        values = pa.chunked_array(data) if is_stream else pa.chunked_array([pa.array(data)])
        is_table = pa.types.is_struct(values.type)
        table = pa.Table.from_struct_array(values) if is_table else pa.table({"": values})
        frame = table.to_pandas(types_mapper=NULLABLE.get, ignore_metadata=True)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataProcessingError.wrap(
            error, "The data is not a table", remedy="Give a pandas DataFrame.", stage="preprocess"
        ) from error
    return frame if is_table else frame.iloc[:, 0].rename(getattr(data, "name", None) or None)


def as_frame(data: Any) -> pd.DataFrame:
    """A data frame, its column names composed strings, of any table: a frame, an array, rows, a mapping of columns.

    Raises:
        DataProcessingError: The data is not a table.
    """
    data = as_pandas(data)
    if isinstance(data, str | PathLike):
        what = f"{shown(data, 80)} is the name of a file, not a table."
        raise DataProcessingError(what, remedy="Read the file first, as with pandas.read_csv.", stage="preprocess")
    if hasattr(data, "toarray"):  # of scipy; pandas would take each row for a value
        what = "A sparse matrix has no names of columns."
        raise DataProcessingError(what, remedy="Give pandas.DataFrame.sparse.from_spmatrix(…).", stage="preprocess")
    try:
        if isinstance(data, Mapping):
            data = {name: column_of(values) for name, values in data.items()}
        elif isinstance(data, list):
            data = _unrounded(pd.DataFrame(data, dtype=object))
        frame = data if isinstance(data, pd.DataFrame) else pd.DataFrame(data)
    except (ValueError, TypeError) as error:
        raise DataProcessingError.wrap(
            error, "The data is not a table", remedy="Give a pandas DataFrame.", stage="preprocess"
        ) from error
    if all(isinstance(name, str) and name.isascii() for name in frame.columns):
        return frame
    return frame.set_axis([composed(str(name)) for name in frame.columns], axis=1)


def column_of(values: Any) -> Any:
    """A column of any library or a list of values as a series, its whole numbers as they are."""
    values = as_pandas(values)
    return _unrounded(pd.DataFrame({0: values}, dtype=object))[0] if isinstance(values, list | tuple) else values


def _unrounded(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of objects in the dtypes of its values, except where whole numbers would be rounded, as beside a None."""
    inferred = frame.infer_objects()
    for position, dtype in enumerate(inferred.dtypes):
        if dtype.kind != "f":
            continue
        values: Any = frame.iloc[:, position]
        present = [value for value in values.tolist() if not is_missing(value)]
        if all(isinstance(value, int) for value in present) and max(map(abs, present), default=0) > _MAX_EXACT:
            inferred.isetitem(position, values)
    return inferred


def like(data: Any, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> Any:
    """A table of one value a row of ``data``: of polars or pyarrow if that is, else of pandas with its index."""
    library = type(data).__module__.partition(".")[0]
    if library not in ("polars", "pyarrow"):
        frame = pd.DataFrame(dict(columns))
        has_rows = isinstance(data, pd.DataFrame | pd.Series) and len(data) == len(frame)  # else it is a row itself
        return frame.set_axis(data.index, axis=0) if has_rows else frame
    table = pa.table({name: _arrow(values) for name, values in columns.items()})
    return sys.modules["polars"].DataFrame(table) if library == "polars" else table  # the caller has imported it


def _arrow(values: Sequence[Any] | NDArray[Any]) -> Any:
    try:
        return pa.array(values)
    except pa.ArrowException:  # labels of several types, which a batch prediction writes as text, too
        return pa.array([None if value is None else category_text(value) for value in values], pa.string())


def nullable_inputs(columns: Sequence[tuple[str, str]], readings: Mapping[str, str] | None = None) -> list[InputColumn]:
    """Input columns of ``(name, kind)`` pairs that may all be missing, with the rules that ``readings_of`` returned."""
    made = []
    for name, kind in columns:
        rule = (readings or {}).get(name)
        has_comma = rule == DECIMAL_COMMA
        order = None if rule is None or has_comma else DateOrder(rule)
        made.append(InputColumn(name, ColumnKind(kind), True, date_order=order, decimal_comma=has_comma))
    return made


def readings_of(columns: Iterable[InputColumn]) -> dict[str, str]:
    """Name → how its strings are read, of the columns that have a rule for it, as a fitted step keeps it."""
    rules = {column.name: DECIMAL_COMMA if column.decimal_comma else column.date_order for column in columns}
    return {name: str(rule) for name, rule in rules.items() if rule is not None}


def filling_of(array: NDArray[Any], kind: str) -> float | str:
    """The value that replaces missing ones in a canonical column with at least one value."""
    if kind == ColumnKind.TEXT:
        return ""
    if kind == ColumnKind.CATEGORY:
        return _MISSING_CATEGORY
    present = array[~np.isnan(array)]
    if kind == ColumnKind.BOOLEAN:
        return float(present.mean() >= 0.5)  # the median of as many true as false would be neither
    return float(np.median(present))


def fill_missing(array: NDArray[Any], filling: float | str) -> NDArray[Any]:
    """A canonical column without missing values."""
    missing = pd.isna(array)
    if not missing.any():
        return array
    filled = array.copy()
    filled[missing] = filling
    return filled


def text_features(name: str, texts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Characters, words and mean word length of ``(n_rows,)`` object str or None; NaN where missing."""
    words = [None if text is None else tokenize(text) for text in texts]
    count = np.array([np.nan if w is None else len(w) for w in words], dtype=np.float64)
    letters = np.array([np.nan if w is None else sum(map(len, w)) for w in words], dtype=np.float64)
    return {
        f"{name}_characters": np.array([np.nan if text is None else len(text) for text in texts], dtype=np.float64),
        f"{name}_words": count,
        f"{name}_mean_word_length": letters / np.maximum(count, 1),  # 0 for a text without words
    }


def datetime_features(name: str, seconds: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Year, month, day, weekday and hour of ``(n_rows,)`` float64 seconds since 1970-01-01 UTC; NaN where missing."""
    missing = np.isnan(seconds)
    present = np.where(missing, 0.0, seconds)  # NaN has no date
    parts = calendar_parts(present)
    years = np.floor(present).astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970.0
    features = {f"{name}_year": years, **{f"{name}_{part}": parts[:, i] for i, (part, _) in enumerate(PARTS)}}
    return {feature: np.where(missing, np.nan, values) for feature, values in features.items()}


def kind_by_dtype(series: pd.Series[Any]) -> ColumnKind:
    """The kind that can hold any value of a dtype."""
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return ColumnKind.DATETIME
    is_category = isinstance(series.dtype, pd.CategoricalDtype)
    return ColumnKind.NUMBER if pd.api.types.is_numeric_dtype(series.dtype) and not is_category else ColumnKind.CATEGORY
