"""``DataProcessor``: the public API of cleaning, feature extraction, encoding and splitting.

Training and serving use the encoder of ``ml_core.data.encoding``, which reads raw rows without a frame. A subclass of
``DataProcessor`` that overrides ``preprocess`` becomes a step before it (``ProcessorStep``), in training and inference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from ml_core.cache import CacheMechanism
from ml_core.data.canonical import columns_from_frame, frame_from_columns
from ml_core.data.encoding.number import SCALINGS, Scaling, center_and_scale
from ml_core.data.encoding.table import TableEncoder
from ml_core.data.frames import (
    as_frame,
    datetime_features,
    fill_missing,
    filling_of,
    kind_by_dtype,
    nullable_inputs,
    readings_of,
    text_features,
)
from ml_core.data.kinds import infer_columns
from ml_core.data.splits import split_rows
from ml_core.domain.columns import ColumnKind, Columns
from ml_core.exceptions import DataProcessingError
from ml_core.ids import TenantId

_MAX_DENSE_WORDS = 1_000
"""Columns that ``transform_features`` makes of one text: each takes 8 bytes a row."""


class DataProcessor:
    """Clean, extend, encode and split data frames.

    A subclass may override ``preprocess`` and call ``super().preprocess(…)``; give it to a ``Trainer`` and the same
    code runs on the rows of training and of every prediction. Such a subclass is your own code: its models predict in
    your own process (``MLSystem``, ``Predictor``), and servers load them where ``MLCORE_TRUSTED_MODULES`` names its
    module.

    Args:
        tenant_id: The tenant whose data it is.
        kinds: Column name → kind, for columns whose kind should not be inferred.
        scaling: Of numbers, in the models trained with this processor.
        cache: Caches the features of texts by their content; None: no cache. A copy or a model does not take it along.
    """

    _cache: CacheMechanism | None = None

    def __init__(
        self,
        tenant_id: str = "default",
        *,
        kinds: Mapping[str, ColumnKind] | None = None,
        scaling: Scaling = "standard",
        cache: CacheMechanism | None = None,
    ) -> None:
        self._cache = cache
        self.tenant_id = str(TenantId(tenant_id))
        self.kinds = {str(name): ColumnKind(kind).value for name, kind in (kinds or {}).items()}
        self.scaling = scaling
        # The columns seen in training: (name, kind), and what replaces a missing value in each.
        self.columns_: list[tuple[str, str]] = []
        self.readings_: dict[str, str] = {}
        self.fill_: dict[str, float | str] = {}
        self.transform_: str | None = None

    def preprocess(
        self,
        data: Any,
        model_type: str | None = None,  # noqa: ARG002 - for subclasses
        is_training: bool = True,
    ) -> pd.DataFrame:
        """Clean a table: each column in the form of its kind, and missing values filled.

        Numbers and booleans become float64, datetimes UTC ``datetime64``, categories and texts strings. Missing numbers
        and datetimes get the training data's median, missing booleans its most frequent value, missing categories
        ``"missing"``, missing texts ``""``. Rows keep their order and index; columns unknown to
        training are left out.

        Args:
            data: ``(n_rows, n_columns)`` data frame, or data that ``pandas.DataFrame`` accepts.
            model_type: For subclasses; the cleaning does not depend on it.
            is_training: Learn kinds and fillings first.

        Raises:
            DataProcessingError: Not fitted and not training, or a column that can't be used in training.
            SignatureMismatchError: A value that is not of its column's kind.
        """
        frame = as_frame(data)
        if is_training:
            self._fit(frame)
        elif not self.columns_:
            raise DataProcessingError(
                "The processor is not fitted.",
                remedy="Call preprocess(data, is_training=True) first.",
                stage="preprocess",
            )
        columns = columns_from_frame(frame, nullable_inputs(self.columns_, self.readings_))
        filled = {name: fill_missing(columns[name], self.fill_[name]) for name, _ in self.columns_}
        return frame_from_columns(filled, self.columns_).set_axis(frame.index, axis=0)

    def _fit(self, frame: pd.DataFrame) -> None:
        known = {name: ColumnKind(kind) for name, kind in self.kinds.items()}
        inferred = infer_columns(frame, kinds={name: kind for name, kind in known.items() if name in frame.columns})
        # Constants and identifiers are cleaned too; whether a model uses them is decided in training.
        self.columns_ = [(c.name, (c.kind or kind_by_dtype(frame[c.name])).value) for c in inferred]
        self.readings_ = readings_of(column.input for column in inferred if column.input is not None)
        columns = columns_from_frame(frame, nullable_inputs(self.columns_, self.readings_))
        self.fill_ = {name: filling_of(columns[name], kind) for name, kind in self.columns_}

    def extract_features(self, data: pd.DataFrame, feature_config: Mapping[str, bool] | None = None) -> pd.DataFrame:
        """Add columns derived from texts and datetimes.

        Of each text ``<column>_characters``, ``_words`` and ``_mean_word_length``; of each datetime ``<column>_year``,
        ``_month`` (0 to 11), ``_day`` (0 to 30), ``_weekday`` (0 is Monday) and ``_hour``. All are float64, NaN
        where the value is missing.

        Args:
            data: ``(n_rows, n_columns)``.
            feature_config: ``include_text_features`` and ``include_datetime_features``; both are on by default.

        Returns:
            A new frame: the columns of ``data`` and the new ones.

        Raises:
            DataProcessingError: An unknown key in ``feature_config``, or a column that can't be used.
        """
        config = {"include_text_features": True, "include_datetime_features": True, **(feature_config or {})}
        unknown = config.keys() - {"include_text_features", "include_datetime_features"}
        if unknown:
            raise DataProcessingError(
                f"Unknown feature_config {', '.join(sorted(unknown))}.",
                remedy="Known are include_text_features and include_datetime_features.",
                stage="features",
            )
        frame = as_frame(data)
        kinds, readings = dict(self.columns_), self.readings_
        if not kinds and self.transform_ is not None:  # a few rows of inference are too few to infer kinds from
            kinds, readings = dict(self.encoder_.columns_), self.encoder_.readings_
        if not kinds:
            inputs = [column.input for column in infer_columns(frame) if column.input is not None]
            kinds, readings = {column.name: column.kind.value for column in inputs}, readings_of(inputs)
        known = [(name, kind) for name, kind in kinds.items() if name in frame.columns]
        columns = columns_from_frame(frame, nullable_inputs(known, readings))
        added: dict[str, Any] = {}
        for name, array in columns.items():
            if kinds[name] == ColumnKind.TEXT and config["include_text_features"]:
                added |= self._text_features(name, array)
            if kinds[name] == ColumnKind.DATETIME and config["include_datetime_features"]:
                added |= datetime_features(name, array)
        return frame.assign(**added)

    def _text_features(self, name: str, texts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
        if self._cache is None:
            return text_features(name, texts)
        computed: dict[str, NDArray[np.float64]] = {}

        def compute() -> bytes:
            computed.update(text_features(name, texts))
            return np.stack(list(computed.values())).tobytes()

        content = json.dumps([self.tenant_id, texts.tolist()])  # keeps None apart from texts
        known = self._cache.get_or_compute(hashlib.sha256(f"features of texts\n{content}".encode()).digest(), compute)
        if computed:
            return computed
        values = np.frombuffer(known).reshape(-1, len(texts)).copy()
        return dict(zip(text_features(name, texts[:0]), values, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_cache"}

    def transform_features(
        self, features: pd.DataFrame, transform_type: str = "standard", *, is_training: bool = True
    ) -> pd.DataFrame:
        """Encode every column of a frame as numbers, and scale them.

        A number or boolean becomes one column of the same name; a category one column for each frequent value, one for
        all others and one for missing; a datetime its time and its position in year, month, week and day; a text one
        column a word, by TF-IDF. Missing numbers and datetimes get the median of training and, where training had some,
        a column that flags them. Columns unknown to training are left out; absent ones count as missing.

        Args:
            features: ``(n_rows, n_columns)``, such as ``extract_features`` returns.
            transform_type: ``standard`` (mean 0, standard deviation 1), ``minmax`` (0 to 1; values beyond those of
                training become 0 or 1), ``robust`` (median 0, interquartile range 1) or ``none`` (encoded only). A
                column that does not vary in training is only centered.
            is_training: Learn kinds, encoding and scales from these rows; else use those learned before.

        Returns:
            ``(n_rows, n_features)`` float64 without missing values, with the index of ``features``.

        Raises:
            DataProcessingError: An unknown ``transform_type``, no row to learn from, a column that can't be used, or
                not fitted and not training, also for another ``transform_type``.
            SignatureMismatchError: A value that is not of its column's kind.
        """
        if transform_type not in SCALINGS:
            raise DataProcessingError(
                f"{transform_type!r} is not a transform_type.",
                remedy=f"Use one of {', '.join(SCALINGS)}.",
                stage="scale",
            )
        frame = as_frame(features)
        if is_training:
            self._fit_transform(frame, transform_type)
        elif self.transform_ != transform_type:
            raise DataProcessingError(
                f"The transformation {transform_type!r} is not fitted.",
                remedy=f"Call transform_features(features, {transform_type!r}, is_training=True) first.",
                stage="scale",
            )
        matrix = (self.encoder_.transform(frame) - self.center_) / self.scale_
        if transform_type == "minmax":  # values beyond those of training, and the rounding of those at the ends
            matrix = matrix.clip(0.0, 1.0)
        return pd.DataFrame(matrix, columns=self.encoder_.get_feature_names_out(), index=frame.index)

    def _fit_transform(self, frame: pd.DataFrame, transform_type: Scaling) -> None:
        if not len(frame):
            raise DataProcessingError("The training data has no rows.", remedy="Give training rows.", stage="scale")
        columns, readings = self._kinds_of(frame)
        encoder = TableEncoder(
            columns, scaling="none", dense_text=True, max_text_features=_MAX_DENSE_WORDS, readings=readings
        )
        self.encoder_ = encoder.fit(frame)
        self.center_, self.scale_ = center_and_scale(self.encoder_.transform(frame), transform_type)
        self.transform_ = transform_type

    def _kinds_of(self, frame: pd.DataFrame) -> tuple[list[tuple[str, str]], dict[str, str]]:
        """``(name, kind)`` of each column, and how its strings are read: as learned, by dtype, or else inferred."""
        known = {**dict(self.columns_), **self.kinds}
        for name in frame.columns:
            if pd.api.types.is_numeric_dtype(frame[name].dtype) or pd.api.types.is_datetime64_any_dtype(frame[name]):
                known.setdefault(name, kind_by_dtype(frame[name]).value)
        readings = dict(self.readings_)
        if unknown := [name for name in frame.columns if name not in known]:
            try:
                inputs = [column.input for column in infer_columns(frame[unknown]) if column.input is not None]
            except DataProcessingError as error:
                if error.attributes().get("column") is not None:
                    raise
                inputs = []  # each is constant or an identifier, and is encoded as a category
            known |= {column.name: column.kind.value for column in inputs}
            readings |= readings_of(inputs)
        return [(name, known.get(name, kind_by_dtype(frame[name]).value)) for name in frame.columns], readings

    def split_data(
        self,
        X: Any,
        y: Any,
        test_size: float = 0.2,
        val_size: float = 0.1,
        random_state: int = 42,
        *,
        group: str | None = None,
        time: str | None = None,
    ) -> tuple[Any, Any, Any, Any, Any, Any]:
        """Divide rows into three parts.

        Where ``y`` holds classes of which every one has enough rows, each has the same share in every part; else the
        rows are drawn at random.

        Args:
            X: ``(n_rows, n_columns)`` frame or array.
            y: ``(n_rows,)``.
            test_size: Share of all rows.
            val_size: Share of all rows.
            random_state: Seed.
            group: A column of ``X``; rows that agree in it stay together.
            time: A column of ``X``; training comes before validation, validation before test.

        Returns:
            ``X_train, X_val, X_test, y_train, y_val, y_test``, of the types given.

        Raises:
            DataProcessingError: ``X`` and ``y`` differ in length, a column is unknown, or too few rows for the sizes.
        """
        if len(X) != len(y):
            raise DataProcessingError(
                f"X has {len(X)} rows, y has {len(y)}.", remedy="Give one target a row.", stage="split"
            )
        split = split_rows(
            y,
            test_size=test_size,
            val_size=val_size,
            random_state=random_state,
            groups=_column(X, group),
            times=_column(X, time),
        )
        parts = (split.train, split.validation, split.test)
        x_train, x_val, x_test = (_rows(X, part) for part in parts)
        y_train, y_val, y_test = (_rows(y, part) for part in parts)
        return x_train, x_val, x_test, y_train, y_val, y_test

    def postprocess(self, predictions: Any, model_type: str | None = None) -> NDArray[Any]:
        """Predictions as one array ``(n_rows,)``; of a regression float64.

        Args:
            predictions: ``(n_rows,)`` or ``(n_rows, 1)``, or one value.
            model_type: Such as ``regression``.

        Raises:
            DataProcessingError: Several values a row, or a number that is not finite in a regression.
        """
        array = np.atleast_1d(np.asarray(predictions))
        if array.ndim == 2 and array.shape[1] == 1:  # of a regressor that was fitted on a frame of one column
            array = array[:, 0]
        if array.ndim != 1:
            raise DataProcessingError(
                f"Predictions have the shape {array.shape}.", remedy="Give one value a row.", stage="postprocess"
            )
        if model_type == "regression":
            array = array.astype(np.float64)
            if not np.isfinite(array).all():
                raise DataProcessingError(
                    f"Prediction {int(np.flatnonzero(~np.isfinite(array))[0])} is not a finite number.",
                    remedy="Check the target's range in the training data.",
                    stage="postprocess",
                )
        return array

    def build_steps(
        self, columns: Sequence[tuple[str, str]], model_type: str | None = None, **encoding: Any
    ) -> list[tuple[str, Any]]:
        """The steps before the estimator: the encoder, after this processor if ``preprocess`` is overridden.

        Args:
            columns: ``(name, kind)`` of the raw input columns.
            model_type: Passed to an overridden ``preprocess``.
            **encoding: Options of ``TableEncoder``; its ``readings`` are of the raw columns.
        """
        options = {"scaling": self.scaling, **encoding}
        if type(self).preprocess is DataProcessor.preprocess:
            return [("encode", TableEncoder(list(columns), **options))]
        step = ProcessorStep(self, list(columns), model_type, options.pop("readings", None))
        return [("process", step), ("encode", TableEncoder(**options))]


class ProcessorStep(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[misc,call-arg]
    """The first step of a pipeline with a processor of the caller's own: ``preprocess`` in training and inference.

    ``is_training`` is True in ``fit`` only. The columns are ``(name, kind)`` of the raw ones, read by the ``readings``
    as in ``TableEncoder``.
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


def _column(X: Any, name: str | None) -> Any:
    if name is None:
        return None
    if not isinstance(X, pd.DataFrame) or name not in X.columns:
        raise DataProcessingError(
            f"X has no column {name!r} to split by.",
            remedy="Name a column of the data frame.",
            column=name,
            stage="split",
        )
    return X[name]


def _rows(values: Any, positions: NDArray[np.intp]) -> Any:
    if hasattr(values, "iloc"):
        return values.iloc[positions]
    return np.asarray(values)[positions]
