"""Exact merge: a pipeline fitted on shards. A task learns the encoding of a column; statistics of rows are added."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from ml_core.domain.signature import OutputKind
from ml_core.evaluation.metrics import Metrics, classification, regression
from ml_core.training.distributed.shards import Shards, gather
from ml_core.training.distributed.tasks import gathered, quietly, warn_again
from ml_core.training.moments import Statistics, fit_from, summarize


def fit_shards(pipeline: Pipeline, table: Shards, target: NDArray[Any]) -> None:
    """Fit a pipeline of an encoder and naive Bayes or ridge, in place.

    The encoding is exactly that of ``Pipeline.fit``; the numbers of the estimator are within a relative 1e-9.
    """
    (_, encoder), (_, estimator) = pipeline.steps
    rows, learners = ray.put(table.rows), encoder.learners(table)
    learned = gathered([_learn.remote(learn, rows, *table.pieces[name]) for name, learn in learners.items()])
    encoder.set_learned(dict(zip(learners, learned, strict=True)))
    classes = np.unique(target) if is_classifier(estimator) else None
    targets = np.split(target, np.cumsum([len(own) for own in table.rows])[:-1])
    parts = gathered(table.map(_summarize, ray.put(encoder), estimator, classes, each=targets))
    for _, given in parts:
        warn_again(given)
    fit_from(estimator, [statistics for statistics, _ in parts], classes)


def evaluate_shards(pipeline: Pipeline, table: Shards, truth: NDArray[Any], output: OutputKind) -> Metrics:
    """The metrics of a fitted pipeline, see ``ml_core.evaluation.metrics.evaluate``."""
    answers = gathered(table.map(_answer, ray.put(pipeline)))
    predicted = np.concatenate([labels for labels, _ in answers])
    if output is OutputKind.NUMBER:
        return regression(truth, predicted)
    has_probabilities = hasattr(pipeline, "predict_proba")
    probabilities = np.concatenate([each for _, each in answers]) if has_probabilities else None
    return classification(truth, predicted, probabilities, pipeline.classes_)


@ray.remote(num_cpus=1)
def _learn(learn: Any, rows: list[NDArray[np.intp]], *pieces: NDArray[Any]) -> Any:
    return learn(gather(rows, *pieces))


@ray.remote(num_cpus=1)
def _summarize(
    encoder: Any,
    estimator: Any,
    classes: NDArray[Any] | None,
    target: NDArray[Any],
    names: list[str],
    rows: NDArray[np.intp],
    *arrays: NDArray[Any],
) -> tuple[Statistics, Any]:
    columns = {name: array[rows] for name, array in zip(names, arrays, strict=True)}
    return quietly(lambda: summarize(estimator, encoder.transform(columns), target, classes))


@ray.remote(num_cpus=1)
def _answer(
    pipeline: Pipeline, _each: None, names: list[str], rows: NDArray[np.intp], *arrays: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """The predictions for a shard's rows, and their probabilities."""
    columns = {name: array[rows] for name, array in zip(names, arrays, strict=True)}
    return quietly(lambda: _predict(pipeline, columns))[0]


def _predict(pipeline: Pipeline, columns: Any) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    estimator, features = pipeline.steps[-1][1], pipeline.steps[0][1].transform(columns)
    probabilities = estimator.predict_proba(features) if hasattr(estimator, "predict_proba") else None
    return estimator.predict(features), probabilities
