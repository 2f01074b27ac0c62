"""Cross-validation of configurations on the same folds, with what does not depend on a configuration done once.

A pipeline is an encoding and an estimator. The encoding of a fold is fitted on the fold's own training rows, so none of
its test rows leaks into it; it is the same in each trial, so it is fitted once a fold and not once a trial.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline

from ml_core.domain.columns import take
from ml_core.domain.signature import OutputKind
from ml_core.evaluation.metrics import answer, evaluate
from ml_core.models.model_factory import ModelFactory
from ml_core.training.fit import encoding_steps, set_class_weights
from ml_core.training.provenance import row_digests
from ml_core.training.request import TrainingRequest
from ml_core.training.table import TrainingTable, can_be_kept_together
from ml_core.training.targets import invalid

Rows = NDArray[np.intp]

_SHARES = (1 / 9, 1 / 3, 1.0)
_MIN_ROWS_OF_SHARE = 100  # a score of fewer rows says little of the score of all


@dataclass(frozen=True, slots=True)
class EncodedFold:
    """One fold: the features and target of the rows to fit on and of those to measure on; targets may be None."""

    train: Any
    train_target: NDArray[Any] | None
    test: Any
    test_target: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class Objective:
    """What a configuration is measured by.

    Attributes:
        fixed: Hyperparameters that all configurations have.
    """

    model_type: str
    output: OutputKind
    metric: str
    fixed: Mapping[str, Any]

    def measure(
        self, folds: Sequence[EncodedFold], hyperparameters: Mapping[str, Any], share: float
    ) -> dict[str, float]:
        """Fit and measure a configuration on each fold.

        Args:
            folds: Encoded for the configuration's algorithm.
            hyperparameters: The configuration, with ``algorithm``.
            share: Of the training rows of each fold; the first ones are taken.

        Returns:
            Metric → mean over the folds, of the metrics that all folds have, and ``std``, the standard deviation of
            the metric that counts.

        Raises:
            TrainingError: The metric is not defined on a fold.
            Exception: What the estimator raises.
        """
        found = [self._of_fold(fold, hyperparameters, share) for fold in folds]
        if any(self.metric not in of for of in found):
            raise invalid(
                f"The metric {self.metric!r} is not defined on a fold.",
                "Choose by another metric; roc_auc needs two classes, silhouette two clusters.",
            )
        metrics = {
            name: float(np.mean([of[name] for of in found])) for name in found[0] if all(name in of for of in found)
        }
        return {**metrics, "std": float(np.std([of[self.metric] for of in found]))}

    def _of_fold(self, fold: EncodedFold, hyperparameters: Mapping[str, Any], share: float) -> dict[str, float]:
        rows = max(1, round(share * fold.train.shape[0]))
        target = None if fold.train_target is None else fold.train_target[:rows]
        estimator = ModelFactory.create_model(self.model_type, {**self.fixed, **hyperparameters})
        if self.output is OutputKind.CLASSES and target is not None:
            set_class_weights(estimator, target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the refit of the best one reports its own
            estimator.fit(fold.train[:rows], target)
            answered = answer(Pipeline([("estimate", estimator)]), fold.test, self.output)
            return evaluate(estimator, answered, fold.test_target, self.output)


def shares_of(n_rows: int, *, early_stopping: bool) -> tuple[float, ...]:
    """The shares of ``n_rows`` training rows on which a configuration is measured one after the other; 1 is last."""
    is_enough = [share == 1 or (early_stopping and share * n_rows >= _MIN_ROWS_OF_SHARE) for share in _SHARES]
    return tuple(share for share, kept in zip(_SHARES, is_enough, strict=True) if kept)


def encoded_folds(
    request: TrainingRequest, table: TrainingTable, folds: Sequence[tuple[Rows, Rows]], *, takes_sparse: bool
) -> Iterator[EncodedFold]:
    """The folds of a table's training part for estimators that take sparse matrices, or do not; one at a time.

    Raises:
        TrainingError: The texts are too many for a dense matrix.
    """
    columns, target = table.train.columns, table.train.target
    for train, test in folds:
        steps = Pipeline(encoding_steps(request, table, takes_sparse=takes_sparse))
        targets = [None if target is None else target[rows] for rows in (train, test)]
        yield EncodedFold(
            steps.fit_transform(take(columns, train), targets[0]),
            targets[0],
            steps.transform(take(columns, test)),
            targets[1],
        )


def divide_into_folds(table: TrainingTable, output: OutputKind, count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Divide the training part of a table: the rows to fit on and to measure on, of each fold.

    Equal rows are in one fold, as in the split of the training itself, and classes have their shares in each. The rows
    to fit on are in an order of which every beginning has each class, with about its share.

    Raises:
        TrainingError: There are fewer rows, or rows of a class, than folds.
    """
    n_rows, target = table.train.n_rows, table.train.target
    digests = row_digests(table.train.columns, table.inputs)
    codes = pd.factorize(digests if can_be_kept_together(digests) else np.arange(n_rows))[0]
    _, first = np.unique(codes, return_index=True)
    labels = target if output is OutputKind.CLASSES else None
    if len(first) < count:
        raise invalid(f"There are {len(first)} different rows to train on for {count} folds.", "Give fewer folds.")
    fold_of = np.empty(len(first), dtype=np.intp)
    if labels is None:
        splits = KFold(count, shuffle=True, random_state=seed).split(first)
    else:
        check_folds(dict(zip(*np.unique(labels[first], return_counts=True), strict=True)), count)
        splits = StratifiedKFold(count, shuffle=True, random_state=seed).split(first, labels[first])
    for number, (_, units) in enumerate(splits):
        fold_of[units] = number
    random = np.random.default_rng(seed)
    of_row = fold_of[codes]
    return [
        (_spread(random.permutation(np.flatnonzero(of_row != number)), labels), np.flatnonzero(of_row == number))
        for number in range(count)
    ]


def check_folds(rows_of: Mapping[Any, int], count: int) -> None:
    """Refuse classes with fewer rows than folds: a fold without a class can't measure it.

    Raises:
        TrainingError: Names the rarest class.
    """
    label, fewest = min(rows_of.items(), key=lambda each: each[1])
    if fewest < count:
        raise invalid(
            f"The class {label!s} has {fewest} rows, equal ones counted once, fewer than {count} folds.",
            f"Give folds={fewest}, or leave such classes out with rare_classes=drop:{2 * count}."
            if fewest > 1
            else f"Leave such classes out with rare_classes=drop:{2 * count}, or add rows.",
        )


def _spread(rows: Rows, labels: NDArray[Any] | None) -> Rows:
    """The rows in an order of which every beginning has each class, with about its share."""
    if labels is None:
        return rows
    place = pd.Series(rows).groupby(labels[rows])
    return rows[np.argsort(place.cumcount().to_numpy() / place.transform("size").to_numpy(), kind="stable")]
