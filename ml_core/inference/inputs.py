"""What a library caller may hand to ``predict``: one row or many, in any of the usual shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ml_core.data.canonical import columns_from_frame
from ml_core.domain.columns import Columns, n_rows
from ml_core.domain.signature import Row, Signature
from ml_core.exceptions import DataProcessingError, SignatureMismatchError


class Table(NamedTuple):
    """Canonical columns, their number of rows, and whether the caller gave a single row."""

    columns: Columns
    rows: int
    is_single: bool


def read_input(input_data: Any, signature: Signature) -> Table:
    """Canonical columns of one row or many.

    ==================================================  ======================================================
    one row                                             a mapping, a Series, a frame of one row, a 1-d array or
                                                        a list of values
    many rows                                           another frame, a 2-d array, a list of rows
    ==================================================  ======================================================

    Arrays and lists of values are in the order of the signature's columns.

    Raises:
        DataProcessingError: It is none of these.
        SignatureMismatchError: A value does not fit, or a row has too few or too many.
    """
    if isinstance(input_data, pd.DataFrame):
        return Table(columns_from_frame(input_data, signature.inputs), len(input_data), len(input_data) == 1)
    if isinstance(input_data, pd.Series | Mapping):
        return _from_rows([as_row(input_data, signature, 0)], signature, is_single=True)
    if isinstance(input_data, np.ndarray):
        if input_data.ndim not in (1, 2):
            raise _unreadable(input_data)
        input_data = input_data.tolist() if input_data.dtype != object else list(input_data)
    if isinstance(input_data, Sequence) and not isinstance(input_data, str | bytes):
        is_single = bool(input_data) and not any(_is_row(item) for item in input_data)
        rows = [input_data] if is_single else input_data
        return _from_rows([as_row(r, signature, i) for i, r in enumerate(rows)], signature, is_single=is_single)
    raise _unreadable(input_data)


def as_row(item: Any, signature: Signature, index: int) -> Row:
    """One row as a mapping.

    Raises:
        DataProcessingError: It is no row.
        SignatureMismatchError: It is a list of too few or too many values.
    """
    if isinstance(item, Mapping):
        # A frame's columns may be numbers; the signature knows them by their text.
        return item if all(type(name) is str for name in item) else {str(name): value for name, value in item.items()}
    if isinstance(item, pd.Series):
        return {str(name): value for name, value in item.items()}
    if isinstance(item, pd.DataFrame) and len(item) == 1:
        return as_row(item.iloc[0], signature, index)
    if not _is_row(item):
        raise _unreadable(item)
    names = [column.name for column in signature.inputs]
    if len(item) != len(names):
        raise SignatureMismatchError(
            f"Row {index} has {len(item)} values; the model has {len(names)} columns.",
            remedy=f"Send a dict, or values in this order: {', '.join(names[:50])}.",
            row=index,
        )
    return dict(zip(names, item, strict=True))


def _from_rows(rows: Sequence[Row], signature: Signature, *, is_single: bool) -> Table:
    columns = signature.columns_from_rows(rows)
    return Table(columns, n_rows(columns), is_single)


def _is_row(item: Any) -> bool:
    if isinstance(item, Mapping | pd.Series | pd.DataFrame):
        return True
    return isinstance(item, Sequence | np.ndarray) and not isinstance(item, str | bytes)


def _unreadable(data: Any) -> DataProcessingError:
    return DataProcessingError(
        f"A {type(data).__name__} is neither a row nor a table.",
        remedy="Give a dict, a pandas Series or DataFrame, a 1-d or 2-d array, or a list of rows.",
        stage="predict",
    )
