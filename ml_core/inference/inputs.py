"""The inputs that ``predict`` of the Python library accepts: one row or many, in the usual types."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ml_core.data.canonical import columns_from_frame
from ml_core.data.frames import as_pandas, column_of
from ml_core.domain.columns import Columns, n_rows
from ml_core.domain.signature import Row, Signature
from ml_core.exceptions import DataProcessingError, SignatureMismatchError, listed, shown

# The name that ``DataFrame.itertuples`` gives a column whose name is not a Python identifier.
RENAMED = re.compile(r"_\d+")


class Table(NamedTuple):
    """Canonical columns, the number of rows, and whether the input was a single row."""

    columns: Columns
    rows: int
    is_single: bool


def read_input(data: Any, signature: Signature, *, is_batch: bool = False) -> Table:
    """Convert one row or many to canonical columns.

    ============================  ================================================================================
    one row                       a mapping, a Series with column names as labels, a table of one row, a 1-d
                                  array or a list of values
    many rows                     another table (pandas, polars, pyarrow, a structured array, a mapping of
                                  columns), a 2-d array, a list of rows
    many rows of a model of one   a Series, an Arrow or polars column, an Index, a 1-d array or a list of values;
    column                        one value is one row
    ============================  ================================================================================

    Arrays and lists of values are in the order of the signature's columns. Ambiguous input is refused.

    Args:
        data: The input.
        signature: The signature of the model.
        is_batch: Whether a list of values is never a single row.

    Raises:
        DataProcessingError: The input has another type, or the version has no signature.
        SignatureMismatchError: A value does not fit, a row has the wrong number of values, or no name is in the
            signature.
    """
    require_signature(signature)
    data = as_pandas(data)
    if isinstance(data, pd.DataFrame):
        return _from_frame(data, signature)
    if isinstance(data, pd.Series):
        values = _values_of_one_column(data, signature)
        return _from_rows([as_row(data, signature, 0)], signature, is_single=True) if values is None else values
    if isinstance(data, Mapping):
        row = as_row(data, signature, 0)
        frame = _frame_of_columns(row, signature)
        return _from_rows([row], signature, is_single=True) if frame is None else _from_frame(frame, signature)
    if isinstance(data, np.ndarray) and data.ndim == 2:
        _check_width(data.shape[1], signature, 0)
        return _from_frame(pd.DataFrame(data, columns=_names(signature)), signature)._replace(is_single=False)
    if isinstance(data, np.ndarray) and data.ndim == 1:
        data = data.tolist() if data.dtype.kind not in "mM" else list(pd.Series(data))
    if fields_of(data) is not None:
        return _from_rows([as_row(data, signature, 0)], signature, is_single=True)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return _from_sequence(data, signature, is_batch=is_batch)
    raise _unreadable(data)


def require_signature(signature: Signature) -> Signature:
    """The signature of a version that has one.

    Raises:
        DataProcessingError: It names no columns.
    """
    if not signature.inputs:
        raise DataProcessingError(
            "The version has no signature: its file does not name the input columns of the model.",
            remedy="Register it again with sample=, some rows of the table that it was fitted on.",
            stage="predict",
        )
    return signature


def as_row(item: Any, signature: Signature, index: int) -> Row:
    """One row as a mapping with strings as keys.

    Raises:
        DataProcessingError: The item is not a row.
        SignatureMismatchError: It has the wrong number of values, or two values of one name.
    """
    if isinstance(item, Mapping) and all(type(name) is str for name in item):
        return item
    named = fields_of(item)
    if named is not None:
        # Column names of a frame may be numbers; the signature has their text.
        names = [str(name) for name in named[0]]
        _refuse_doubles(names, signature, index)
        row = dict(zip(names, named[1], strict=True))
        if isinstance(item, tuple):
            _refuse_renamed(row, signature, index)
        return row
    if not _is_row(item) or isinstance(item, pd.DataFrame):
        raise _unreadable(item)
    _check_width(len(item), signature, index)
    return dict(zip(_names(signature), item, strict=True))


def fields_of(item: Any) -> tuple[Sequence[Any], Sequence[Any]] | None:
    """The names and the values of a row with names; None for other input."""
    if isinstance(item, pd.DataFrame):
        # By element: as one Series, integers beside floats would become floats.
        values = [item.iat[0, position] for position in range(item.shape[1])] if len(item) == 1 else []
        return (list(item.columns), values) if len(item) == 1 else None
    if isinstance(item, Mapping):
        return list(item), list(item.values())
    if isinstance(item, pd.Series):
        return list(item.index), item.tolist()
    if isinstance(item, np.void) and item.dtype.names:
        return item.dtype.names, item.tolist()
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return item._fields, item
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        names = [field.name for field in dataclasses.fields(item)]
        return names, [getattr(item, name) for name in names]
    return None


def _from_frame(frame: pd.DataFrame, signature: Signature) -> Table:
    """Read a frame by column names; index levels are used for columns that it lacks."""
    known = _names(signature)
    names = [str(name) for name in frame.columns]
    levels = [name for name in frame.index.names if name is not None and str(name) in known and str(name) not in names]
    if levels:
        frame = frame.reset_index(level=levels)
        names = [str(name) for name in frame.columns]
    _refuse_doubles(names, signature, None)
    if len(frame):
        signature.check_names(dict.fromkeys(names))
    return Table(columns_from_frame(frame, signature.inputs), len(frame), len(frame) == 1)


def _from_rows(rows: Sequence[Row], signature: Signature, *, is_single: bool) -> Table:
    columns = signature.columns_from_rows(rows)
    return Table(columns, n_rows(columns), is_single)


def _from_sequence(data: Sequence[Any], signature: Signature, *, is_batch: bool) -> Table:
    """Read rows, the values of a model's only column, or one row of values."""
    is_values = bool(data) and not any(_is_row(item) for item in data)
    if is_values and len(signature.inputs) == 1:
        rows: list[Row] = [{signature.inputs[0].name: value} for value in data]
        return _from_rows(rows, signature, is_single=len(rows) == 1)
    if is_values and not is_batch:
        return _from_rows([as_row(data, signature, 0)], signature, is_single=True)
    return _from_rows([as_row(r, signature, i) for i, r in enumerate(data)], signature, is_single=False)


