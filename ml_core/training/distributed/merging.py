"""Exact merge: a pipeline fitted on shards. A task learns the encoding of a column; statistics of rows are added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from ml_core.domain.signature import OutputKind
from ml_core.evaluation.metrics import Answered, answer
from ml_core.training.distributed.shards import Shards, gather
from ml_core.training.distributed.tasks import gathered, quietly, warn_again
from ml_core.training.moments import Statistics, fit_from, summarize


def fit_shards(pipeline: Pipeline, table: Shards, target: NDArray[Any]) -> None:
    """Fit a pipeline of an encoder and naive Bayes or ridge, in place.

    The encoding is exactly that of ``Pipeline.fit``; the numbers of the estimator are within a relative 1e-9.
    """
    (_, encoder), (_, estimator) = pipeline.steps
    learn_encoding(encoder, table)
    classes = np.unique(target) if is_classifier(estimator) else None
    targets = np.split(target, np.cumsum([len(own) for own in table.rows])[:-1])
    parts = gathered(table.map(_summarize, ray.put(encoder), estimator, classes, each=targets))
    for _, given in parts:
        warn_again(given)
    fit_from(estimator, [statistics for statistics, _ in parts], classes)


def learn_encoding(encoder: Any, table: Shards) -> None:
    """Fit an encoder as its ``fit`` does, in place; a task learns a column."""
    rows, learners = ray.put(table.rows), encoder.learners(table)
    learned = gathered([_learn.remote(learn, rows, *table.pieces[name]) for name, learn in learners.items()])
    encoder.set_learned(dict(zip(learners, learned, strict=True)))


def answer_shards(pipeline: Pipeline, table: Shards, output: OutputKind) -> Answered:
    """The answers of a pipeline, see ``ml_core.evaluation.metrics.answer``; features are encoded when asked for."""
    answers = gathered(table.map(_answer, ray.put(pipeline), output))
    predicted = np.concatenate([labels for labels, _ in answers])
    probabilities = None if answers[0][1] is None else np.concatenate([each for _, each in answers])
    return Answered(_Features(pipeline.steps[0][1], table), predicted, probabilities)


@dataclass(frozen=True, slots=True)
class _Features:
    """The features of shards: ``features[rows]`` are those of ``(n,)`` ascending row numbers."""

    encoder: Any
    table: Shards

    def __getitem__(self, rows: NDArray[np.intp]) -> Any:
        return self.encoder.transform(dict(self.table.take(rows)))


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
    pipeline: Pipeline,
    output: OutputKind,
    _each: None,
    names: list[str],
    rows: NDArray[np.intp],
    *arrays: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """The predictions for a shard's rows, and their probabilities."""
    columns = {name: array[rows] for name, array in zip(names, arrays, strict=True)}
    answered, _ = quietly(lambda: answer(pipeline, columns, output))
    return answered.predicted, answered.probabilities
