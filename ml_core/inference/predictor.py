"""``Predictor``: prediction in this process, with models that ``ModelManager.load_model`` loads."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ml_core.cache import CacheMechanism
from ml_core.data.frames import like
from ml_core.domain.columns import Columns, take
from ml_core.domain.explanation import Explanation
from ml_core.domain.signature import PREDICTION, OutputKind
from ml_core.exceptions import DataProcessingError, PredictionError
from ml_core.ids import TenantId
from ml_core.inference.inputs import Table, read_input
from ml_core.models.loading import LoadedModel, labels_to_json
from ml_core.observability import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from ml_core.manager import ModelManager

# Larger tables are rarely predicted twice, and hashing them costs about as much as predicting them.
_MAX_CACHED_ROWS = 256
_to_json = json.JSONEncoder(ensure_ascii=False).encode


class Predictor:
    """Predicts rows with a model. Thread-safe.

    Args:
        model_manager: Loads models that are given by id, on each call. For repeated predictions pass a model that
            ``load_model`` returned, or use ``MLSystem``.
        cache: Caches predictions by version and values; None: no cache.
        tenant_id: The tenant of the models.
        hooks: Called with each prediction.
    """

    def __init__(
        self,
        model_manager: ModelManager,
        cache: CacheMechanism | None = None,
        tenant_id: str = "default",
        *,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self._manager = model_manager
        self._cache = cache
        self._hooks = hooks
        self.tenant_id = TenantId(tenant_id)

    def __repr__(self) -> str:
        return f"Predictor({self._manager!r}, tenant_id={str(self.tenant_id)!r})"

    def predict(
        self, model: LoadedModel | str, input_data: Any, *, use_cache: bool = True, as_frame: bool = False
    ) -> Any:
        """Predict one row or many.

        Args:
            model: A model that ``load_model`` returned, or a model id.
            input_data: One row (a mapping, a Series, a frame of one row, a 1-d array or a list of values) or many
                (another table, a 2-d array, a list of rows). Values without names are in the order of the signature.
                Tables of polars, pyarrow and others are accepted like those of pandas. For a model with one column, a
                Series or array of values is many rows.
            use_cache: Whether a cached prediction may be returned.
            as_frame: Whether the result is a table like the input.

        Returns:
            For one row a Python value; for many an array ``(n_rows,)`` in the order of the rows. With ``as_frame`` a
            table with the column ``prediction``: of polars or pyarrow for one of these, else of pandas with the index
            of the input. A label has the type
            of the training target; a number is a float; a cluster is an int from 0; an anomaly is -1 and a normal row
            is 1.

        Raises:
            ModelNotFoundError, ModelLoadError: The model does not exist or can't be loaded.
            DataProcessingError: The input is neither a row nor a table.
            SignatureMismatchError: A value does not fit the signature.
            PredictionError: The model failed.
        """
        loaded = self._load(model)
        table = read_input(input_data, loaded.version.signature)
        labels = self._labels(loaded, table, use_cache=use_cache)
        if as_frame:
            return like(input_data, {PREDICTION: labels})
        return labels_to_json(labels)[0] if table.is_single else labels

    def predict_batch(
        self, model: LoadedModel | str, input_batch: Sequence[Any], batch_size: int = 32, *, use_cache: bool = True
    ) -> list[Any]:
        """Predict a list of rows, in the same order.

        Args:
            model: As for ``predict``.
            input_batch: Rows: mappings, Series or lists of values. Tables are accepted too.
            batch_size: Rows in one call of the model.
            use_cache: Whether cached predictions may be returned.

        Raises:
            DataProcessingError: ``batch_size`` is less than 1, or as for ``predict``.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise DataProcessingError(f"batch_size is {batch_size}.", remedy="Give at least 1.", stage="predict")
        loaded = self._load(model)
        table = read_input(input_batch, loaded.version.signature, is_batch=True)
        answers: list[Any] = []
        for start in range(0, table.rows, batch_size):
            stop = min(start + batch_size, table.rows)
            part = Table(take(table.columns, slice(start, stop)), stop - start, is_single=False)
            answers += labels_to_json(self._labels(loaded, part, use_cache=use_cache))
        return answers

    def predict_proba(self, model: LoadedModel | str, input_data: Any, *, as_frame: bool = False) -> Any:
        """Predict class → probability: a dict for one row, a list of dicts for many.

        With ``as_frame`` it is a table like that of ``predict``, with a column ``probability_…`` for each class.

        Raises:
            PredictionError: The model has no probabilities, or as for ``predict``.
        """
        loaded = self._load(model)
        table = read_input(input_data, loaded.version.signature)
        with self._timed(loaded, table.rows):
            probabilities = loaded.predict_proba(table.columns)
        if probabilities is None:
            ref = loaded.version.ref
            raise PredictionError(
                f"{ref} has no probabilities.",
                remedy="Use a classifier that has them, such as a random forest.",
                **ref.attributes,
            )
        output = loaded.version.signature.output
        if as_frame:
            return like(input_data, dict(zip(output.probability_columns, probabilities.T, strict=True)))
        rows = [dict(zip(output.classes, row, strict=True)) for row in probabilities.tolist()]
        return rows[0] if table.is_single else rows

    def predict_interval(self, model: LoadedModel | str, input_data: Any, coverage: float = 0.9) -> Any:
        """Predict the interval that holds the truth with a probability: split conformal prediction.

        Args:
            model: A regression, as for ``predict``.
            input_data: As for ``predict``.
            coverage: The probability, between 0 and 1, on average over rows that resemble the held-out ones.

        Returns:
            The lower and the upper end in the target's unit: a tuple for one row, an array ``(n_rows, 2)`` for many.

        Raises:
            InvalidRequestError: The version has no intervals, too few held-out rows for the coverage, or it is not
                between 0 and 1; or as for ``predict``.
        """
        loaded = self._load(model)
        table = read_input(input_data, loaded.version.signature)
        intervals = loaded.version.signature.output.intervals(loaded.predict(table.columns), coverage)
        return tuple(intervals[0].tolist()) if table.is_single else intervals

    def predict_scores(self, model: LoadedModel | str, input_data: Any) -> Any:
        """Predict anomaly scores: the higher, the more anomalous; above the version's threshold a row is an anomaly.

        The threshold is ``signature.output.threshold``; training chose it by ``contamination``. The unit is that of the
        estimator: an isolation forest has scores from 0 to 1, and 0.5 is an average row.

        Returns:
            A float for one row, an array ``(n_rows,)`` for many.

        Raises:
            InvalidRequestError: The version has no scores; or as for ``predict``.
        """
        loaded = self._load(model)
        table = read_input(input_data, loaded.version.signature)
        scores = loaded.predict_scored(table.columns)[1]
        return float(scores[0]) if table.is_single else scores

    def explain(self, model: LoadedModel | str, input_data: Any) -> Explanation:
        """Explain the predictions for one row or many: what each input column added to the score.

        Exact for linear models and trees; other models are asked about 2,000 changed rows for each row.

        Raises:
            DataProcessingError: There is no row, or as for ``predict``.
            ModelNotFoundError, ModelLoadError, SignatureMismatchError: As for ``predict``.
            PredictionError: The model failed, or has no rows to compare with.
        """
        # Imported late: most programs predict only.
        from ml_core.evaluation.explaining import Explainer

        loaded = self._load(model)
        table = read_input(input_data, loaded.version.signature)
        if not table.rows:
            raise DataProcessingError("There is no row to explain.", remedy="Give at least one.", stage="explain")
        return Explainer(loaded).explain(table.columns)

    def _load(self, model: LoadedModel | str) -> LoadedModel:
        return self._manager.load_model(model) if isinstance(model, str) else model

    @contextmanager
    def _timed(self, model: LoadedModel, rows: int) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._hooks.request_predicted(model.version.ref, rows, 0.0, time.perf_counter() - started)

    def _labels(self, model: LoadedModel, table: Table, *, use_cache: bool) -> NDArray[Any]:
        with self._timed(model, table.rows):
            if self._cache is None or not use_cache or not 0 < table.rows <= _MAX_CACHED_ROWS:
                return model.predict(table.columns)
            return self._cached(self._cache, model, table)

    def _cached(self, cache: CacheMechanism, model: LoadedModel, table: Table) -> NDArray[Any]:
        computed: list[NDArray[Any]] = []

        def compute() -> bytes:
            computed.append(model.predict(table.columns))
            return orjson.dumps(labels_to_json(computed[0]))

        known = cache.get_or_compute(_cache_key(model, table.columns), compute)
        return computed[0] if computed else _array(orjson.loads(known), model)


def _cache_key(model: LoadedModel, columns: Columns) -> bytes:
    """The cache key of a model's predictions for a table."""
    # The reference begins with the tenant, so no tenant is answered with the entry of another. The digest of the
    # artifact is included: a version that was deleted may be registered again with another artifact.
    digest = hashlib.sha256(f"labels\n{model.version.ref}\n{model.version.digest}\n".encode())
    for name, array in columns.items():
        values = array.tobytes() if array.dtype != object else _strings_to_bytes(array.tolist())
        digest.update(_strings_to_bytes([name, len(values)]))
        digest.update(values)
    return digest.digest()


def _strings_to_bytes(values: list[Any]) -> bytes:
    # Python strings may contain lone surrogates, which orjson refuses.
    return _to_json(values).encode("utf-8", "surrogatepass")


def _array(values: list[Any], model: LoadedModel) -> NDArray[Any]:
    if model.version.signature.output.kind is OutputKind.NUMBER:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    array = np.array(values)
    return array if array.tolist() == values else np.array(values, dtype=object)  # NumPy would convert mixed types
