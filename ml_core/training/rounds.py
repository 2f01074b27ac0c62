"""Fits that grow in rounds, so that another attempt goes on where a lost one was.

Forests and boosted trees of scikit-learn go on from their first trees with ``warm_start``, and end as if they had not
been interrupted, bit by bit. Other algorithms are fitted in one go.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline

from ml_core.training.forest_size import FORESTS
from ml_core.training.pipelines import fit_pipeline
from ml_core.training.provenance import library_versions

_BOOSTING = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
_FIRST_SHARE = 20
"""The first slice is a twentieth of the rounds; the others take as many as ``SLICE_S`` seconds seem to allow."""
SLICE_S = 10.0
"""About the seconds between two checkpoints."""
_SAVE_TIMES = 10
"""Until the next checkpoint as long passes as the last one took to write, at least so many times."""


class Checkpoints(Protocol):
    """What a fit in rounds writes down."""

    def load(self, key: str) -> Any:
        """The fitted estimator that ``save`` got last under the key, in any attempt; None: there is none."""

    def save(self, key: str, estimator: Any) -> None:
        """Keep a fitted estimator. What fails costs another attempt time and nothing else."""

    @property
    def advance(self) -> Callable[[int, int], object]:
        """Called with the rounds that are done, and all."""


class Pace:
    """Writes checkpoints of one fit, at most every so many seconds, and seldom where writing takes long."""

    def __init__(self, checkpoints: Checkpoints, key: str) -> None:
        self._checkpoints, self._key = checkpoints, key
        self._next = time.monotonic() + SLICE_S

    def reached(self, estimator: Any, done: int, total: int) -> None:
        """An estimator was fitted in so many of so many rounds."""
        self._checkpoints.advance(done, total)
        began = time.monotonic()
        if done < total and began >= self._next:
            self._checkpoints.save(self._key, estimator)
            now = time.monotonic()
            self._next = now + max(SLICE_S, _SAVE_TIMES * (now - began))


def fit_in_rounds(
    pipeline: Pipeline,
    columns: Any,
    target: NDArray[Any] | None,
    weights: NDArray[Any] | None = None,
    *,
    checkpoints: Checkpoints,
) -> None:
    """Fit a pipeline in place as ``fit_pipeline`` does, from the checkpoint of an earlier attempt if there is one.

    Args:
        pipeline: Unfitted.
        columns: What it is fitted on.
        target: ``(n_rows,)``; None: it has none.
        weights: ``(n_rows,)``; None: rows count alike.
        checkpoints: Of this training.
    """
    name, estimator = pipeline.steps[-1]
    rounds = rounds_of(estimator, 0 if target is None else len(target))
    if rounds is None:
        fit_pipeline(pipeline, columns, target, weights)
        return
    key, total = key_of(pipeline), getattr(estimator, rounds)
    features: Any = columns
    for _, step in pipeline.steps[:-1]:
        features = step.fit_transform(features, target)
    if (known := checkpoints.load(key)) is not None:
        estimator = known
    pace, done = Pace(checkpoints, key), rounds_in(estimator)
    count = max(1, total // _FIRST_SHARE)
    while done < total:
        began, count = time.monotonic(), min(count, total - done)
        with growing(estimator):
            estimator.set_params(**{rounds: done + count}).fit(features, target, sample_weight=weights)
        done += count
        pace.reached(estimator, done, total)
        count = max(1, int(count * SLICE_S / max(time.monotonic() - began, 1e-6)))
    pipeline.steps[-1] = (name, estimator)


def rounds_of(estimator: Any, n_rows: int) -> str | None:
    """The hyperparameter that counts the rounds in which an unfitted estimator can be fitted; None: it can't.

    Boosted trees that draw features go on with other random numbers, and those that stop early may stop elsewhere.
    """
    if isinstance(estimator, FORESTS):
        return None if estimator.warm_start or estimator.oob_score else "n_estimators"
    if not isinstance(estimator, _BOOSTING) or estimator.warm_start or estimator.max_features != 1.0:
        return None
    # scikit-learn decides "auto" by the number of rows.
    runs_all = estimator.early_stopping is False or (estimator.early_stopping == "auto" and n_rows <= 10_000)
    return "max_iter" if runs_all else None


def rounds_in(estimator: Any) -> int:
    """The rounds that an estimator was fitted in."""
    return len(getattr(estimator, "estimators_", getattr(estimator, "_predictors", ())))


@contextmanager
def growing(estimator: Any) -> Iterator[None]:
    """While the block runs, a fit adds to the trees that are there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*warm_start.*")  # of class weights, which are of the same rows
        estimator.set_params(warm_start=True)
        try:
            yield
        finally:
            estimator.set_params(warm_start=False)


def key_of(pipeline: Pipeline) -> str:
    """A name for what an unfitted pipeline becomes on given rows: its steps, their parameters, and the libraries."""
    parameters: Mapping[str, Any] = pipeline.get_params()
    steps = [
        f"{name}={type(value).__name__ if hasattr(value, 'get_params') else value!r}"
        for name, value in parameters.items()
    ]
    return hashlib.sha256(repr((sorted(steps), sorted(library_versions().items()))).encode()).hexdigest()[:16]
