"""Categories: one feature for each frequent value, one for all others, one for missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ml_core.data.kinds import MAX_CATEGORIES, most_frequent
from ml_core.domain.columns import Columns

# From so many rows on, a value seen once counts among the others: so the feature that unseen values get was trained.
RARE_FROM_ROWS = 100


class CategoryEncoder:
    """All category columns, one-hot: the ``max_categories`` most frequent values each, then "other", then "missing"."""

    def __init__(self, names: Sequence[str], max_categories: int = MAX_CATEGORIES) -> None:
        self.names = list(names)
        self.max_categories = max_categories

    def fit(self, columns: Columns) -> Self:
        """Learn the frequent values."""
        self.categories_: list[list[str]] = []
        for name in self.names:
            counts = Counter(value for value in columns[name].tolist() if value is not None)
            rare = 1 if len(columns[name]) >= RARE_FROM_ROWS else 0
            frequent = [value for value in most_frequent(counts) if counts[value] > rare]
            self.categories_.append(frequent[: self.max_categories])
        self._build()
        return self

    def _build(self) -> None:
        """The lookups, which are derived from the state and not stored."""
        self._lookups: list[dict[Any, int]] = []
        self._others: list[int] = []
        start = 0
        for categories in self.categories_:
            lookup: dict[Any, int] = {value: start + index for index, value in enumerate(categories)}
            self._others.append(start + len(categories))
            lookup[None] = start + len(categories) + 1
            start += len(categories) + 2
            self._lookups.append(lookup)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "categories_" in state:
            self._build()

    @property
    def feature_names(self) -> list[str]:
        """One a feature."""
        return [
            f"{name} {value}"
            for name, categories in zip(self.names, self.categories_, strict=True)
            for value in (*(f"= {category}" for category in categories), "is another value", "is missing")
        ]

    @property
    def feature_columns(self) -> list[str]:
        """The column of each feature."""
        return [
            name
            for name, categories in zip(self.names, self.categories_, strict=True)
            for _ in range(len(categories) + 2)
        ]

    @property
    def width(self) -> int:
        """The number of features."""
        return sum(len(categories) + 2 for categories in self.categories_)

    def encode(self, columns: Columns, out: NDArray[np.float64]) -> None:
        """Write the features of ``(n_rows,)`` columns to ``out``, ``(n_rows, width)`` float64 of zeros."""
        n_rows = len(out)
        if n_rows == 1:  # the usual request; arrays of one element would cost more than the look-ups
            for name, lookup, other in zip(self.names, self._lookups, self._others, strict=True):
                out[0, lookup.get(columns[name][0], other)] = 1.0
            return
        rows = np.arange(n_rows)
        for name, lookup, other in zip(self.names, self._lookups, self._others, strict=True):
            codes = np.fromiter((lookup.get(value, other) for value in columns[name]), dtype=np.intp, count=n_rows)
            out[rows, codes] = 1.0
