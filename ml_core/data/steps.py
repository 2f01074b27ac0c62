"""The pipeline step that runs a caller's own ``DataProcessor.preprocess``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from ml_core.data.canonical import columns_from_frame, frame_from_columns
from ml_core.data.frames import as_frame, nullable_inputs
from ml_core.domain.columns import Columns
from ml_core.exceptions import DataProcessingError

if TYPE_CHECKING:
    from ml_core.data.processor import DataProcessor


class ProcessorStep(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[misc,call-arg]
    """The first step of a pipeline with a processor of the caller's own: ``preprocess`` in training and inference.

    Args:
        processor: Whose ``preprocess`` is called, with ``is_training`` True in ``fit`` only.
        columns: ``(name, kind)`` of the raw input columns.
        model_type: Passed on to ``preprocess``.
        readings: As for ``TableEncoder``.
    """

    def __init__(
        self,
        processor: DataProcessor,
        columns: Sequence[tuple[str, str]],
        model_type: str | None = None,
        readings: Mapping[str, str] | None = None,
    ) -> None:
        self.processor = processor
        self.columns = columns
        self.model_type = model_type
        self.readings = readings

    def fit(self, X: Columns | pd.DataFrame, y: Any = None) -> Self:
        """Let the processor learn from the training rows."""
        self.fit_transform(X, y)
        return self

    def fit_transform(self, X: Columns | pd.DataFrame, y: Any = None) -> pd.DataFrame:  # noqa: ARG002 - sklearn passes it
        """The processed training rows."""
        return self._process(X, is_training=True)

    def transform(self, X: Columns | pd.DataFrame) -> pd.DataFrame:
        """The processed rows, ``(n_rows, any)``."""
        return self._process(X, is_training=False)

    def _process(self, X: Columns | pd.DataFrame, *, is_training: bool) -> pd.DataFrame:
        inputs = nullable_inputs(self.columns, self.readings)
        columns = columns_from_frame(X, inputs) if isinstance(X, pd.DataFrame) else X
        frame = frame_from_columns(columns, self.columns)
        processed = as_frame(self.processor.preprocess(frame, self.model_type, is_training=is_training))
        if len(processed) != len(frame):
            raise DataProcessingError(
                f"{type(self.processor).__name__}.preprocess made {len(processed)} rows of {len(frame)}.",
                remedy="It must return one row for each row it gets.",
                stage="preprocess",
            )
        return processed
