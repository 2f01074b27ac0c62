"""From a version in the registry to a model that may answer: read → audit → construct → tune → self-test.

``load_version`` is the only way by which a server obtains a model. A version that fails at any step is not returned,
so that whoever asked keeps what it served before.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import Columns, n_rows
from ml_core.domain.signature import OutputKind, Row
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import ModelLoadError, PredictionError
from ml_core.models.algorithms import ALGORITHMS, CLASSIFICATION
from ml_core.models.formats import skops_format
from ml_core.models.memory import measure_bytes
from ml_core.models.store import ArtifactStore
from ml_core.models.tuning import tune_for_serving

if TYPE_CHECKING:
    import pandas as pd

# Numbers of a reloaded model may differ from those of the training process in the last bits only: the order in which
# BLAS adds depends on its thread count. Labels must be equal.
SELF_TEST_TOLERANCE = 1e-6
_MOST_PROBABLE = frozenset(algorithm.class_name for algorithm in ALGORITHMS[CLASSIFICATION].values())


class LoadedModel:
    """A version's pipeline in memory, ready to answer; thread-safe, since answering changes nothing.

    Attributes:
        version: What was loaded.
        pipeline: The fitted scikit-learn pipeline (or a single estimator that a caller brought).
    """

    __slots__ = ("_classes", "_estimator", "_memory_bytes", "_takes_columns", "_transformers", "pipeline", "version")

    def __init__(self, version: ServableVersion, pipeline: Any) -> None:
        self.version = version
        self.pipeline = pipeline
        steps = [step for _, step in pipeline.steps] if hasattr(pipeline, "steps") else [pipeline]
        # scikit-learn's Pipeline.predict routes metadata on each call, 50 µs that a short model feels.
        self._transformers = tuple(step for step in steps[:-1] if step not in (None, "passthrough"))
        self._estimator = steps[-1]
        self._takes_columns = takes_columns(steps[0])
        self._classes = getattr(self._estimator, "classes_", None)
        self._memory_bytes: int | None = None

    @property
    def memory_bytes(self) -> int:
        """Bytes that the pipeline occupies, measured by walking it when first asked."""
        if self._memory_bytes is None:
            self._memory_bytes = measure_bytes(self.pipeline)
        return self._memory_bytes

    @property
    def has_probabilities(self) -> bool:
        """Whether ``predict_proba`` answers."""
        return self._classes is not None and hasattr(self._estimator, "predict_proba")

    def predict(self, columns: Columns) -> NDArray[Any]:
        """One prediction a row.

        Args:
            columns: Canonical columns as ``version.signature.columns_from_rows`` makes them.

        Returns:
            ``(n_rows,)``: labels in their own dtype (str, int, float or bool) for a classifier, ``float64`` for a
            regressor, cluster numbers (``int``, from 0), or -1 for an anomaly and 1 for a normal row.

        Raises:
            PredictionError: The pipeline failed on rows that fit the signature.
        """
        return self._run(columns, proba=False)[0]

    def predict_proba(self, columns: Columns) -> NDArray[np.float64] | None:
        """Class probabilities ``(n_rows, n_classes) float64`` in the order of ``version.signature.output.classes``.

        None when the model has no probabilities.

        Raises:
            PredictionError: The pipeline failed on rows that fit the signature.
        """
        return self._run(columns, proba=True)[1]

    def predict_both(self, columns: Columns) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """``predict`` and ``predict_proba`` of the same rows, encoding them once.

        Raises:
            PredictionError: The pipeline failed on rows that fit the signature.
        """
        return self._run(columns, proba=True)

    def predict_rows(self, rows: Sequence[Row]) -> list[Any]:
        """JSON-safe predictions of raw rows.

        Raises:
            SignatureMismatchError: A row does not fit the signature.
            PredictionError: The pipeline failed.
        """
        return labels_to_json(self.predict(self.version.signature.columns_from_rows(rows)))

    def predict_frame(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Predictions of a raw data frame, see ``predict``.

        Raises:
            SignatureMismatchError: A column or value does not fit the signature.
            PredictionError: The pipeline failed.
        """
        from ml_core.data.canonical import columns_from_frame  # pandas: only for callers that have a frame

        return self.predict(columns_from_frame(frame, self.version.signature.inputs))

    def _run(self, columns: Columns, *, proba: bool) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        if n_rows(columns) == 0:
            return self._empty()
        try:
            table: Any = columns if self._takes_columns else self._foreign_input(columns)
            for transformer in self._transformers:
                table = transformer.transform(table)
            if not proba or not self.has_probabilities:
                return np.asarray(self._estimator.predict(table)), None
            probabilities = np.asarray(self._estimator.predict_proba(table), dtype=np.float64)
            return self._labels(table, probabilities), probabilities
        except Exception as error:  # an estimator or processor of the caller's own can raise anything
            ref = self.version.ref
            raise PredictionError.wrap(
                error,
                f"{ref} could not predict",
                remedy="Compare the rows with those of training; if usual rows fail too, roll back to another version.",
                tenant_id=ref.tenant_id,
                model_id=ref.model_id,
                version=ref.version,
            ) from error

    def _labels(self, table: Any, probabilities: NDArray[np.float64]) -> NDArray[Any]:
        # Every algorithm of the platform's predicts the most probable class. Others may not: a support vector machine,
        # or a classifier with a threshold of its own.
        if self._classes is None or type(self._estimator).__name__ not in _MOST_PROBABLE:
            return np.asarray(self._estimator.predict(table))
        labels: NDArray[Any] = np.asarray(self._classes)[probabilities.argmax(axis=1)]
        return labels

    def _empty(self) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        classes = np.asarray([] if self._classes is None else self._classes)
        return classes[:0], np.empty((0, len(classes))) if self.has_probabilities else None

    def _foreign_input(self, columns: Columns) -> Any:
        """What an estimator that a caller brought takes: a frame if it was fitted on one, else a matrix."""
        inputs = self.version.signature.inputs
        first = self._transformers[0] if self._transformers else self._estimator
        if hasattr(first, "feature_names_in_") or not all(column.kind.is_numeric for column in inputs):
            import pandas as pd

            return pd.DataFrame({column.name: columns[column.name] for column in inputs})
        return np.column_stack([columns[column.name] for column in inputs])


