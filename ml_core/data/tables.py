"""Tables in the one form in which datasets are stored: few Arrow types, one for each meaning.

Equal content must become equal bytes, whether it came from pandas, CSV, Parquet or a database. So a missing value is
null (never NaN), strings and categories are ``string``, timestamps count microseconds and are in UTC if they have a
zone, and an index is not stored. Whole numbers, floats and decimals keep their width, which is part of the content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_core.database.strict_json import is_storable
from ml_core.domain.values import category_text, is_missing
from ml_core.exceptions import DataProcessingError

MAX_COLUMNS = 10_000
"""A wider table is a matrix; its schema and profile alone would be tens of megabytes in the registry."""

_WIDTHS = (8, 16, 32, 64)
NULLABLE = {
    **{getattr(pa, f"int{width}")(): getattr(pd, f"Int{width}Dtype")() for width in _WIDTHS},
    **{getattr(pa, f"uint{width}")(): getattr(pd, f"UInt{width}Dtype")() for width in _WIDTHS},
    pa.bool_(): pd.BooleanDtype(),
}
"""The dtypes of pandas that hold a missing value beside whole numbers and booleans. Without them such a column becomes
floats or objects, and numbers above 2**53 are rounded."""

_SLICE_ROWS = 65_536
_DAY_US = 86_400 * 10**6
_FIRST_DAY = (date.min - date(1970, 1, 1)).days
_LAST_DAY = (date.max - date(1970, 1, 1)).days
_REMEDIES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_duration, "Give durations as numbers of seconds."),
    (pa.types.is_time, "Give times of day as strings or as numbers of seconds."),
    (pa.types.is_nested, "Make a column of each of its parts, or one of JSON text."),
)
_OTHER_REMEDY = "Turn it into numbers, strings, booleans or datetimes, or leave the column out."
_BOOLEANS = (bool, np.bool_)
_NUMBERS = (*_BOOLEANS, int, float, np.integer, np.floating)
_SCALARS = (str, Decimal, date, UUID, *_NUMBERS)


def check_columns(names: Sequence[str]) -> None:
    """Refuse a table that has no column or too many, or names that can't be columns of a dataset.

    Raises:
        DataProcessingError: Names the column, where one is at fault.
    """
    if not names:
        raise _refused("The table has no column.", "Add at least one.")
    if len(names) > MAX_COLUMNS:
        raise _refused(
            f"The table has {len(names):,} columns; a dataset has at most {MAX_COLUMNS:,}.",
            "Leave columns out, or store the table in long form: one row a value.",
        )
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise _refused(f"Several columns are called {twice!r}.", "Rename all but one of them.", twice)
    for name in names:
        if not name.strip():
            raise _refused("A column has no name.", "Name it, or leave it out.", name)
        if not is_storable(name):
            shown = ascii(name)[1:-1]
            raise _refused(f"The column {shown} has a name that is not valid text.", "Rename it.", shown)


def stored_type(name: str, kind: pa.DataType) -> pa.DataType:
    """The type in which a column of an Arrow type is stored.

    Raises:
        DataProcessingError: It is one that datasets do not hold: nested, binary, a duration or a time of day.
    """
    if pa.types.is_dictionary(kind):
        return stored_type(name, kind.value_type)
    if isinstance(kind, pa.ExtensionType | pa.BaseExtensionType) and kind.extension_name == "arrow.uuid":
        return pa.string()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_date(kind):
        return pa.date32()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return kind
    if pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return kind
    remedy = next((remedy for applies, remedy in _REMEDIES if applies(kind)), _OTHER_REMEDY)
    raise _refused(f"The column {name!r} is of type {kind}, which a dataset does not hold.", remedy, name)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """The schema in which a table of an Arrow schema is stored.

    Raises:
        DataProcessingError: A column's name or type can't be a dataset's; names it.
    """
    check_columns(schema.names)
    return pa.schema([(field.name, stored_type(field.name, field.type)) for field in schema])


def to_stored(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table in the types of a stored schema with the same column names.

    Raises:
        DataProcessingError: A value does not fit the type; names the column.
    """
    arrays = [stored_values(field.name, table.column(field.name), field.type) for field in schema]
    return pa.table(arrays, schema=schema)


def stored_values(name: str, values: Any, kind: pa.DataType) -> Any:
    """An array or chunked array in a stored type, NaN made null and digits below a microsecond cut off.

    Raises:
        DataProcessingError: A value does not fit.
    """
    try:
        if isinstance(values.type, pa.BaseExtensionType):  # UUIDs
            values = pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string())
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        if pa.types.is_large_string(values.type) and isinstance(values, pa.Array):
            values = _in_slices(values)
        if pa.types.is_timestamp(values.type):
            # Finer digits are cut off downwards, as by ml_core.domain.values; a cast would cut towards 1970.
            values = pc.floor_temporal(values, unit="microsecond") if values.type.unit == "ns" else values
        if values.type != kind:
            values = values.cast(kind)
        _check_years(name, values)
        # NaN has many bit patterns and null none, so that equal tables have equal bytes.
        return pc.if_else(pc.is_nan(values), None, values) if pa.types.is_floating(kind) else values
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise _refused(f"The column {name!r} can't be stored as {kind}: {reason}.", _OTHER_REMEDY, name) from error


