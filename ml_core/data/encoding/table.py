"""The whole table to one matrix: the first step of every pipeline."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin

from ml_core.data.canonical import columns_from_frame
from ml_core.data.encoding.category import CategoryEncoder
from ml_core.data.encoding.datetime import DatetimeEncoder
from ml_core.data.encoding.number import SCALINGS, NumberEncoder, Scaling
from ml_core.data.encoding.text import TextEncoder
from ml_core.data.frames import nullable_inputs, readings_of
from ml_core.data.kinds import infer_columns
from ml_core.domain.columns import ColumnKind, Columns, n_rows
from ml_core.domain.signature import InputColumn
from ml_core.exceptions import DataProcessingError

Matrix: TypeAlias = Any  # NDArray[np.float64] | scipy.sparse.csr_matrix; scipy ships no types
DenseEncoder = NumberEncoder | DatetimeEncoder | CategoryEncoder


class TableEncoder(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[misc,call-arg]
    """Encode canonical columns (or a data frame) as float64 features.

    Features come in the order numbers and booleans, datetimes, categories, texts. The result is sparse where there is a
    text column and ``dense_text`` is False; it is float64 in both cases. Columns are not checked again: a signature or
    ``columns_from_frame`` has done that. Values that training had not (a missing number, a new category) are encoded by
    what was fitted: the median, "another value".

    Args:
        columns: ``(name, kind)`` of each column, kinds as strings. None: inferred from the data frame given to ``fit``.
        scaling: Of numbers: ``standard``, ``minmax``, ``robust`` or ``none``.
        max_text_features: Terms kept of each text column.
        dense_text: Give a dense matrix although there is text, for estimators that take no sparse one. Bound
            ``max_text_features`` then: the matrix has 8 bytes a row and term.
        readings: Name → how the strings of a data frame's column are read: ``day_first``, ``month_first`` or
            ``decimal_comma``. Where ``columns`` is None they are inferred too.
    """

    def __init__(
        self,
        columns: Sequence[tuple[str, str]] | None = None,
        *,
        scaling: Scaling = "standard",
        max_text_features: int = 20_000,
        dense_text: bool = False,
        readings: Mapping[str, str] | None = None,
    ) -> None:
        self.columns = columns
        self.scaling = scaling
        self.max_text_features = max_text_features
        self.dense_text = dense_text
        self.readings = readings

    def fit(self, X: Columns | pd.DataFrame, y: Any = None) -> Self:  # noqa: ARG002 - sklearn passes it
        """Learn the encoding of each column.

        Raises:
            DataProcessingError: No column, no usable feature or an unknown scaling.
        """
        learners = self.learners(X)
        columns = self._canonical(X)
        return self.set_learned({name: learn(columns[name]) for name, learn in learners.items()})

    def learners(self, X: Columns | pd.DataFrame) -> dict[str, Callable[[NDArray[Any]], Any]]:
        """What ``fit`` does with each column, in any order or process; ``set_learned`` takes the results.

        Raises:
            DataProcessingError: No column or an unknown scaling.
        """
        if self.scaling not in SCALINGS:
            raise DataProcessingError(
                f"{self.scaling!r} is not a scaling.", remedy=f"Use one of {', '.join(SCALINGS)}.", stage="encode"
            )
        inputs = self._input_columns(X)
        self.columns_ = [(column.name, column.kind.value) for column in inputs]
        self.readings_ = readings_of(inputs)
        self.dense_: list[DenseEncoder] = []
        if numbers := self._names(ColumnKind.NUMBER, ColumnKind.BOOLEAN):
            self.dense_.append(NumberEncoder(numbers, self.scaling))
        if datetimes := self._names(ColumnKind.DATETIME):
            self.dense_.append(DatetimeEncoder(datetimes))
        if categories := self._names(ColumnKind.CATEGORY):
            self.dense_.append(CategoryEncoder(categories))
        self.texts_ = [TextEncoder(name, self.max_text_features) for name in self._names(ColumnKind.TEXT)]
        return {name: encoder.learn for encoder in (*self.dense_, *self.texts_) for name in encoder.names}

    def set_learned(self, learned: Mapping[str, Any]) -> Self:
        """End the fit with what the ``learners`` returned, by column.

        Raises:
            DataProcessingError: No usable feature.
        """
        for encoder in (*self.dense_, *self.texts_):
            encoder.set_learned([learned[name] for name in encoder.names])
        self.texts_ = [encoder for encoder in self.texts_ if encoder.width]  # texts of signs only have no word
        if not self.n_features_out:
            raise DataProcessingError(
                "No column can be encoded: there is no number, date or category, and the texts have no words.",
                remedy="Add a column, or name the kind of one.",
                stage="encode",
            )
        return self

    def _input_columns(self, X: Columns | pd.DataFrame) -> Sequence[InputColumn]:
        if self.columns is not None:
            return nullable_inputs([(str(name), kind) for name, kind in self.columns], self.readings)
        if isinstance(X, pd.DataFrame):
            return [column.input for column in infer_columns(X) if column.input is not None]
        raise DataProcessingError(
            "The kinds of the columns are not known.", remedy="Give columns=, or fit on a data frame.", stage="encode"
        )

    def _names(self, *kinds: ColumnKind) -> list[str]:
        return [name for name, kind in self.columns_ if kind in kinds]

    def _canonical(self, X: Columns | pd.DataFrame) -> Columns:
        if not isinstance(X, pd.DataFrame):
            return X
        return columns_from_frame(X, nullable_inputs(self.columns_, self.readings_))

    @property
    def n_features_out(self) -> int:
        """The number of features."""
        return sum(encoder.width for encoder in (*self.dense_, *self.texts_))

    @property
    def feature_columns(self) -> NDArray[Any]:
        """The input column of each feature, ``(n_features,)`` object str; a feature depends on no other column."""
        names = [name for encoder in (*self.dense_, *self.texts_) for name in encoder.feature_columns]
        return np.array(names, dtype=object)

    @property
    def reference(self) -> NDArray[np.float64]:
        """The features of a typical row, ``(n_features,)``: typical numbers and dates, no category and no word."""
        parts = [
            encoder.reference if not isinstance(encoder, CategoryEncoder) else np.zeros(encoder.width)
            for encoder in self.dense_
        ]
        return np.concatenate([*parts, *(np.zeros(encoder.width) for encoder in self.texts_)])

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:  # noqa: ARG002 - sklearn passes it
        """A name for each feature, ``(n_features,)`` object str, in the order of the matrix."""
        names = [name for encoder in (*self.dense_, *self.texts_) for name in encoder.feature_names]
        return np.array(names, dtype=object)

    def transform(self, X: Columns | pd.DataFrame) -> Matrix:
        """The features, ``(n_rows, n_features)`` float64: dense, or CSR where a text column asks for it.

        Raises:
            SignatureMismatchError: A data frame holds a value that is not of its column's kind.
        """
        columns = self._canonical(X)
        rows = n_rows(columns)
        dense = self._encode_dense(columns, rows)
        if not self.texts_:
            return dense
        matrix = self._append_texts(columns, dense)
        return matrix.toarray() if self.dense_text else matrix

    def _encode_dense(self, columns: Columns, rows: int) -> NDArray[np.float64]:
        out = np.zeros((rows, sum(encoder.width for encoder in self.dense_)), dtype=np.float64)
        start = 0
        for encoder in self.dense_:
            encoder.encode(columns, out[:, start : start + encoder.width])
            start += encoder.width
        return out

    def _append_texts(self, columns: Columns, dense: NDArray[np.float64]) -> sparse.csr_matrix:
        rows, offset = dense.shape
        arrays: list[tuple[TextEncoder, int, list[Any]]] = []
        for encoder in self.texts_:
            arrays.append((encoder, offset, columns[encoder.name].tolist()))
            offset += encoder.width
        indices, values, ends = array("i"), array("d"), [0]  # as wide as scipy's, which then need not be converted
        # One matrix from the start: scipy's hstack of the parts costs more than a request of one row.
        of_row, present = np.nonzero(dense)
        features, numbers = array("i", present.astype(np.intc).tobytes()), array("d", dense[of_row, present].tobytes())
        bounds = np.searchsorted(of_row, np.arange(rows + 1)).tolist()
        for row in range(rows):
            indices.extend(features[bounds[row] : bounds[row + 1]])
            values.extend(numbers[bounds[row] : bounds[row + 1]])
            for encoder, start, texts in arrays:
                encoder.encode(texts[row], start, indices, values)
            ends.append(len(indices))
        return _csr(values, indices, ends, (rows, offset))


def _csr(values: array[float], indices: array[int], ends: list[int], shape: tuple[int, int]) -> sparse.csr_matrix:
    data = (np.array(values), np.array(indices), np.array(ends, dtype=np.int32))
    matrix = sparse.csr_matrix(data, shape=shape)
    matrix.has_sorted_indices = True  # they are, and scipy would look
    return matrix