def takes_columns(step: Any) -> bool:
    """Whether a pipeline's first step takes canonical columns, as the platform's own do; else it takes a table."""
    return any(base.__module__.startswith("ml_core.data.") for base in type(step).__mro__)


def labels_to_json(predictions: NDArray[Any]) -> list[Any]:
    """Predictions as JSON values: Python ints, strings, booleans and floats; a float that is not finite is None."""
    values = predictions.tolist()
    if predictions.dtype.kind in "fO":
        return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]
    return list(values)


def load_version(store: ArtifactStore, version: ServableVersion, *, own_types: Collection[str] = ()) -> LoadedModel:
    """Load a version and prove that it answers as it did in training.

    Args:
        store: Where its bytes are.
        version: What the registry says of it: digest, size, format, signature and self-test.
        own_types: Types that the calling process vouches for besides the platform's list, see
            ``ml_core.models.own_types``. A server gives none.

    Returns:
        The model, tuned for serving.

    Raises:
        ArtifactIntegrityError: The bytes are missing or are not those that were registered.
        UnsafeArtifactError: The bytes hold a type outside the platform's list, or are no skops archive.
        ModelLoadError: The format is unknown, the pipeline can't be built, or the self-test failed.
    """
    try:
        if version.format != skops_format.FORMAT:
            raise ModelLoadError(
                f"The format {version.format!r} is not one that this release can load.",
                remedy=f"Register the model again as {skops_format.FORMAT}.",
            )
        data = store.read(version.ref.tenant_id, version.digest, version.size_bytes)
        return open_version(data, version, own_types=own_types)
    except ModelLoadError as error:
        ref = version.ref
        error.tenant_id = ref.tenant_id
        error.__dict__.update(model_id=str(ref.model_id), version=str(ref.version), digest=str(version.digest))
        raise


def open_version(data: bytes, version: ServableVersion, *, own_types: Collection[str] = ()) -> LoadedModel:
    """As ``load_version``, from bytes that were verified already.

    Raises:
        UnsafeArtifactError: The bytes hold a type outside the platform's list, or are no skops archive.
        ModelLoadError: The pipeline can't be built, or the self-test failed.
    """
    pipeline = skops_format.load(data, own_types=own_types)
    tune_for_serving(pipeline)
    model = LoadedModel(version, pipeline)
    check_self_test(model)
    return model


def check_self_test(model: LoadedModel) -> None:
    """Ask a loaded model the rows that were recorded in training and compare.

    Raises:
        ModelLoadError: It can't answer them or answers otherwise.
    """
    test = model.version.self_test
    if not test.rows:
        return
    try:
        columns = model.version.signature.columns_from_rows(test.rows)
        predictions, probabilities = model.predict_both(columns)
    except PredictionError as error:
        raise ModelLoadError(
            f"{model.version.ref} failed its self-test: {error.message}",
            remedy="Train and register it again with the library versions of this process.",
        ) from error
    expects_numbers = model.version.signature.output.kind is OutputKind.NUMBER
    if expects_numbers:
        same = _close(predictions, test.predictions)
    else:
        same = labels_to_json(predictions) == list(test.predictions)
    if same and test.probabilities:
        same = probabilities is not None and _close(probabilities, test.probabilities)
    if not same:
        raise ModelLoadError(
            f"{model.version.ref} failed its self-test: it answers {len(test.rows)} recorded rows otherwise than it "
            "did when it was trained.",
            remedy="Train and register it again with the library versions of this process.",
        )


def _close(actual: NDArray[Any], expected: Sequence[Any]) -> bool:
    wanted = np.asarray(expected, dtype=np.float64)
    found = np.asarray(actual, dtype=np.float64)
    return found.shape == wanted.shape and bool(
        np.allclose(found, wanted, rtol=SELF_TEST_TOLERANCE, atol=SELF_TEST_TOLERANCE)
    )
