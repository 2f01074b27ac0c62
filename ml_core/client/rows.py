"""Rows as JSON carries them: of lists of rows, and of tables of any library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from ml_core import exceptions


def rows_to_send(data: Any) -> list[Mapping[str, Any]]:
    """One mapping a row, of a table or of rows, whose values JSON can carry."""
    if isinstance(data, Mapping) and not _has_columns(data):
        data = [data]
    if isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        return [_row(row, index) for index, row in enumerate(data)]
    # Imported late: whoever sends plain rows needs no pandas.
    import pandas as pd

    from ml_core.data.frames import as_frame, as_pandas
    from ml_core.data.reading import rows_from_frame
    from ml_core.inference.inputs import RENAMED, fields_of

    data = as_frame(data) if isinstance(data, Mapping) else as_pandas(data)
    if isinstance(data, pd.DataFrame):
        return list(rows_from_frame(data))
    # A Series with numbers as labels may be a column; a row of such names is sent in a list.
    is_column = isinstance(data, pd.Series) and not all(isinstance(label, str) for label in data.index)
    if fields_of(data) is not None and not is_column:
        data = [data]
    if not isinstance(data, list | tuple):
        raise _nameless(data)
    rows = []
    for index, row in enumerate(data):
        fields = fields_of(row)
        if fields is None or (isinstance(row, tuple) and any(map(RENAMED.fullmatch, fields[0]))):
            raise _nameless(row)
        names, values = fields
        if len({str(name) for name in names}) < len(names):
            raise _twice(index)
        rows.append(_row(dict(zip(names, values, strict=True)), index))
    return rows


def _row(row: Mapping[Any, Any], index: int) -> Mapping[str, Any]:
    if all(type(name) is str and _is_plain(value) for name, value in row.items()):
        return row
    from ml_core.data.reading import json_value

    named = {str(name): json_value(value) for name, value in row.items()}
    if len(named) < len(row):
        raise _twice(index)
    return named


def _nameless(data: Any) -> exceptions.InvalidRequestError:
    return exceptions.InvalidRequestError(
        f"A {type(data).__name__} is neither a table nor a row with names of columns.",
        remedy="Give a data frame, or one dict a row: a server knows values by the names of their columns.",
        field="rows",
    )


def _twice(index: int) -> exceptions.InvalidRequestError:
    return exceptions.InvalidRequestError(
        f"Row {index} has two columns whose names are equal as strings.", remedy="Rename one.", field="rows"
    )


def _is_plain(value: Any) -> bool:
    """Whether JSON carries the value as it is; an infinity would become null, and a longer number an error."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    return kind is str or kind is bool or value is None or (kind is int and -(2**63) <= value < 2**64)


def _has_columns(data: Mapping[str, Any]) -> bool:
    """Whether a mapping holds whole columns: no value of a row has a length, but a string or an object."""
    columns = [hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping) for value in data.values()]
    return bool(columns) and all(columns)


def encode(body: Mapping[str, Any]) -> bytes:
    """A body with rows as JSON.

    Raises:
        InvalidRequestError: A text is not valid Unicode.
    """
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise exceptions.InvalidRequestError(
            f"The rows can't be sent as JSON: {error}.", remedy="Give texts as valid Unicode.", field="rows"
        ) from error
