"""Prediction of all rows of a registered dataset, a row group at a time.

Rows are read as those of a request are (``ml_core.data.canonical``), so that they get the answers of a replica. Memory
is bounded by one row group, see ``ml_core.data.table_file``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from ml_core.data.canonical import columns_from_frame
from ml_core.data.table_file import group_rows
from ml_core.data.tables import check_columns, series_of
from ml_core.domain.columns import ColumnKind, Columns
from ml_core.domain.dataset import DatasetVersion
from ml_core.domain.keywords import nearest
from ml_core.domain.signature import PREDICTION, InputColumn, OutputKind, Signature
from ml_core.domain.values import category_text, composed
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import InvalidRequestError, PredictionError, SignatureMismatchError, shown
from ml_core.ids import Digest
from ml_core.inference.inputs import require_signature
from ml_core.models.loading import labels_to_json, load_version
from ml_core.models.own_types import Trust
from ml_core.models.store import ArtifactStore

ERROR: Final = "error"

# Predicted at once: fewer rows where texts are long.
_ROWS = 8_192
_BYTES = 16 * 2**20

# Arrow types, by their beginnings, none of whose values the kind reads.
_NUMBERS = ("int", "uint", "float", "double", "decimal", "bool")
_MOMENTS = ("date", "timestamp")
_UNREADABLE: Final = {
    ColumnKind.NUMBER: _MOMENTS,
    ColumnKind.BOOLEAN: (*_MOMENTS, "decimal"),
    ColumnKind.DATETIME: _NUMBERS,
    ColumnKind.TEXT: (*_NUMBERS, *_MOMENTS),
    ColumnKind.CATEGORY: (),
}
_LABELS: Final = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What to predict, with what, and what to write beside the predictions.

    Attributes:
        version: The version that predicts.
        dataset: The reference of the dataset, for messages.
        digest: Of its file.
        size_bytes: Of its file.
        keep: Columns of the dataset to repeat.
        proba: Whether the probability of each class is a column.
        null_on_error: Whether a row that does not fit the signature has a null prediction and says why.
    """

    version: ServableVersion
    dataset: str
    digest: Digest
    size_bytes: int
    keep: tuple[str, ...]
    proba: bool
    null_on_error: bool

    @classmethod
    def checked(
        cls, version: ServableVersion, dataset: DatasetVersion, *, keep: Sequence[str], proba: bool, null_on_error: bool
    ) -> BatchRequest:
        """A request of which all that is known before a row is read has been checked.

        Raises:
            SignatureMismatchError: The dataset lacks a column that must not be missing, or has it in a type that the
                version does not read.
            PredictionError: The version has no probabilities.
            InvalidRequestError: A column to keep is not in the dataset.
            DataProcessingError: The version has no signature, or two columns would have one name.
        """
        request = cls(version, dataset.reference, dataset.digest, dataset.size_bytes, tuple(keep), proba, null_on_error)
        signature, stored = require_signature(version.signature), dict(dataset.columns)
        signature.check_names(stored)
        types = {composed(name): kind for name, kind in stored.items()}
        for column in signature.inputs:
            _check_column(request, column, types.get(column.name))
        if proba and not version.self_test.probabilities:
            raise PredictionError(
                f"{version.ref} has no probabilities.", remedy="Leave proba out.", **version.ref.attributes
            )
        for name in keep:
            if name not in stored:
                raise InvalidRequestError(
                    f"The dataset {dataset.reference} has no column {shown(name)}.",
                    remedy=nearest(name, stored),
                    field="keep",
                )
        check_columns([*keep, *request.made])
        return request

    @property
    def made(self) -> dict[str, pa.DataType]:
        """The columns that the prediction makes, with their types."""
        output = self.version.signature.output
        return {
            PREDICTION: _label_type(self.version.signature),
            **(dict.fromkeys(output.probability_columns, pa.float64()) if self.proba else {}),
            **({ERROR: pa.string()} if self.null_on_error else {}),
        }


