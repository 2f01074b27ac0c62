"""What a user should look at before trusting a model is said, without the values of cells."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_core.domain.columns import ColumnKind
from ml_core.ids import ModelId
from ml_core.training.column_notes import stability_index
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support.tables import measures, split_target

RANDOM = np.random.default_rng(0)
FEW = {"algorithm": "decision_tree"}


def notes_of(X: Any, y: Any, validation: Any = None, **options: Any) -> str:
    """All notes of a small training."""
    request = TrainingRequest(ModelId("m"), None, (X, y), validation, hyperparameters=FEW, **options)
    return "\n".join(fit_model(request).notes)


def table() -> tuple[pd.DataFrame, Any]:
    """Columns of which none alone tells the outcome."""
    return split_target(measures(400), "outcome")


LEAKS = {
    "number": lambda y: np.where(y == "yes", 1.0, 0.0) + RANDOM.uniform(0, 0.9, len(y)),
    "category": lambda y: np.where(y == "yes", RANDOM.choice(["paid", "refunded"], len(y)), "open"),
    "boolean": lambda y: (y == "yes").to_numpy(),
    "date": lambda y: np.where(y == "yes", "2026-01-02", "2026-01-01"),
    "blank": lambda y: np.where(y == "yes", RANDOM.choice(["paid", "refunded"], len(y)), None),
    "missing": lambda y: np.where(y == "yes", RANDOM.normal(size=len(y)), np.nan),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_column_that_tells_the_target_alone_is_named(leak: str) -> None:
    """Of each kind, also by being missing; the others are not."""
    X, y = table()
    notes = notes_of(X.assign(leak=LEAKS[leak](y)), y)
    assert "One column alone tells the target of the held-out rows: 'leak' (accuracy 1.000)" in notes
    assert "'m0'" not in notes


def test_a_number_is_told_by_its_copy() -> None:
    """In another unit."""
    X, _ = table()
    y = X["m0"] * X["m1"]
    notes = notes_of(X.assign(copy=y * 3.6 + RANDOM.normal(scale=1e-3, size=len(y))), y)
    assert "'copy' (R² " in notes
    assert "tells the target" not in notes_of(X, y)


def test_nothing_is_said_of_ordinary_tables() -> None:
    """Nor where the usual class is nearly always right."""
    X, y = table()
    assert not re.search("One column|Columns are missing|The validation rows", notes_of(X, y))
    assert "tells the target" not in notes_of(X, y, (X, y))  # rows that it knows by heart
    code = pd.Series([f"c{number}" for number in range(len(X) // 2)] * 2)
    assert "tells the target" not in notes_of(X.assign(code=code), y, (X.assign(code=code), y))
    rare = np.where(np.arange(len(X)) % 50 == 0, "yes", "no")
    assert "tells the target" not in notes_of(X, rare)


def test_columns_that_are_nearly_empty_are_named() -> None:
    """With the share that is missing."""
    X, y = table()
    empty = pd.Series(np.nan, X.index)
    empty.iloc[::40] = RANDOM.normal(size=len(empty.iloc[::40]))
    assert "missing in nearly all training rows: 'empty' (9" in notes_of(X.assign(empty=empty), y)


def test_validation_rows_that_differ_are_said() -> None:
    """The greatest difference first; a fifth that was held out is not looked at, and neither are a few rows."""
    X, y = table()
    X = X.assign(group=RANDOM.choice(["a", "b", "c"], len(X)))
    other = X.assign(m0=X["m0"] + 5, group="a")
    notes = notes_of(X, y, (other, y))
    assert "The validation rows differ from the training rows in 'm0' (population stability index" in notes
    assert "'group' (population" in notes
    assert "'m1'" not in notes
    assert "differ" not in notes_of(X, y, (X.sample(frac=1.0, random_state=1)[:200], y[:200]))
    assert "differ" not in notes_of(X, y, (other[:20], y[:20]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1), st.lists(st.integers(0, 8), min_size=1))
def test_the_index_is_that_of_its_formula(expected: list[int], actual: list[int]) -> None:
    """Zero for equal shares, the same in both directions, never negative."""
    first, second = np.array(expected), np.array(actual)
    found = stability_index(first, second)
    assert found >= 0
    assert found == pytest.approx(stability_index(second, first))
    assert stability_index(first, np.tile(first, 3)) == pytest.approx(0)


def test_a_text_is_not_looked_at() -> None:
    """Texts are what a model reads."""
    X, y = table()
    texts = [
        f"the customer says {answer} and asks {word}"
        for answer, word in zip(y, RANDOM.choice(list("abc"), len(y)), strict=True)
    ]
    notes = notes_of(X.assign(text=texts), y, kinds={"text": ColumnKind.TEXT})
    assert "tells" not in notes