def _in_slices(values: pa.Array) -> pa.ChunkedArray:
    """The same in slices: a single array of type ``string`` holds 2 GiB at most."""
    starts = range(0, max(1, len(values)), _SLICE_ROWS)
    return pa.chunked_array([values.slice(start, _SLICE_ROWS) for start in starts])


def _check_years(name: str, values: Any) -> None:
    """Refuse moments that neither Python nor a request can name."""
    if not (pa.types.is_date(values.type) or pa.types.is_timestamp(values.type)):
        return
    whole, per_day = (pa.int32(), 1) if pa.types.is_date(values.type) else (pa.int64(), _DAY_US)
    ends = pc.min_max(values.cast(whole))  # as integers: Python has no date for what is looked for
    low, high = ends["min"].as_py(), ends["max"].as_py()
    if low is not None and (low < _FIRST_DAY * per_day or high >= (_LAST_DAY + 1) * per_day):
        raise _refused(
            f"The column {name!r} has a date outside of the years 1 to 9999.", "Make it a missing value.", name
        )


def table_from_frame(frame: pd.DataFrame) -> pa.Table:
    """The stored form of a data frame; its index is left out.

    Columns of Python objects keep their meaning: numbers and booleans together are numbers; strings among numbers make
    all of them strings, as in a CSV; UUIDs become strings. Names that are not strings are read as such.

    Raises:
        DataProcessingError: It has no row or column, or one that can't be a dataset's; names the column.
    """
    names = [str(name) for name in frame.columns]
    check_columns(names)
    arrays = [column_from_series(name, frame.iloc[:, position]) for position, name in enumerate(names)]
    return pa.table(arrays, names=names)


def column_from_series(name: str, series: pd.Series[Any]) -> Any:
    """The stored form of one series.

    Raises:
        DataProcessingError: It holds what a dataset does not.
    """
    if isinstance(series.dtype, pd.SparseDtype):
        series = series.astype(series.dtype.subtype)
    try:
        values = pa.Array.from_pandas(series)
        if pa.types.is_date(values.type) and series.dtype == object and series.map(_is_moment).any():
            values = _moments(series)  # as dates they would lose the time of day
    except UnicodeError as error:
        raise _refused(f"The column {name!r} holds text that is not valid Unicode.", "Correct it.", name) from error
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        uniform = _uniform(series)
        if uniform is None:
            what = f"The column {name!r} holds values of type {_types(series)}, which a dataset does not."
            raise _refused(what, _OTHER_REMEDY, name) from error
        values = uniform
    return stored_values(name, values, stored_type(name, values.type))


def _uniform(series: pd.Series[Any]) -> Any:
    """Values of several types as numbers, or else as strings; None where neither is possible."""
    if series.dtype != object:
        return None
    values = [None if is_missing(value) else value for value in series.tolist()]
    present = [value for value in values if value is not None]
    try:
        if all(isinstance(value, _NUMBERS) for value in present) and any(isinstance(v, _BOOLEANS) for v in present):
            # Arrow itself refuses booleans beside numbers.
            return pa.array([None if value is None else float(value) for value in values], pa.float64())
        if all(isinstance(value, _SCALARS) for value in present):
            return pa.array([None if value is None else category_text(value) for value in values], pa.string())
    except (pa.ArrowException, ValueError, OverflowError):
        return None
    return None


def _moments(series: pd.Series[Any]) -> Any:
    """Dates and moments together as moments: a date is its midnight, UTC as every moment without a zone."""
    values = [None if is_missing(value) else value for value in series.tolist()]
    moments = [datetime(v.year, v.month, v.day) if type(v) is date else v for v in values]  # noqa: DTZ001 - see above
    has_zone = any(moment is not None and moment.tzinfo for moment in moments)
    return pa.array(moments, pa.timestamp("us", "UTC" if has_zone else None))


def _is_moment(value: Any) -> bool:
    return isinstance(value, datetime) and not is_missing(value)


def _types(series: pd.Series[Any]) -> str:
    if series.dtype != object:
        return str(series.dtype)
    return ", ".join(sorted({type(value).__name__ for value in series.tolist() if not is_missing(value)})[:3])


def frame_of(table: pa.Table) -> pd.DataFrame:
    """A stored table as a data frame, see ``ml_core.data.table_file.read_frame``."""
    series = {name: series_of(table.column(name)) for name in table.column_names}
    return pd.DataFrame(series, index=pd.RangeIndex(table.num_rows))


def series_of(column: Any) -> Any:
    """A stored column, an array or chunked array, as a series of the dtypes of ``read_frame``."""
    is_nullable = pa.types.is_integer(column.type) and column.null_count
    return column.to_pandas(types_mapper=NULLABLE.get) if is_nullable else column.to_pandas()


def _refused(message: str, remedy: str, column: str | None = None) -> DataProcessingError:
    return DataProcessingError(message, remedy=remedy, column=column, stage="store")
