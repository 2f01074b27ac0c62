"""Loading of versions: read → audit → construct → tune → self-test.

Servers obtain models from ``load_version`` only.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OutlierMixin

from ml_core.domain.columns import Columns, n_rows
from ml_core.domain.signature import OutputKind, Row
from ml_core.domain.version import CompiledForm, ServableVersion
from ml_core.exceptions import (
    InvalidRequestError,
    MLFrameworkError,
    ModelLoadError,
    PredictionError,
    UnsafeArtifactError,
    shown,
)
from ml_core.models import own_types
from ml_core.models.algorithms import ALGORITHMS, CLASSIFICATION
from ml_core.models.ensembles import Answer, family_of
from ml_core.models.formats import skops_format
from ml_core.models.formats.archive import MAX_UNPACKED_BYTES
from ml_core.models.formulas import Answerer, formula_of
from ml_core.models.graph import measure_bytes, tune_for_serving
from ml_core.models.own_types import Trust
from ml_core.models.sessions import MAX_BYTES, UnusableFormError, memory_of, session_of
from ml_core.models.store import ArtifactStore

if TYPE_CHECKING:
    import pandas as pd

# Numbers of a loaded model may differ from those in training in the last bits, because the order of additions in BLAS
# depends on its thread count. Labels must be equal.
SELF_TEST_TOLERANCE = 1e-6
# Of estimators that compute in single precision.
_SUM_TOLERANCE = 1e-3
_NO_TRUST = Trust()
_MOST_PROBABLE = frozenset(algorithm.class_name for algorithm in ALGORITHMS[CLASSIFICATION].values())

_log = logging.getLogger(__name__)


class LoadedModel:
    """A loaded model: the pipeline of a version in memory. Thread-safe.

    Behind the platform's encoder the estimator is answered by its formula where it has one (``formulas``), and by its
    compiled form once that was given to ``use_compiled``, until that fails.

    Attributes:
        version: The version.
        pipeline: The fitted scikit-learn pipeline, or an estimator that the caller registered.
        uncompiled: Why the version's compiled form does not answer here, a sentence; None if it does or there is none.
    """

    __slots__ = (
        *("_classes", "_compiled", "_compiled_bytes", "_compiled_rows", "_estimator", "_formula", "_labels_known"),
        *("_memory_bytes", "_says_most_probable", "_takes_columns", "_transformers"),
        *("pipeline", "uncompiled", "version"),
    )

    def __init__(self, version: ServableVersion, pipeline: Any) -> None:
        self.version = version
        self.pipeline = pipeline
        self.uncompiled: str | None = None
        steps = [step for _, step in pipeline.steps] if hasattr(pipeline, "steps") else [pipeline]
        # The steps are called one by one: Pipeline.predict routes metadata on each call, which takes 50 µs.
        self._transformers = tuple(step for step in steps[:-1] if step not in (None, "passthrough"))
        self._estimator = steps[-1]
        self._takes_columns = takes_columns(steps[0])
        self._classes = getattr(self._estimator, "classes_", None)
        # Other steps may give what the checks of scikit-learn are for.
        self._formula = formula_of(self._estimator) if self.encoder is not None else None
        self._compiled: Answerer | None = None
        self._compiled_rows = self._compiled_bytes = 0
        # The platform's algorithms predict the most probable class. Other estimators may not, such as a support vector
        # machine or a classifier with a threshold.
        self._says_most_probable = type(self._estimator).__name__ in _MOST_PROBABLE
        output = version.signature.output
        self._labels_known = frozenset(output.classes) if output.kind is OutputKind.CLASSES else None
        self._memory_bytes: int | None = None

    @property
    def encoder(self) -> Any:
        """The platform's ``TableEncoder``, if nothing else is between the columns and the estimator; else None."""
        first = self._transformers[0] if len(self._transformers) == 1 else None
        return first if type(first).__module__ == "ml_core.data.encoding.table" else None  # it would import pandas

    def use_compiled(self, run: Callable[[Any], NDArray[np.float64]], form: CompiledForm) -> None:
        """Answer by a session of the compiled form, for requests of as many rows as it is faster for.

        Raises:
            ValueError: The estimator is of no kind that is compiled.
        """
        family = family_of(self._estimator)
        if family is None:
            raise ValueError(f"{type(self._estimator).__name__} is not compiled")
        answer = family.answer(self._estimator)
        self._compiled_rows = sys.maxsize if form.max_rows is None else form.max_rows
        self._compiled_bytes = memory_of(form.size_bytes)
        self._compiled = lambda features: answer(run(features))

    @property
    def is_compiled(self) -> bool:
        """Whether its compiled form answers requests."""
        return self._compiled_rows > 0

    def use_original(self, why: str) -> None:
        """Answer without the compiled form."""
        self._compiled, self._compiled_rows, self._compiled_bytes, self.uncompiled = None, 0, 0, why

    @property
    def memory_bytes(self) -> int:
        """Size of the pipeline, its signature, long documents and compiled form in memory, measured on first access."""
        if self._memory_bytes is None:
            self._memory_bytes = measure_bytes((self.pipeline, self.version.signature)) + self.version.long_bytes
        return self._memory_bytes + self._compiled_bytes

    @property
    def has_probabilities(self) -> bool:
        """Whether the model has probabilities."""
        return self._classes is not None and hasattr(self._estimator, "predict_proba")

    def predict(self, columns: Columns) -> NDArray[Any]:
        """Predict canonical columns, as from ``version.signature.columns_from_rows``.

        Returns:
            ``(n_rows,)``: labels (str, int, float or bool) of a classifier, ``float64`` of a regressor, cluster numbers
            from 0, or -1 for an anomaly and 1 for a normal row.

        Raises:
            PredictionError: The pipeline failed on rows that fit the signature.
        """
        return self.predict_both(columns, proba=False)[0]

    def predict_proba(self, columns: Columns) -> NDArray[np.float64] | None:
        """Class probabilities ``(n_rows, n_classes) float64`` in the order of ``version.signature.output.classes``.

        None if the model has no probabilities. Raises as ``predict``.
        """
        return self.predict_both(columns)[1]

    def predict_scored(self, columns: Columns) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """``predict``, and ``(n_rows,)`` anomaly scores: above ``output.threshold`` a row is an anomaly.

        The unit is the estimator's: of an isolation forest 0 to 1, where 0.5 is an average row (Liu et al., 2008).

        Raises:
            InvalidRequestError: The model has no scores.
            PredictionError: The pipeline failed on rows that fit the signature.
        """
        check_scores(self.version)
        rows = n_rows(columns)
        if rows == 0:
            return np.empty(0, dtype=np.int64), np.empty(0)
        with self._failing():
            table = self._encoded(columns)
            if (answer := self._quick(table, rows)) is not None and answer.scores is not None:
                return answer.predictions, answer.scores
            scores = -np.array(self._estimator.score_samples(table), dtype=np.float64)
            _check_shape("scores", scores, (rows,))
            return self._predicted(table, rows), scores

    def predict_rows(self, rows: Sequence[Row]) -> list[Any]:
        """Predict raw rows; the predictions are JSON-compatible.

        Raises:
            SignatureMismatchError: A row does not fit the signature.
            PredictionError: The pipeline failed.
        """
        return labels_to_json(self.predict(self.version.signature.columns_from_rows(rows)))

    def predict_frame(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Predict a raw data frame, see ``predict``.

        Raises:
            SignatureMismatchError: A column or value does not fit the signature.
            PredictionError: The pipeline failed.
        """
        from ml_core.data.canonical import columns_from_frame  # imports pandas, which serving does not need

        return self.predict(columns_from_frame(frame, self.version.signature.inputs))

    def predict_both(self, columns: Columns, *, proba: bool = True) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """``predict`` and ``predict_proba`` in one call, which encodes the rows once; without ``proba`` only the first.

        Raises as ``predict``.
        """
        rows = n_rows(columns)
        if rows == 0:
            return self._empty()
        with self._failing():
            table = self._encoded(columns)
            if (answer := self._quick(table, rows)) is not None:
                if not proba or answer.probabilities is None:
                    return answer.predictions, None
                return answer.predictions, self._checked(answer.probabilities, rows)
            if not proba or not self.has_probabilities:
                return self._predicted(table, rows), None
            # A copy, because an estimator of a caller may change its input.
            probabilities = self._probabilities(table if self._says_most_probable else table.copy(), rows)
            return self._labels(table, probabilities), probabilities

    def _quick(self, table: Any, rows: int) -> Answer | None:
        """The answer to encoded rows without the methods of scikit-learn, if there is a form for so many."""
        if self._compiled is not None and rows <= self._compiled_rows:
            try:
                return self._compiled(table)
            except Exception as error:  # noqa: BLE001 - of onnxruntime, such as for want of memory
                self._compiled_rows = 0  # for good; the session stays, as its memory is counted
                _log.warning("%s is answered by its original form: %s", self.version.ref, shown(str(error), 300))
        return None if self._formula is None else self._formula(table)

    def _encoded(self, columns: Columns) -> Any:
        table: Any = self._table_of(columns)
        for transformer in self._transformers:
            table = transformer.transform(table)
        return table

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Errors of the pipeline as ``PredictionError``."""
        try:
            yield
        except BaseException as error:  # estimators and processors of callers may raise anything, also SystemExit
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # the user's
            ref = self.version.ref
            raise PredictionError.wrap(
                error,
                f"{ref} could not predict",
                remedy="Compare the rows with the training data. If valid rows fail too, roll back to another version.",
                tenant_id=ref.tenant_id,
                model_id=ref.model_id,
                version=ref.version,
            ) from error

    def _labels(self, table: Any, probabilities: NDArray[np.float64]) -> NDArray[Any]:
        if not self._says_most_probable:
            return self._predicted(table, len(probabilities))
        labels: NDArray[Any] = np.asarray(self._classes)[probabilities.argmax(axis=1)]
        return labels

    def _predicted(self, table: Any, rows: int) -> NDArray[Any]:
        # A copy, because an estimator of a caller may return the same array each time. Checked, because a batch is
        # divided by position: one value too many or too few would give callers the answers of others.
        predictions = np.array(self._estimator.predict(table))
        _check_shape("predictions", predictions, (rows,))
        if self._labels_known is None:
            if predictions.dtype.kind not in "fiub":
                raise ValueError(f"The estimator returned predictions of the type {predictions.dtype}, not numbers")
        elif not self._labels_known.issuperset(predictions.tolist()):
            raise ValueError("The estimator returned a class that the signature does not have")
        return predictions

    def _probabilities(self, table: Any, rows: int) -> NDArray[np.float64]:
        return self._checked(np.array(self._estimator.predict_proba(table), dtype=np.float64), rows)

    def _checked(self, probabilities: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
        _check_shape("probabilities", probabilities, (rows, len(self.version.signature.output.classes)))
        # Also false for NaN, of which the most probable class would be the first. Summed in one call, since one for
        # each row would cost more than many models.
        if not abs(probabilities.sum() - rows) <= _SUM_TOLERANCE * rows:
            raise ValueError("The estimator returned probabilities whose sum is not 1")
        return probabilities

    def _empty(self) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        classes = np.asarray([] if self._classes is None else self._classes)
        return classes[:0], np.empty((0, len(classes))) if self.has_probabilities else None

    def _table_of(self, columns: Columns) -> Any:
        """The input of the pipeline: the columns; for a caller's own a frame if it was fitted on one, else a matrix."""
        if self._takes_columns:
            return columns
        inputs = self.version.signature.inputs
        first = self._transformers[0] if self._transformers else self._estimator
        if hasattr(first, "feature_names_in_") or not all(column.kind.is_numeric for column in inputs):
            import pandas as pd

            return pd.DataFrame({column.name: columns[column.name] for column in inputs})
        return np.column_stack([columns[column.name] for column in inputs])


class WrongShapeError(ValueError):
    """An estimator's answer has not one value, or one row of probabilities, for each row; the cause of an error."""

    def __init__(self, what: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        super().__init__(f"The estimator returned {what} of the shape {shape} instead of {wanted}")
        self.n_dimensions = len(shape)


def _check_shape(what: str, found: NDArray[Any], wanted: tuple[int, ...]) -> None:
    if found.shape != wanted:
        raise WrongShapeError(what, found.shape, wanted)


def takes_columns(step: Any) -> bool:
    """Whether the first step of a pipeline accepts canonical columns, as the platform's processors do."""
    return any(base.__module__.startswith("ml_core.data.") for base in type(step).__mro__)


def threshold_of(estimator: Any) -> float | None:
    """The anomaly score above which a fitted detector calls a row an anomaly; None of any other estimator.

    scikit-learn's detectors call a row one whose ``score_samples`` is below ``offset_``, which is fitted to
    ``contamination`` where the caller gave it.
    """
    offset = np.asarray(getattr(estimator, "offset_", None))
    is_detector = isinstance(estimator, OutlierMixin) and hasattr(estimator, "score_samples")
    if not is_detector or offset.size != 1 or offset.dtype.kind not in "fiu" or not np.isfinite(offset).all():
        return None
    return -float(offset.ravel()[0])


def check_scores(version: ServableVersion) -> None:
    """Check that a version has anomaly scores.

    Raises:
        InvalidRequestError: It has none.
    """
    if version.signature.output.threshold is None:
        raise InvalidRequestError(
            f"{version.ref} has no anomaly scores.", remedy="Ask a model of the type anomaly_detection.", field="scores"
        )


def labels_to_json(predictions: NDArray[Any]) -> list[Any]:
    """Convert predictions to JSON values; floats that are not finite become None."""
    values = predictions.tolist()
    if predictions.dtype.kind in "fO":
        return [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]
    return list(values)


def load_version(store: ArtifactStore, version: ServableVersion, trust: Trust = _NO_TRUST) -> LoadedModel:
    """Load, verify and self-test a version, and tune it for serving.

    ``trust`` has the types outside the allow-list that are loaded, see ``ml_core.models.own_types``.

    Raises:
        ArtifactIntegrityError: The artifact is missing or does not have the registered digest.
        UnsafeArtifactError: The artifact has a type outside the allow-list, or is not a skops archive. Names the
            modules that are not trusted or not installed.
        ModelLoadError: The format is unknown, the pipeline can't be constructed, or the self-test failed.
    """
    try:
        if version.format != skops_format.FORMAT:
            raise ModelLoadError(
                f"This release can't load the format {version.format!r}.",
                remedy=f"Register the model again as {skops_format.FORMAT}.",
            )
        if version.size_bytes > MAX_UNPACKED_BYTES:  # before it is in memory: a tenant could name any bytes of its own
            raise ModelLoadError(
                f"The artifact has {version.size_bytes:,} bytes; a replica loads at most {MAX_UNPACKED_BYTES:,}.",
                remedy="Train a smaller model.",
            )
        data = store.read(version.ref.tenant_id, version.digest, version.size_bytes)
        model = open_version(data, version, trust)
        if version.compiled is not None:
            _compile(model, store, version.compiled)
        return model
    except ModelLoadError as error:
        ref = version.ref
        error.tenant_id = ref.tenant_id
        error.__dict__.update(model_id=str(ref.model_id), version=str(ref.version), digest=str(version.digest))
        raise


def _compile(model: LoadedModel, store: ArtifactStore, form: CompiledForm) -> None:
    """Answer by the compiled form if it is intact, fits this process and passes the self-test; else say why not."""
    encoder, ref = model.encoder, model.version.ref
    try:
        if encoder is None:
            raise UnusableFormError("The pipeline is not the platform's encoder and an estimator.")
        if form.size_bytes > MAX_BYTES:
            raise UnusableFormError("The compiled form is too large.")
        data = store.read(ref.tenant_id, form.digest, form.size_bytes)
        run = session_of(data, form, encoder.n_features_out)
        model.use_compiled(run, replace(form, max_rows=None))  # or the original would pass a self-test of more rows
        check_self_test(model)
        if not model.is_compiled:
            raise UnusableFormError("The compiled form failed in the self-test.")
        model.use_compiled(run, form)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the derived form, the original answers
        why = error.message if isinstance(error, MLFrameworkError) else str(error)
        model.use_original(why)
        _log.warning("%s is answered by its original form: %s", ref, why)


def open_version(data: bytes, version: ServableVersion, trust: Trust = _NO_TRUST) -> LoadedModel:
    """``load_version`` for bytes whose digest was verified.

    Raises:
        UnsafeArtifactError, ModelLoadError: As for ``load_version``.
    """
    try:
        pipeline = skops_format.load(data, trust)
    except UnsafeArtifactError as error:
        types = error.attributes().get("types")
        if not types or not (reasons := trust.refusals(version.modules)):
            raise
        message = f"{error.message.removesuffix('.')}: {'; '.join(reasons)}."
        raise UnsafeArtifactError(message, remedy=own_types.REMEDY, types=types) from error
    tune_for_serving(pipeline)  # before the self-test, so that the tuned pipeline is tested
    model = LoadedModel(version, pipeline)
    check_self_test(model)
    for what in own_types.differing(version.modules):
        _log.warning("%s passed its self-test although %s.", version.ref, what)
    return model


def check_self_test(model: LoadedModel) -> None:
    """Predict the rows of the self-test and compare with the recorded predictions.

    Raises:
        ModelLoadError: The model failed or its predictions differ.
    """
    test = model.version.self_test
    if not test.rows:
        return
    try:
        columns = model.version.signature.columns_from_rows(test.rows)
        predictions, probabilities = model.predict_both(columns)
    except PredictionError as error:
        raise ModelLoadError(
            f"{model.version.ref} failed its self-test: {error.message}", remedy=_remedy(model.version)
        ) from error
    if model.version.signature.output.kind is OutputKind.NUMBER:
        same = _close(predictions, test.predictions)
    else:
        same = labels_to_json(predictions) == list(test.predictions)
    if same and test.probabilities:
        same = probabilities is not None and _close(probabilities, test.probabilities)
    if not same:
        raise ModelLoadError(
            f"{model.version.ref} failed its self-test: its predictions for {len(test.rows)} recorded rows differ from "
            "those in training.",
            remedy=_remedy(model.version),
        )


def _remedy(version: ServableVersion) -> str:
    differing = "".join(f" ({each})" for each in own_types.differing(version.modules))
    return f"Train and register it again with the library versions of this process{differing}."


def _close(actual: NDArray[Any], expected: Sequence[Any]) -> bool:
    wanted = np.asarray(expected, dtype=np.float64)
    found = np.asarray(actual, dtype=np.float64)
    return found.shape == wanted.shape and bool(
        np.allclose(found, wanted, rtol=SELF_TEST_TOLERANCE, atol=SELF_TEST_TOLERANCE)
    )
