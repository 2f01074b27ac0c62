"""Explaining the predictions of a loaded model: how much each raw input column added to the score of a row.

Contributions of encoded features (the words of a text, the parts of a date, the values of a category, the flag of a
missing number) are added up to the column that they come from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ml_core.data.encoding.table import TableEncoder
from ml_core.domain.columns import Columns, n_rows, take
from ml_core.domain.explanation import Explanation, Method, Unit, joined
from ml_core.domain.signature import OutputKind
from ml_core.evaluation.exact_contributions import Exact, exact
from ml_core.evaluation.sampled_shapley import predictions_per_row, sampled_shapley
from ml_core.exceptions import PredictionError
from ml_core.models.loading import LoadedModel, labels_to_json

Contributions = tuple[NDArray[np.float64], NDArray[np.float64], list[Mapping[str, Mapping[str, float]]]]
_WORDS = 5
# Numbers in the contributions of encoded features that are computed at once: 32 MiB.
_CHUNK = 2**22
# A prediction costs at least so much, in units of TreeShap's, each of which takes so many seconds.
_PREDICTION_WORK = 10_000
_OPERATION_S = 5e-9
_TIMED_ROWS = 256


class Explainer:
    """Explains the predictions of one model. Thread-safe.

    Attributes:
        rows_at_once: Rows that ``explain`` takes in one step.
        work_per_row: Elementary operations for a row, about; one takes some nanoseconds.

    Raises:
        PredictionError: The version has no rows to compare with.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        encoder, found = _exact_of(model)
        self._explained: _OfFeatures | _BySampling
        if encoder is not None and found is not None:
            self._explained = _OfFeatures(model, encoder, found)
        else:
            self._explained = _BySampling(model)
        self.rows_at_once = self._explained.rows_at_once
        self.work_per_row = self._explained.work_per_row

    def explain(self, columns: Columns) -> Explanation:
        """Explain canonical columns of at least one row, as from ``version.signature.columns_from_rows``.

        Raises:
            PredictionError: The pipeline failed on rows that fit the signature.
        """
        rows, size = n_rows(columns), self.rows_at_once
        return joined([self._step(take(columns, slice(i, i + size))) for i in range(0, rows, size)])

    def _step(self, columns: Columns) -> Explanation:
        of, signature = self._explained, self._model.version.signature
        answers = labels_to_json(self._model.predict(columns))
        try:
            base, contributions, words = of.contributions(columns, answers)
        except PredictionError:
            raise
        except Exception as error:  # estimators and processors of callers may raise anything
            raise _failed(self._model, error) from error
        names = tuple(column.name for column in signature.inputs)
        classes = signature.output.classes if base.shape[1] > 1 else ()
        return Explanation(of.method, of.unit, names, classes, answers, base, contributions, words)


