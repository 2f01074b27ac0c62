"""A forest by its trees, and any fit in one task."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
from joblib import parallel_config
from numpy.typing import NDArray
from scipy import sparse
from sklearn.pipeline import Pipeline

from ml_core.domain.columns import Columns
from ml_core.training.distributed.tasks import gathered, quietly, warn_again
from ml_core.training.pipelines import fit_pipeline
from ml_core.training.rounds import Checkpoints, Pace, key_of

_SLICES_PER_TASK = 2  # so that a slower core ends with fewer trees, and a lost worker loses less


def fit_forest(
    pipeline: Pipeline,
    columns: Columns,
    target: NDArray[Any] | None,
    weights: NDArray[np.float64] | None = None,
    *,
    tasks: int,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Fit a pipeline whose estimator is a random forest or extra trees; so many tasks grow slices of its trees.

    The forest equals that of ``Pipeline.fit`` bit by bit: ``warm_start`` makes scikit-learn skip the random numbers of
    the trees that are there already, so each slice is grown with the seeds of its place. The rows are encoded here and
    stored in Ray once. With checkpoints it goes on from the trees of an earlier attempt.
    """
    key, features = key_of(pipeline), columns  # before its steps are fitted
    for _, step in pipeline.steps[:-1]:
        features = step.fit_transform(features, target)
    name, forest = pipeline.steps[-1]
    rows = ray.put((_as_trees_read(features), target, weights))
    fitted: Any = None if checkpoints is None else checkpoints.load(key)
    pace = None if checkpoints is None else Pace(checkpoints, key)
    trees = [] if fitted is None else fitted.estimators_
    total = forest.n_estimators
    bounds = np.linspace(len(trees), total, min(_SLICES_PER_TASK * tasks, total - len(trees)) + 1).astype(int)
    slices = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    for ref in [_grow.remote(forest, rows, start, stop) for start, stop in slices]:
        first, more, given = gathered(ref)
        fitted, trees = fitted if first is None else first, trees + more
        fitted.estimators_ = trees
        fitted.set_params(n_estimators=len(trees), n_jobs=forest.n_jobs)
        warn_again([each for each in given if "warm_start" not in each[1]])
        if pace is not None:
            pace.reached(fitted, len(trees), total)
    pipeline.steps[-1] = (name, fitted)


def _as_trees_read(features: Any) -> Any:
    """The features in the type in which a forest reads them, which it would convert to in each task."""
    if sparse.issparse(features):
        features = features.tocsc().astype(np.float32)
        features.sort_indices()
        return features
    return np.ascontiguousarray(features, dtype=np.float32)


@ray.remote(num_cpus=1)
def _grow(forest: Any, rows: tuple[Any, ...], start: int, stop: int) -> tuple[Any, list[Any], Any]:
    """The forest of the first slice, else None; the trees from ``start`` to before ``stop``; the warnings."""
    forest.set_params(n_estimators=stop, n_jobs=1)
    if start:
        forest.set_params(warm_start=True)
        forest.estimators_ = [None] * start
    _, given = quietly(lambda: forest.fit(*rows))
    return (None if start else forest), forest.estimators_[start:], given


def fit_in_one_task(
    pipeline: Pipeline,
    columns: Columns,
    target: NDArray[Any] | None,
    weights: NDArray[np.float64] | None = None,
    *,
    threads: int,
) -> None:
    """Fit a pipeline in one task with as many cores as threads, which an estimator with ``n_jobs`` uses."""
    fit = _fit.options(num_cpus=threads)
    fitted, given = gathered(fit.remote(pipeline, ray.put((columns, target, weights)), threads))
    pipeline.steps = fitted.steps
    warn_again(given)


@ray.remote
def _fit(pipeline: Pipeline, rows: tuple[Any, ...], threads: int) -> tuple[Pipeline, Any]:
    with parallel_config(backend="threading", n_jobs=threads):
        _, given = quietly(lambda: fit_pipeline(pipeline, *rows))
    return pipeline, given