def _values_of_one_column(series: pd.Series[Any], signature: Signature) -> Table | None:
    """The table of a Series with the values of a model's only column; None if the Series is a row.

    Raises:
        SignatureMismatchError: The Series is ambiguous.
    """
    names = _names(signature)
    labels = [str(label) for label in series.index]
    if len(names) > 1 or (names[0] in labels and len(series) == 1):
        return None
    is_label = names[0] in labels
    is_unlabelled = series.name is None and not any(isinstance(label, str) for label in series.index)
    is_numbered = series.index.equals(pd.RangeIndex(len(series)))
    if (str(series.name) == names[0] and not is_label) or (is_unlabelled and (is_numbered or not is_label)):
        return _from_frame(series.to_frame(names[0]), signature)
    if is_label and str(series.name) != names[0] and not is_numbered:
        return None
    called = "has no name" if series.name is None else f"is called {shown(str(series.name), 80)}"
    raise SignatureMismatchError(
        f"The Series {called}, and its labels begin with {', '.join(map(repr, labels[:3]))}: "
        f"it may hold values of the model's only column, {names[0]!r}, or be one row.",
        remedy=f"For values of the column give series.to_frame({names[0]!r}); for a row give a dict.",
    )


def _frame_of_columns(row: Row, signature: Signature) -> pd.DataFrame | None:
    """The frame of a mapping from column to values; None if the mapping is a row."""
    known = {column.name: row[column.name] for column in signature.inputs if column.name in row}
    if not any(_is_column(values) for values in known.values()):
        return None
    signature.check_names(row)
    lengths = {len(values) if _is_column(values) else -1 for values in known.values()}
    if len(lengths) == 1:
        frame = pd.DataFrame({name: column_of(values) for name, values in known.items()})
        if len(frame) in lengths:  # a longer frame: pandas aligned columns with different labels
            return frame
    raise DataProcessingError(
        "The columns differ in length or labels, or some are single values.",
        remedy="Give one list per column, all of one length, or one dict per row.",
        stage="predict",
    )


def _refuse_renamed(row: Row, signature: Signature, index: int) -> None:
    """Refuse a named tuple of ``itertuples`` in which a column of the model was renamed."""
    # Accepted, the column would be null in each row.
    known = set(_names(signature))
    lost = next((name for name in row if RENAMED.fullmatch(name) and name not in known), None)
    if lost is not None and not known <= row.keys():
        raise SignatureMismatchError(
            f"Row {index} has a field {lost!r}: a named tuple can't have the name of that column.",
            remedy='Give the frame itself, or its rows by frame.to_dict("records").',
            row=index,
        )


def _refuse_doubles(names: Sequence[str], signature: Signature, index: int | None) -> None:
    """Refuse two values for one column of the model."""
    if len(set(names)) == len(names):
        return
    counts = Counter(names)
    twice = next((name for name in _names(signature) if counts[name] > 1), None)
    if twice is not None:
        raise SignatureMismatchError(
            f"{'The table' if index is None else f'Row {index}'} has several columns named {shown(twice, 80)}.",
            remedy="Rename or omit all but one of them.",
            row=index,
            column=twice,
        )


def _check_width(width: int, signature: Signature, index: int) -> None:
    names = _names(signature)
    if width != len(names):
        raise SignatureMismatchError(
            f"Row {index} has {width} {'value' if width == 1 else 'values'}; "
            f"the model has {len(names)} {'column' if len(names) == 1 else 'columns'}.",
            remedy=f"Give a dict, or values in this order: {listed(names, 50)}.",
            row=index,
        )


def _names(signature: Signature) -> list[str]:
    return [column.name for column in signature.inputs]


def _is_row(item: Any) -> bool:
    if isinstance(item, pd.DataFrame) or fields_of(item) is not None:
        return True
    if isinstance(item, np.ndarray):
        return item.ndim > 0
    return isinstance(item, Sequence) and not isinstance(item, str | bytes)


def _is_column(values: Any) -> bool:
    """Whether a value is a sequence of values, which no element of a row is."""
    if isinstance(values, np.ndarray):
        return values.ndim == 1
    if isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray | Mapping):
        return True
    is_arrow = hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__")
    return is_arrow or (isinstance(values, Sequence) and not isinstance(values, str | bytes))


def _unreadable(data: Any) -> DataProcessingError:
    return DataProcessingError(
        f"A value of type {type(data).__name__} is neither a row nor a table.",
        remedy="Give a dict, a pandas Series or DataFrame, a 1-d or 2-d array, or a list of rows.",
        stage="predict",
    )
