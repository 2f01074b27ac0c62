"""Canonical columns: the one form in which data reaches a pipeline, from a data frame and from JSON rows alike.

A table is a mapping from column name to one array. The dtype follows from the column's kind:

============  ==============================  ====================
kind          array                           missing value
============  ==============================  ====================
``number``    ``(n_rows,) float64``           NaN
``boolean``   ``(n_rows,) float64`` of 0, 1   NaN
``datetime``  ``(n_rows,) float64``           NaN
              seconds since 1970-01-01 UTC
``category``  ``(n_rows,) object`` of str     None
``text``      ``(n_rows,) object`` of str     None
============  ==============================  ====================

So one row costs no data frame, and batches are joined by concatenating arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, NDArray[Any]]


class ColumnKind(StrEnum):
    """What a column holds, and so how it is encoded."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    TEXT = "text"
    DATETIME = "datetime"

    @property
    def is_numeric(self) -> bool:
        """Whether the canonical array is ``float64``; else it holds strings."""
        return self in (ColumnKind.NUMBER, ColumnKind.BOOLEAN, ColumnKind.DATETIME)


class DateOrder(StrEnum):
    """How a date such as ``01/02/2026`` is read, where a column's training data shows it."""

    DAY_FIRST = "day_first"
    MONTH_FIRST = "month_first"


def n_rows(columns: Columns) -> int:
    """The number of rows of a table; 0 if it has no column."""
    return len(next(iter(columns.values()))) if columns else 0


def concatenate(tables: Sequence[Columns]) -> Columns:
    """One table from several that have the same columns, rows in order."""
    if len(tables) == 1:
        return tables[0]
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def take(columns: Columns, rows: slice | NDArray[np.intp]) -> Columns:
    """The given rows of a table."""
    return {name: array[rows] for name, array in columns.items()}
