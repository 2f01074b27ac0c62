"""Canonical columns: the form in which data frames and JSON rows are passed to a pipeline.

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

"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from ml_core.exceptions import DataProcessingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Plain arrays instead of a data frame: building a frame costs more than predicting one row.
Columns: TypeAlias = "Mapping[str, NDArray[Any]]"


MAX_NAME_CHARACTERS = 250
"""Of a column's name, as of a metric's or parameter's."""


class ColumnKind(StrEnum):
    """The kind of a column, which decides how it is encoded."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    TEXT = "text"
    DATETIME = "datetime"

    @property
    def is_numeric(self) -> bool:
        """Whether the canonical array is ``float64``; otherwise it holds strings."""
        return self in (ColumnKind.NUMBER, ColumnKind.BOOLEAN, ColumnKind.DATETIME)


class DateOrder(StrEnum):
    """The order of day and month in dates such as ``01/02/2026``, as the training data of the column shows it."""

    DAY_FIRST = "day_first"
    MONTH_FIRST = "month_first"


def check_lengths(names: Iterable[str]) -> None:
    """Refuse the name of a column that is too long for messages, tables and requests.

    Raises:
        DataProcessingError: One has more than ``MAX_NAME_CHARACTERS``; ``stage`` is ``read``.
    """
    for name in names:
        if len(name) > MAX_NAME_CHARACTERS:
            start = f"{name[:60]}…"
            raise DataProcessingError(
                f"The name of the column {start!r} has {len(name):,} characters; {MAX_NAME_CHARACTERS} are allowed.",
                remedy="Rename the column. A cell in the place of a name means that the line of names is missing.",
                column=start,
                stage="read",
            )


def n_rows(columns: Columns) -> int:
    """The number of rows of a table; 0 if it has no columns."""
    return len(next(iter(columns.values()))) if columns else 0


def concatenate(tables: Sequence[Columns]) -> Columns:
    """Concatenate tables that have the same columns."""
    if len(tables) == 1:
        return tables[0]
    # Imported late: the schemas of the control API, and so its client, know the kinds of columns and need no numpy.
    import numpy as np

    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def take(columns: Columns, rows: slice | NDArray[np.intp]) -> Columns:
    """Select rows of a table."""
    return {name: array[rows] for name, array in columns.items()}
