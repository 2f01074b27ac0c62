"""Splits: the rows that a model is fitted, tuned and tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from ml_core.exceptions import DataProcessingError, shown

Positions = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Split:
    """Row positions, each row in exactly one; a part of size 0 is empty."""

    train: Positions
    validation: Positions
    test: Positions


def split_rows(
    y: Any,
    *,
    test_size: float = 0.2,
    val_size: float = 0.1,
    random_state: int = 42,
    groups: Any = None,
    times: Any = None,
) -> Split:
    """Divide the rows of a table into three parts, see ``DataProcessor.split_data``.

    Of ``(n_rows,)`` groups each stays in one part; ``(n_rows,)`` times can be ordered and have no missing value.

    Returns:
        Positions; in rising order of time with ``times``, else shuffled.

    Raises:
        DataProcessingError: Sizes out of range, or too few rows or groups for three parts. ``stage`` is ``split``.
    """
    target = np.asarray(y)
    _check_sizes(len(target), test_size, val_size)
    if not isinstance(random_state, int | np.integer) or not 0 <= random_state < 2**32:
        raise _error(f"random_state is {shown(random_state)}.", "Give a whole number from 0 up, below 2**32.")
    if groups is not None and times is not None:
        raise _error("A split is by group or by time, not by both.", "Give one of them.")
    rows = np.arange(len(target), dtype=np.intp)
    if times is not None:
        return _by_time(_aligned(times, rows, "times"), test_size, val_size)
    if groups is not None:
        names = _aligned(groups, rows, "groups")
        rest, test = _by_group(rows, names, test_size, random_state)
        # val_size is a share of all rows, and this divides those that the test part left.
        train, validation = _by_group(rest, names[rest], val_size / (1 - test_size), random_state)
    else:
        rest, test = _at_random(rows, target, test_size, random_state)
        train, validation = _at_random(rest, target[rest], val_size / (1 - test_size), random_state)
    return Split(train, validation, test)


def _check_sizes(n_rows: int, test_size: float, val_size: float) -> None:
    if not (0 <= test_size < 1 and 0 <= val_size < 1 and test_size + val_size < 1):
        raise _error(
            f"test_size={test_size} and val_size={val_size} leave no rows for training.",
            "Give shares of all rows, each from 0 to below 1, whose sum is below 1.",
        )
    parts = 1 + (test_size > 0) + (val_size > 0)
    if n_rows < parts:
        raise _error(f"{n_rows} rows can't be divided into {parts} parts.", "Add rows, or set a size to 0.")


def _aligned(values: Any, rows: Positions, what: str) -> NDArray[Any]:
    array = np.asarray(values)
    if len(array) != len(rows):
        raise _error(f"There are {len(array)} {what} for {len(rows)} rows.", "Give one a row.")
    return array


def _at_random(rows: Positions, target: NDArray[Any], share: float, seed: int) -> tuple[Positions, Positions]:
    if share <= 0:
        return rows, rows[:0]
    n_second = min(max(1, round(share * len(rows))), len(rows) - 1)  # no part that was asked for is empty
    stratify = _sortable(target) if can_stratify(target, n_second) else None
    first, second = train_test_split(rows, test_size=n_second, random_state=seed, shuffle=True, stratify=stratify)
    return first, second


def can_stratify(target: NDArray[Any], n_held_out: int) -> bool:
    """Whether rows can be drawn so that each class of ``(n_rows,)`` targets keeps its share.

    That needs classes (strings, booleans, or whole numbers of which there are few for the number of rows), two rows of
    each, and as many rows as classes on either side.
    """
    if pd.isna(target).any():
        return False
    classes, counts = np.unique(_sortable(target), return_counts=True)
    if target.dtype.kind == "f" and not (target % 1 == 0).all():
        return False
    if target.dtype.kind in "iuf" and len(classes) > max(2, min(100, len(target) // 5)):
        return False
    return bool(counts.min() >= 2 and len(classes) <= min(n_held_out, len(target) - n_held_out))


def _sortable(target: NDArray[Any]) -> NDArray[Any]:
    """Classes that can be sorted; those of mixed types are so as text only."""
    return target.astype(str) if target.dtype == object else target


def _by_group(rows: Positions, groups: NDArray[Any], share: float, seed: int) -> tuple[Positions, Positions]:
    if share <= 0:
        return rows, rows[:0]
    codes = pd.factorize(groups, use_na_sentinel=False)[0]  # rows without a group are a group of their own
    n_groups = codes.max() + 1
    if n_groups < 2:
        raise _error("The rows are of too few groups to be divided by group.", "Use a column with more groups.")
    n_second = min(max(1, round(share * n_groups)), n_groups - 1)
    splitter = GroupShuffleSplit(n_splits=1, test_size=int(n_second), random_state=seed)
    first, second = next(splitter.split(rows, groups=codes))
    return rows[first], rows[second]


def _by_time(times: NDArray[Any], test_size: float, val_size: float) -> Split:
    series = pd.Series(times)
    if series.isna().any():
        raise _error("Some rows have no time.", "Drop them, or split without time.")
    order = np.asarray(series.argsort(kind="stable"), dtype=np.intp)  # rows of one time keep their order
    n_test = max(1, round(test_size * len(order))) if test_size else 0
    n_validation = max(1, round(val_size * len(order))) if val_size else 0
    n_train = len(order) - n_validation - n_test
    if n_train < 1:
        raise _error(
            f"test_size={test_size} and val_size={val_size} leave none of {len(order)} rows.", "Make them smaller."
        )
    return Split(order[:n_train], order[n_train : n_train + n_validation], order[n_train + n_validation :])


def _error(message: str, remedy: str) -> DataProcessingError:
    return DataProcessingError(message, remedy=remedy, stage="split")