class BatchPredictor:
    """Predicts the row groups of a dataset; it holds the version, which was verified and self-tested, and one piece.

    Args:
        request: What to predict.
        store: Where the version and the dataset are.
        trust: As of ``load_version``.

    Attributes:
        schema: Of the tables that it yields.
        group_rows: Rows of each row group of the dataset.

    Raises:
        ModelLoadError: The version or the dataset can't be read, or fails its checks.
    """

    def __init__(self, request: BatchRequest, store: ArtifactStore, trust: Trust) -> None:
        self._request = request
        self._model = load_version(store, request.version, trust)
        # Made now: it knows the libraries that are loaded. With one thread the last bits do not depend on the cores.
        self._threads = ThreadpoolController()
        self._file = pq.ParquetFile(store.fetch(request.version.ref.tenant_id, request.digest, request.size_bytes))
        footer, stored = self._file.metadata, self._file.schema_arrow
        self.group_rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        named = {composed(name): name for name in stored.names}
        self._inputs = {c.name: named[c.name] for c in request.version.signature.inputs if c.name in named}
        kept = {name: stored.field(name).type for name in request.keep}
        self.schema = pa.schema([*kept.items(), *request.made.items()])

    def predict(self, group: int) -> Iterator[pa.Table]:
        """The predictions for a row group, in the order of its rows, in pieces of ``schema``.

        Raises:
            SignatureMismatchError: A row does not fit; names it by its number in the dataset, from 0, and the column.
            PredictionError: The model failed.
        """
        first = sum(self.group_rows[:group])
        wanted = list(dict.fromkeys([*self._inputs.values(), *self._request.keep]))
        most = min(_ROWS, group_rows(len(wanted) + len(self.schema)))
        for batch in self._file.iter_batches(most, row_groups=[group], columns=wanted):
            table = pa.Table.from_batches([batch])
            rows = max(1, int(table.num_rows * min(1.0, _BYTES / max(1, table.nbytes))))
            for start in range(0, table.num_rows, rows):
                piece = table.slice(start, rows)
                yield self._predict(piece, first)
                first += piece.num_rows

    def _predict(self, table: pa.Table, first: int) -> pa.Table:
        series = {name: series_of(table.column(stored)) for name, stored in self._inputs.items()}
        columns, errors = self._read(pd.DataFrame(series, index=pd.RangeIndex(table.num_rows)), first)
        with self._threads.limit(limits=1):
            labels, probabilities = self._model.predict_both(columns, proba=self._request.proba)
        answers = [_labels(labels_to_json(labels), self._request.made[PREDICTION])]
        if self._request.proba and probabilities is not None:
            answers += [pa.array(column, from_pandas=True) for column in probabilities.T]
        fits = pd.isna(errors)
        rows = pa.array(np.cumsum(fits) - 1, mask=~fits)  # of the answers; null where there is none
        columns_made = [answer.take(rows) for answer in answers]
        if self._request.null_on_error:
            columns_made.append(pa.array(errors, pa.string()))
        return pa.table([*(table.column(name) for name in self._request.keep), *columns_made], schema=self.schema)

    def _read(self, frame: pd.DataFrame, first: int) -> tuple[Columns, NDArray[Any]]:
        """Canonical columns of the rows that fit, and for each row why it does not, or None."""
        signature, dataset = self._request.version.signature, self._request.dataset
        errors = np.full(len(frame), None, dtype=object)
        while True:
            fits = np.flatnonzero(pd.isna(errors))
            try:
                return columns_from_frame(frame.iloc[fits], signature.inputs), errors
            except SignatureMismatchError as error:
                place = error.attributes()
                column = next(each for each in signature.inputs if each.name == place["column"])
                row = first + int(place["row"])
                if not self._request.null_on_error:
                    raise SignatureMismatchError(
                        f"Row {row:,} of {dataset} does not fit: {_reason(error)}",
                        remedy="Correct the dataset, or submit the job with on_error null.",
                        row=row,
                        column=column.name,
                    ) from error
                found = [_misfit(column, value) for value in frame[column.name].iloc[fits].tolist()]
                if not any(found):
                    raise
                errors[fits] = found


def _check_column(request: BatchRequest, column: InputColumn, arrow: str | None) -> None:
    """Refuse a dataset whose column of this Arrow type, or without one, can't be read as that of the signature."""
    model = f"{request.version.ref.model_id!s}@{request.version.ref.version!s}"
    if arrow in (None, "null") and not column.nullable:
        what = "has no values in the column" if arrow else "has no column"
        remedy = "Add it: it had no missing value in training."
    elif arrow is not None and arrow.startswith(_UNREADABLE[column.kind]):
        what, remedy = f"has values of type {arrow} in the column", f"Store it as a {column.kind.value} or as text."
    else:
        return
    raise SignatureMismatchError(
        f"The dataset {request.dataset} {what} {shown(column.name)}, which {model} reads as a {column.kind.value}.",
        remedy=remedy,
        column=column.name,
    )


def _label_type(signature: Signature) -> pa.DataType:
    """The Arrow type of the predictions; labels of several types are written as text."""
    if signature.output.kind is OutputKind.NUMBER:
        return pa.float64()
    if signature.output.kind is not OutputKind.CLASSES:
        return pa.int64()
    types = {type(label) for label in signature.output.classes}
    return _LABELS[types.pop()] if len(types) == 1 else pa.string()


def _labels(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        values = [None if value is None else category_text(value) for value in values]
    return pa.array(values, kind)


def _misfit(column: InputColumn, value: Any) -> str | None:
    try:
        column.read([value])
    except SignatureMismatchError as error:
        return _reason(error)
    return None


def _reason(error: SignatureMismatchError) -> str:
    """What an error says of the value, without the row's number in the piece."""
    return error.message.partition(": ")[2]
