"""The values from which the kind of a column is inferred, and the result of an inference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_core.data.cells import cells_of
from ml_core.data.cells import present as present_cells
from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.values import DoesNotFitError, is_blank, is_missing, says_missing
from ml_core.exceptions import DataProcessingError, shown

# Values examined for words and date forms; evenly spaced, so that the order of the rows has no influence.
SAMPLE = 5_000

_ID_NAME = re.compile(r"(?:^|[_\s.-])(?:id|uuid|guid|rowid|rownames|index)$|[a-z](?:Id|ID)$|^Unnamed: \d+$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Inference:
    """The inferred kind of a column.

    Attributes:
        kind: None: the column can't be used.
        reason: Why, in a phrase.
        date_order: For a datetime column whose dates need one, such as ``25/12/2026``.
        decimal_comma: Whether the strings of a number column have a decimal comma.
    """

    kind: ColumnKind | None
    reason: str
    date_order: DateOrder | None = None
    decimal_comma: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """A column without its missing values.

    Attributes:
        values: The values that are not missing; the index holds their row positions.
        n_rows: Rows of the table.
        has_commas: Whether a column of the table has decimal commas, see ``ml_core.data.cells.decimal_of``.
    """

    name: str
    values: pd.Series[Any]
    n_rows: int
    has_commas: bool = False

    @classmethod
    def of(
        cls, name: str, series: pd.Series[Any], *, words_are_missing: bool = True, has_commas: bool = False
    ) -> Evidence:
        """The evidence of a series of any dtype.

        ``words_are_missing`` says whether ``NA``, ``None`` and the like are missing values; in a category or text they
        are values.
        """
        series = series.reset_index(drop=True)  # by position, as errors count rows
        is_nothing = says_missing if words_are_missing else is_blank
        if isinstance(series.dtype, pd.CategoricalDtype):
            missing = [v for v in series.cat.categories if isinstance(v, str) and is_nothing(v)]
            present = (series.notna() & ~series.isin(missing)).to_numpy(dtype=bool)
        elif (cells := cells_of(series)) is not None:
            valid = present_cells(cells, words_are_missing=words_are_missing)
            present = valid.is_valid().to_numpy(zero_copy_only=False)
        elif holds_objects(series):
            empty = (is_nothing(v) if isinstance(v, str) else is_missing(v) for v in series.tolist())
            present = ~np.fromiter(empty, dtype=bool)
        else:
            present = series.notna().to_numpy(dtype=bool)
        return cls(name, series if present.all() else series[present], len(series), has_commas)

    @property
    def n_missing(self) -> int:
        """Rows without a value."""
        return self.n_rows - len(self.values)

    @property
    def n_distinct(self) -> int:
        """Different values."""
        return int(self.values.nunique())

    def counts(self) -> Iterator[tuple[Any, int]]:
        """Each different value and how often it occurs. Equal values of several types (1 and True) stay apart."""
        if pd.api.types.is_object_dtype(self.values.dtype):
            typed = Counter((type(value), value) for value in self.values.tolist())  # 1 == True
            yield from ((value, count) for (_, value), count in typed.items())
        else:
            tally = self.values.value_counts()
            yield from ((value, int(count)) for value, count in zip(tally.index.tolist(), tally, strict=True) if count)

    def sample(self) -> list[Any]:
        """At most ``SAMPLE`` values, evenly spaced."""
        return self.values.iloc[:: max(1, -(-len(self.values) // SAMPLE))].tolist()

    def error(self, message: str, remedy: str) -> DataProcessingError:
        """An error about this column."""
        return DataProcessingError(f"Column {self.name!r} {message}", remedy=remedy, column=self.name, stage="infer")


def holds_objects(series: pd.Series[Any]) -> bool:
    """Whether the values are strings or Python objects, whose dtype does not determine the kind."""
    dtype = series.dtype
    is_string = isinstance(dtype, pd.StringDtype) or (isinstance(dtype, pd.ArrowDtype) and dtype.type is str)
    return is_string or pd.api.types.is_object_dtype(dtype)


def unless_constant(evidence: Evidence, kind: ColumnKind, detail: str | None = None) -> Inference:
    """A kind, unless every row has the same value."""
    distinct = evidence.n_distinct
    if distinct == 1 and not evidence.n_missing:
        return Inference(None, f"every value is {shown(evidence.values.head(1).tolist()[0])}")
    return Inference(kind, detail or f"{distinct:,} distinct value{'s' if distinct > 1 else ''}")


def infer_numbers(evidence: Evidence, numbers: NDArray[np.float64] | None = None) -> Inference:
    """A number, unless the column is constant or an identifier.

    ``numbers`` are its values, ``(n_present,)``; None: they are numbers themselves.

    Raises:
        DataProcessingError: Some are infinite.
    """
    if numbers is None:
        numbers = evidence.values.to_numpy(dtype=np.float64, na_value=np.nan)
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise evidence.error(
            f"has {len(infinite)} infinite values, the first in row {evidence.values.index[infinite[0]]}.",
            "Replace them by a number or by a missing value.",
        )
    if _ID_NAME.search(evidence.name) and evidence.n_distinct == evidence.n_rows > 2 and (numbers % 1 == 0).all():
        return Inference(None, "an identifier by its name, with a different number in every row")
    return unless_constant(evidence, ColumnKind.NUMBER, f"{numbers.min():g} to {numbers.max():g}")


def fits(read: Any, value: Any) -> bool:
    """Whether a reader of ``ml_core.domain.values`` takes a value."""
    try:
        read(value)
    except DoesNotFitError:
        return False
    return True