class _OfFeatures:
    """Exact contributions of encoded features, added up by raw column."""

    def __init__(self, model: LoadedModel, encoder: TableEncoder, found: Exact) -> None:
        signature = model.version.signature
        self.method, self.unit, self._encoder, self._exact = found.method, found.unit, encoder, found
        self._numbers = {label: number for number, label in enumerate(signature.output.classes)}
        self._is_mirrored = len(found.base) == 1 and len(self._numbers) == 2
        positions = {column.name: position for position, column in enumerate(signature.inputs)}
        owners = [positions[name] for name in encoder.feature_columns]
        n_features, n_scores = len(owners), len(found.base)
        self._to_columns = sparse.csr_matrix(
            (np.ones(n_features), (owners, np.arange(n_features))), shape=(len(positions), n_features)
        )
        self._texts: list[tuple[str, int, list[str]]] = []
        start = n_features - sum(text.width for text in encoder.texts_)
        for text in encoder.texts_:
            self._texts.append((text.name, start, text.terms))
            start += text.width
        self.rows_at_once = max(1, _CHUNK // (n_features * n_scores))
        self.work_per_row = found.work_per_row + n_features * n_scores

    def contributions(self, columns: Columns, answers: list[Any]) -> Contributions:
        encoded = self._encoder.transform(columns)
        X = encoded.toarray() if sparse.issparse(encoded) else encoded
        by_feature = self._exact.contributions(X)
        n_features, rows, n_scores = by_feature.shape
        summed = self._to_columns @ by_feature.reshape(n_features, rows * n_scores)
        by_column = summed.reshape(-1, rows, n_scores).swapaxes(0, 1)
        base = np.broadcast_to(self._exact.base, (rows, n_scores))
        if self._is_mirrored:  # the score of the first class follows from that of the second
            total = 1.0 if self.unit is Unit.PROBABILITY else 0.0
            by_feature = np.concatenate([-by_feature, by_feature], axis=2)
            by_column = np.concatenate([-by_column, by_column], axis=2)
            base = np.concatenate([total - base, base], axis=1)
        numbers = [self._numbers.get(answer, 0) for answer in answers]
        return base, by_column, [self._words(X[r], by_feature[:, r, number]) for r, number in enumerate(numbers)]

    def _words(self, features: NDArray[np.float64], parts: NDArray[np.float64]) -> Mapping[str, Mapping[str, float]]:
        """The strongest words of each text of a row."""
        found: dict[str, Mapping[str, float]] = {}
        for name, start, terms in self._texts:
            present = np.flatnonzero(features[start : start + len(terms)])
            strongest = present[np.argsort(-np.abs(parts[start + present]), kind="stable")][:_WORDS]
            found[name] = {terms[term]: float(parts[start + term]) for term in strongest}
        return found


class _BySampling:
    """Contributions of raw columns to any score, compared with the rows of the version's self-test."""

    method = Method.PERMUTATION
    rows_at_once = 1

    def __init__(self, model: LoadedModel) -> None:
        signature, rows = model.version.signature, model.version.self_test.rows
        if not rows or not signature.inputs:
            raise PredictionError(
                f"{model.version.ref} can't be explained: it has no rows to compare with.",
                remedy="Register it again with sample=, some rows of the table that it was fitted on.",
                **model.version.ref.attributes,
            )
        self._model, self._kind = model, signature.output.kind
        self._background = signature.columns_from_rows(rows)
        self.unit = self._unit()
        n_predictions = predictions_per_row(len(signature.inputs), len(rows))
        self.work_per_row = n_predictions * max(_PREDICTION_WORK, self._prediction_work())

    def contributions(self, columns: Columns, answers: list[Any]) -> Contributions:
        found = []
        for row, answer in enumerate(answers):
            one = take(columns, slice(row, row + 1))
            found.append(sampled_shapley(partial(self._score, answer), one, self._background))
        return np.stack([base for base, _ in found]), np.stack([parts for _, parts in found]), [{} for _ in answers]

    def _prediction_work(self) -> int:
        """What one of many predictions costs, measured: of a neighbour search a thousand times that of a line."""
        rows = take(self._background, np.arange(_TIMED_ROWS) % n_rows(self._background))
        began = time.perf_counter()
        self._model.predict(rows)
        return int((time.perf_counter() - began) / _TIMED_ROWS / _OPERATION_S)

    def _unit(self) -> Unit:
        if self._kind is OutputKind.NUMBER:
            return Unit.TARGET
        if self._kind is OutputKind.CLASSES and self._model.has_probabilities:
            return Unit.PROBABILITY
        if self._model.version.signature.output.threshold is not None:
            return Unit.ANOMALY
        return Unit.AGREEMENT

    def _score(self, answer: Any, columns: Columns) -> NDArray[np.float64]:
        if self.unit is Unit.PROBABILITY:
            _, probabilities = self._model.predict_both(columns)
            return np.asarray(probabilities, dtype=np.float64)
        if self.unit is Unit.ANOMALY:
            return self._model.predict_scored(columns)[1].reshape(-1, 1)
        predicted = self._model.predict(columns)
        if self.unit is Unit.TARGET:
            return np.asarray(predicted, dtype=np.float64).reshape(-1, 1)
        return np.array([[float(label == answer)] for label in labels_to_json(predicted)])


def _exact_of(model: LoadedModel) -> tuple[TableEncoder | None, Exact | None]:
    """The encoder and the exact contributions of a pipeline of the platform's own steps."""
    steps: Sequence[Any] = getattr(model.pipeline, "steps", ())
    if len(steps) != 2 or type(steps[0][1]) is not TableEncoder:
        return None, None
    encoder = steps[0][1]
    try:
        return encoder, exact(steps[1][1], encoder.reference)
    except ValueError:  # nodes that are not trees: the model answers, so it can be sampled
        return None, None


def _failed(model: LoadedModel, error: Exception) -> PredictionError:
    ref = model.version.ref
    return PredictionError.wrap(
        error,
        f"{ref} could not be explained",
        remedy="Compare the rows with the training data. If valid rows fail too, train the version again.",
        **ref.attributes,
    )
