"""The first step of a pipeline that was fitted elsewhere: canonical columns to the table that it was fitted on."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from ml_core.domain.columns import ColumnKind, Columns
from ml_core.domain.values import is_missing
from ml_core.exceptions import DataProcessingError

# pandas' dtypes with a missing value of their own.
_NULLABLE = frozenset(
    {"boolean", "Float32", "Float64", *(f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))}
)
# How a table is handed on: with names, as one array of all columns, or as the values of its only column.
FRAME, MATRIX, VALUES = "frame", "matrix", "values"


class FrameStep(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[misc,call-arg]
    """Rebuild the frame that a pipeline was fitted on, dtypes included, from canonical columns.

    A column of integers that has a missing value becomes one of floats, as in pandas. The shape is ``frame``,
    ``matrix`` or ``values``.

    Attributes:
        columns_: ``(name, kind)`` of each column.
        labels_: Its label in the frame, a string or an integer.
        dtypes_: Its dtype as pandas names it.
        missing_: Whether a missing string of an ``object`` column is None; else it is NaN.
        categories_: The categories of a ``category`` column in order, else None.
        ordered_: Whether they are ordered.
    """

    def __init__(self, shape: str = FRAME) -> None:
        self.shape = shape

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:  # noqa: ARG002 - sklearn passes it
        """Note names, kinds and dtypes of rows as the pipeline was fitted on, ``(n_rows, n_columns)``, one at least.

        Raises:
            DataProcessingError: A column holds what has no kind. ``column`` names it.
        """
        series = [X.iloc[:, position] for position in range(X.shape[1])]
        labels: list[Any] = X.columns.tolist()
        self.labels_ = [label if isinstance(label, int) else str(label) for label in labels]
        self.columns_ = [(str(name), _kind(str(name), column)) for name, column in zip(X.columns, series, strict=True)]
        self.dtypes_ = [str(column.dtype) for column in series]
        self.missing_ = [any(value is None for value in column.tolist()) for column in series]
        dtypes = [column.dtype if isinstance(column.dtype, pd.CategoricalDtype) else None for column in series]
        self.categories_ = [None if dtype is None else dtype.categories.tolist() for dtype in dtypes]
        self.ordered_ = [dtype is not None and bool(dtype.ordered) for dtype in dtypes]
        return self

    def transform(self, X: Columns) -> Any:
        """The table, in the shape that the pipeline takes."""
        columns = [self._restore(index, X[name]) for index, (name, _) in enumerate(self.columns_)]
        if self.shape == VALUES:
            return np.asarray(columns[0])
        if self.shape == MATRIX:
            return np.column_stack([np.asarray(column) for column in columns])
        return pd.DataFrame(dict(zip(self.labels_, columns, strict=True)))

    def _restore(self, index: int, array: NDArray[Any]) -> Any:
        dtype: Any = self.dtypes_[index]
        kind = self.columns_[index][1]
        if kind == ColumnKind.DATETIME:
            moments = pd.to_datetime(np.round(array * 1e6), unit="us", utc=True)
            return (moments if "," in dtype else moments.tz_localize(None)).astype(dtype)
        if kind == ColumnKind.TEXT and dtype == "object":
            return array if self.missing_[index] else np.where(pd.isna(array), np.nan, array)
        if dtype == "category":
            values = _booleans(array) if kind == ColumnKind.BOOLEAN else array
            return pd.Categorical(values, categories=self.categories_[index], ordered=self.ordered_[index])
        if dtype in _NULLABLE or kind == ColumnKind.TEXT:
            return pd.Series(array).astype(dtype)
        # numpy's integers and booleans have no missing value, and objects are booleans or any numbers.
        if dtype == "object" or (not dtype.startswith("float") and np.isnan(array).any()):
            return _booleans(array) if kind == ColumnKind.BOOLEAN else array
        return array.astype(dtype)


def _kind(name: str, column: pd.Series[Any]) -> str:
    """The kind under which a column's values reach the pipeline unchanged."""
    dtype = column.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return ColumnKind.DATETIME.value
    if isinstance(dtype, pd.CategoricalDtype):
        values = dtype.categories.tolist()
    elif pd.api.types.is_object_dtype(dtype):
        values = [value for value in column.tolist() if not is_missing(value)]
    else:
        values = [column.dtype.type()] if isinstance(dtype, np.dtype) else column.dropna().tolist()[:1]
    for kind, types in _TYPES.items():
        if values and all(isinstance(value, types) for value in values):
            return kind.value
    raise DataProcessingError(
        f"Column {name!r} of the sample has the dtype {dtype}" + (" and no value." if not values else "."),
        remedy="Give a sample in which each column holds numbers, booleans, strings or datetime64 values.",
        column=name,
        stage="sample",
    )


def _booleans(array: NDArray[np.float64]) -> NDArray[Any]:
    return np.array([value if np.isnan(value) else bool(value) for value in array], dtype=object)


# Strings are read as texts, which are handed on as they are. The first that fits: a boolean is an int in Python.
_TYPES: dict[ColumnKind, tuple[type, ...]] = {
    ColumnKind.BOOLEAN: (bool, np.bool_),
    ColumnKind.NUMBER: (int, float, np.integer, np.floating),
    ColumnKind.TEXT: (str,),
}


def table_of(sample: Any) -> pd.DataFrame:
    """A sample as a frame with a name for each column, of a frame, a series or an array.

    Raises:
        DataProcessingError: It is of another type, or has no row.
    """
    if isinstance(sample, pd.Series):
        frame = sample.to_frame(sample.name if sample.name is not None else "text")
    elif isinstance(sample, pd.DataFrame):
        frame = sample
    elif isinstance(sample, np.ndarray) and sample.ndim == 2:
        frame = pd.DataFrame(sample, columns=[f"x{index}" for index in range(sample.shape[1])])
    else:
        frame = pd.DataFrame()
    if not len(frame) or not len(frame.columns):
        raise DataProcessingError(
            "The sample is not a table with rows.",
            remedy="Give a few rows that the model was fitted on: a DataFrame, a Series of texts, or a 2-d array.",
            stage="sample",
        )
    return frame


def shape_for(model: Any, sample: Any) -> str:
    """How a fitted estimator takes its table, by what it noted of it, or else by the sample's form."""
    if hasattr(model, "feature_names_in_"):
        return FRAME
    first = model.steps[0][1] if hasattr(model, "steps") else model
    if isinstance(sample, pd.DataFrame) and not type(first).__module__.startswith("sklearn."):
        return FRAME  # a class of the caller's own may note nothing
    n_columns = sample.shape[1] if sample.ndim > 1 else 1
    return MATRIX if hasattr(model, "n_features_in_") or n_columns > 1 else VALUES
