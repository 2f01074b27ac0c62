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
from sklearn.model_selection import KFold, StratifiedKFold, TimeSeriesSplit
from sklearn.pipeline import Pipeline

from ml_core.domain.columns import take
from ml_core.domain.signature import OutputKind
from ml_core.evaluation.metrics import Metrics, answer, evaluate
from ml_core.models.model_factory import ModelFactory
from ml_core.training.class_weights import set_class_weights
from ml_core.training.encoding import encoding_steps
from ml_core.training.hold_out import can_be_kept_together
from ml_core.training.provenance import row_digests
from ml_core.training.request import TrainingRequest
from ml_core.training.table import TrainingTable
from ml_core.training.targets import invalid

Rows = NDArray[np.intp]

_SHARES = (1 / 9, 1 / 3, 1.0)
_MIN_FITTED, _MIN_MEASURED = 300, 100  # a score of fewer rows says little of that of all rows and folds


@dataclass(frozen=True, slots=True)
class EncodedFold:
    """One fold: the features and target of the rows to fit on and of those to measure on; targets may be None.

    Attributes:
        weights: ``(n_train,)`` with which the rows to fit on count; None: alike.
    """

    train: Any
    train_target: NDArray[Any] | None
    test: Any
    test_target: NDArray[Any] | None
    weights: NDArray[np.float64] | None = None


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

    def measure(self, fold: EncodedFold, hyperparameters: Mapping[str, Any], share: float) -> Metrics:
        """Fit a configuration on a fold and measure it.

        Args:
            fold: Encoded for the configuration's algorithm.
            hyperparameters: The configuration, with ``algorithm``.
            share: Of the training rows of the fold; the first ones are taken.

        Raises:
            TrainingError: The metric is not defined on the fold.
            Exception: What the estimator raises.
        """
        rows = max(1, round(share * fold.train.shape[0]))
        target = None if fold.train_target is None else fold.train_target[:rows]
        estimator = ModelFactory.create_model(self.model_type, {**self.fixed, **hyperparameters})
        if self.output is OutputKind.CLASSES and target is not None:
            set_class_weights(estimator, target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the refit of the best one reports its own
            weights = {} if fold.weights is None else {"sample_weight": fold.weights[:rows]}
            estimator.fit(fold.train[:rows], target, **weights)
            answered = answer(Pipeline([("estimate", estimator)]), fold.test, self.output)
            found = evaluate(estimator, answered, fold.test_target, self.output)
        if self.metric not in found:
            raise invalid(
                f"The metric {self.metric!r} is not defined on a fold.",
                "Choose by another metric; roc_auc needs two classes, silhouette two clusters.",
            )
        return found

    def mean(self, found: Sequence[Metrics]) -> Metrics:
        """The means over folds of the metrics that all have, and ``std``, the deviation of the one that counts."""
        common = [name for name in found[0] if all(name in of for of in found)]
        means = {name: float(np.mean([of[name] for of in found])) for name in common}
        return {**means, "std": float(np.std([of[self.metric] for of in found]))}


@dataclass(frozen=True, slots=True)
class Rung:
    """How thoroughly a configuration is measured.

    Attributes:
        share: Of a fold's training rows.
        folds: The first so many.
        rows: Of each fit.
    """

    share: float
    folds: int
    rows: int

    @property
    def cost(self) -> int:
        """The rows of its fits together."""
        return self.folds * self.rows


def rungs_of(n_rows: int, n_folds: int, *, early_stopping: bool) -> tuple[Rung, ...]:
    """The rungs of a search (ASHA) over folds of ``n_rows`` training rows: shares of one fold, then all of all folds.

    One fold tells configurations apart better than a share of the rows of all folds that takes as long: they are
    compared on the same rows, and few rows take boosting not much less time than many.
    """
    is_measured = early_stopping and n_rows / (n_folds - 1) >= _MIN_MEASURED
    shares = [share for share in _SHARES if is_measured and share * n_rows >= _MIN_FITTED]
    return (*(Rung(share, 1, round(share * n_rows)) for share in shares), Rung(1.0, n_folds, n_rows))


def encoded_folds(
    request: TrainingRequest, table: TrainingTable, folds: Sequence[tuple[Rows, Rows]], *, takes_sparse: bool
) -> Iterator[EncodedFold]:
    """The folds of a table's training part for estimators that take sparse matrices, or do not; one at a time.

    Raises:
        TrainingError: The texts are too many for a dense matrix.
    """
    columns, target, weights = table.train.columns, table.train.target, table.train.weights
    for train, test in folds:
        steps = Pipeline(encoding_steps(request, table, takes_sparse=takes_sparse))
        targets = [None if target is None else target[rows] for rows in (train, test)]
        yield EncodedFold(
            steps.fit_transform(take(columns, train), targets[0]),
            targets[0],
            steps.transform(take(columns, test)),
            targets[1],
            None if weights is None else weights[train],
        )


def divide_into_folds(
    table: TrainingTable, output: OutputKind, count: int, seed: int, *, is_strict: bool = True, field: str = "folds"
) -> list[tuple[Rows, Rows]]:
    """Divide the training part of a table: the rows to fit on and to measure on, of each fold.

    Equal rows are in one fold, as in the split of the training itself, and classes have their shares in each; with
    groups the rows of one are, and with times a fold is measured on later rows. The rows
    to fit on are in an order of which every beginning has each class, with about its share.

    Args:
        table: The table.
        output: Of its model type.
        count: The number of folds.
        seed: Of the division.
        is_strict: Refuse a table of fewer different rows, or rows of a class, than folds. Otherwise equal rows may be
            in several folds then, and the rows of such a class are fitted on in each fold and measured in none.
        field: What the caller calls the number of folds.

    Raises:
        TrainingError: The table is refused.
    """
    n_rows, target = table.train.n_rows, table.train.target
    labels, random = target if output is OutputKind.CLASSES else None, np.random.default_rng(seed)
    if table.times is not None:
        return _forward_folds(table.times, labels, count, random, is_strict=is_strict)
    if table.groups is None:
        digests = row_digests(table.train.columns, table.inputs)
        codes = pd.factorize(digests if can_be_kept_together(digests) else np.arange(n_rows))[0]
    else:
        codes = table.groups
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    if table.groups is not None and not is_strict:
        count = min(count, len(first))
    if len(first) < max(2, count):
        if is_strict or table.groups is not None:
            what = "different rows" if table.groups is None else "groups"
            raise invalid(f"There are {len(first)} {what} to train on for {count} folds.", "Give fewer folds.")
        codes = first = np.arange(n_rows)
    fold_of = np.full(len(first), -1)
    units = np.arange(len(first))
    splitter: Any = KFold(count, shuffle=True, random_state=seed)
    if labels is not None and table.groups is None:  # the rows of a group may have several labels
        values, of_unit, sizes = np.unique(labels[first], return_inverse=True, return_counts=True)
        if is_strict:
            check_folds(dict(zip(values, sizes, strict=True)), count, field)
        if sizes.max() >= count:
            splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
            units = np.flatnonzero(sizes[of_unit] >= count)
    for number, (_, chosen) in enumerate(splitter.split(units, None if labels is None else labels[first[units]])):
        fold_of[units[chosen]] = number
    of_row = fold_of[codes]
    _check_fitted(of_row, labels, count)
    return [
        (spread_rows(random.permutation(np.flatnonzero(of_row != number)), labels), np.flatnonzero(of_row == number))
        for number in range(count)
    ]


def _check_fitted(of_row: Rows, labels: NDArray[Any] | None, count: int) -> None:
    """Refuse a division in which a fold would be fitted on one class; ``(n_rows,)`` numbers of folds."""
    if labels is not None and any(len(np.unique(labels[of_row != number])) < 2 for number in range(count)):
        raise invalid("A fold would be fitted on rows of one class only.", "Divide by another column, or by none.")


def _forward_folds(
    times: NDArray[np.float64],
    labels: NDArray[Any] | None,
    count: int,
    random: np.random.Generator,
    *,
    is_strict: bool,
) -> list[tuple[Rows, Rows]]:
    """Folds that are measured on later rows than those they are fitted on; the one of the latest rows is the first."""
    values, of_row = np.unique(times, return_inverse=True)  # rows of one time stay together
    if not is_strict:
        count = min(count, len(values) - 1)
    if len(values) <= count:
        raise invalid(f"There are {len(values)} different times to train on for {count} folds.", "Give fewer folds.")
    folds = []
    for early, late in TimeSeriesSplit(count).split(values) if count > 1 else [([0], [1])]:
        train, test = np.flatnonzero(of_row <= early[-1]), np.flatnonzero((of_row >= late[0]) & (of_row <= late[-1]))
        if labels is None or len(np.unique(labels[train])) > 1:
            folds.append((spread_rows(random.permutation(train), labels), test))
        elif is_strict:
            raise invalid("The earliest rows have one class only.", "Give fewer folds, or divide by another column.")
    if not folds:
        raise invalid("No fold in time has two classes.", "Divide by another column.")
    return folds[::-1]


def check_folds(rows_of: Mapping[Any, int], count: int, field: str = "folds") -> None:
    """Refuse classes with fewer rows than folds: a fold without a class can't measure it.

    Raises:
        TrainingError: Names the rarest class.
    """
    label, fewest = min(rows_of.items(), key=lambda each: each[1])
    if fewest < count:
        raise invalid(
            f"The class {label!s} has {fewest} rows, equal ones counted once, fewer than {count} folds.",
            f"Give {field}={fewest}, or leave such classes out with rare_classes=drop:{2 * count}."
            if fewest > 1
            else f"Leave such classes out with rare_classes=drop:{2 * count}, or add rows.",
        )


def spread_rows(rows: Rows, labels: NDArray[Any] | None) -> Rows:
    """The rows in an order of which every beginning has each class, with about its share."""
    if labels is None:
        return rows
    place = pd.Series(rows).groupby(labels[rows])
    return rows[np.argsort(place.cumcount().to_numpy() / place.transform("size").to_numpy(), kind="stable")]
