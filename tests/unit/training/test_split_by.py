"""Rows are held out by group or by time, and folds are divided alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import OutputKind
from ml_core.exceptions import TrainingError
from ml_core.ids import ModelId
from ml_core.training.cross_validation import divide_into_folds
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from ml_core.training.table import TrainingTable, read_training_table


def table(n_rows: int = 200, n_groups: int = 25, seed: int = 0) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Rows of customers, each of whom has an answer and a number of its own; ``row`` tells them apart."""
    random = np.random.default_rng(seed)
    customer = random.integers(0, n_groups, n_rows)
    X = pd.DataFrame({"customer": [f"c{number}" for number in customer], "height": customer * 0.37 % 1})
    X["row"], X["opened"] = (
        np.arange(n_rows) * 1.5,
        pd.date_range("2026-01-01", periods=n_rows)[random.permutation(n_rows)],
    )
    return X, pd.Series(np.where(random.permutation(n_groups)[customer] % 2, "yes", "no"), name="answer")


def read(X: Any, y: Any, **options: Any) -> TrainingTable:
    """The table that is trained on."""
    return read_training_table(TrainingRequest(ModelId("m"), None, (X, y), **options), OutputKind.CLASSES)


@settings(max_examples=20, deadline=None)
@given(st.integers(40, 120), st.integers(2, 12), st.booleans(), st.integers(0, 2**16))
def test_the_rows_of_a_group_stay_together(n_rows: int, n_groups: int, has_missing: bool, seed: int) -> None:
    """In the split and in each fold; the column is no input. Rows without a group are one."""
    X, y = table(n_rows, n_groups, seed)
    if has_missing:
        X.loc[::7, "customer"] = None
    y[:] = np.where(np.arange(n_rows) % 2, "yes", "no")  # so that each side has both
    found = read(X, y, group="customer")
    assert "customer" not in [column.name for column in found.inputs]
    of_row = dict(zip(X["row"], X["customer"].fillna(""), strict=True))
    sides = [{of_row[row] for row in part.columns["row"]} for part in (found.train, found.validation)]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert found.train.n_rows + found.validation.n_rows == n_rows
    groups = np.array([of_row[row] for row in found.train.columns["row"]])
    assert len(groups) >= len(X) / 2
    if len(set(groups)) < 2:
        with pytest.raises(TrainingError, match="There are 1 groups"):
            divide_into_folds(found, OutputKind.CLASSES, 3, 0, is_strict=False)
        return
    folds = divide_into_folds(found, OutputKind.CLASSES, 3, 0, is_strict=False)
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(groups)))


@pytest.mark.parametrize("time", ["opened", "row", "day"])
def test_the_latest_rows_are_held_out(time: str) -> None:
    """And each fold is measured on rows that are later than those it is fitted on, the first one on the latest.

    Rows of one time stay together; the column remains an input.
    """
    X, y = table()
    X["day"] = X["row"] // 60
    found = read(X, y, time=time)
    assert 20 <= found.validation.n_rows <= 60
    assert found.train.columns[time].max() < found.validation.columns[time].min()
    assert f"Held out were the latest rows by {time!r}" in found.notes[-1]
    folds = divide_into_folds(found, OutputKind.CLASSES, 3, 0, is_strict=False)
    times = found.train.columns[time]
    assert times[folds[0][1]].max() == times.max()
    assert len(folds) == 3
    for train, test in folds:
        assert times[train].max() < times[test].min()


def test_a_fold_of_one_class_is_left_out() -> None:
    """Of a search, which was told how many folds, it is refused."""
    X, _ = table()
    y = pd.Series(np.where(X["row"] < 110, "no", np.where(X["row"] % 2, "yes", "no")))
    found = read(X, y, time="row")
    assert len(divide_into_folds(found, OutputKind.CLASSES, 3, 0, is_strict=False)) == 2
    with pytest.raises(TrainingError, match="The earliest rows have one class only"):
        divide_into_folds(found, OutputKind.CLASSES, 3, 0)


def test_one_large_group_is_trained_on() -> None:
    """About a fifth of the rows is held out, whatever the sizes of groups."""
    X, y = table()
    X["customer"] = np.where(np.arange(200) < 190, "large", "small")
    found = read(X, y, group="customer")
    assert (found.train.n_rows, found.validation.n_rows) == (190, 10)
    assert "Held out were 1 of 2 groups by 'customer': 10 of 200 rows." in found.notes


def test_a_group_is_not_learned_by_heart() -> None:
    """Each customer has a number of its own, which tells nothing of another customer."""
    X, y = table(600, 60)
    accuracy = {}
    for group in (None, "customer"):
        fitted = fit_model(TrainingRequest(ModelId("m"), None, (X.drop(columns="opened"), y), group=group))
        accuracy[group] = fitted.metrics["validation"]["accuracy"]
        assert fitted.selection["candidates"]
    assert accuracy[None] > 0.9 > 0.75 > accuracy["customer"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "custmer"}, "custmer"),
        ({"time": "custmer"}, "'custmer' is not used, and rows are held out by dates or numbers"),
        ({"time": "customer"}, "'customer' is a category, and rows"),
        ({"group": "same"}, "'same' has one value only"),
        ({"group": "lists"}, "values of 'lists' can't be compared"),
        ({"time": "constant", "kinds": {"constant": ColumnKind.NUMBER}}, "'constant' has one value only"),
    ],
)
def test_a_column_that_can_not_divide_is_refused(options: dict[str, Any], message: str) -> None:
    """With its name, or what to do."""
    X, y = table()
    X = X.assign(same="x", constant=1.0, **({"lists": [[1]] * len(X)} if options == {"group": "lists"} else {}))
    with pytest.raises(TrainingError, match=message) as caught:
        read(X, y, **options)
    assert caught.value.stage == "validate"


def test_times_that_are_missing_are_refused() -> None:
    """No row is on one side by chance."""
    X, y = table()
    X.loc[3, "opened"] = pd.NaT
    with pytest.raises(TrainingError, match="Some rows have no 'opened'"):
        read(X, y, time="opened")
