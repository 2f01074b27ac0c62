"""The steps of a pipeline before its estimator."""

from __future__ import annotations

from typing import Any

from ml_core.data.frames import readings_of
from ml_core.data.processor import DataProcessor
from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn
from ml_core.models.model_factory import find_algorithm
from ml_core.training.request import TrainingRequest
from ml_core.training.table import TrainingTable
from ml_core.training.targets import invalid

# For an estimator that takes no sparse matrix, words become a dense one: bounded in features and in bytes.
_MAX_DENSE_WORDS = 1_000
_MIN_DENSE_WORDS = 50
_MAX_DENSE_BYTES = 2**30


def encoding_steps(request: TrainingRequest, table: TrainingTable, *, takes_sparse: bool) -> list[tuple[str, Any]]:
    """The unfitted steps before an estimator, which takes sparse matrices or does not.

    Raises:
        TrainingError: The texts are too many for a dense matrix.
    """
    processor = request.processor or DataProcessor()
    encoding = {} if takes_sparse else _dense_encoding(table.inputs, table.train.n_rows)
    columns = [(column.name, column.kind.value) for column in table.inputs]
    if readings := readings_of(table.inputs):
        encoding["readings"] = readings
    return list(processor.build_steps(columns, **encoding))


def takes_sparse(table: TrainingTable, model_type: str, algorithm: str) -> bool:
    """Whether an algorithm gets the encoding with sparse matrices, which without texts is the one with dense ones."""
    has_texts = any(column.kind is ColumnKind.TEXT for column in table.inputs)
    return find_algorithm(model_type, algorithm).takes_sparse or not has_texts


def _dense_encoding(inputs: tuple[InputColumn, ...], n_rows: int) -> dict[str, Any]:
    texts = sum(column.kind is ColumnKind.TEXT for column in inputs)
    if not texts:
        return {}
    words = min(_MAX_DENSE_WORDS, _MAX_DENSE_BYTES // (8 * n_rows * texts))  # float64
    if words < _MIN_DENSE_WORDS:
        raise invalid(
            f"This algorithm takes no sparse matrix, and {n_rows} rows with {texts} text column(s) are too many for a "
            "dense one.",
            "Use algorithm=logistic_regression or random_forest.",
        )
    return {"dense_text": True, "max_text_features": words}
