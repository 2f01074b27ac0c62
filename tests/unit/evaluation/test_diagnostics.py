"""Diagnostics of held-out rows: complete, bounded, repeatable, and without a cell."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from ml_core.data.encoding.table import TableEncoder
from ml_core.data.processor import DataProcessor
from ml_core.domain.columns import take
from ml_core.domain.diagnostics import Diagnostics
from ml_core.domain.signature import OutputKind
from ml_core.domain.tenant_policies import SelfTestRows
from ml_core.evaluation import diagnostics
from ml_core.evaluation.diagnostics import _permuted, diagnose, learning_curves
from ml_core.evaluation.metrics import Answered
from ml_core.ids import ModelId
from ml_core.training import fit as training_fit
from ml_core.training.fit import FittedModel, fit_model
from ml_core.training.request import TrainingRequest
from support.tables import measures, split_target, tickets


def fit(data: Any, **options: Any) -> FittedModel:
    """Fit a small model."""
    options.setdefault("hyperparameters", {"algorithm": "decision_tree"})
    return fit_model(TrainingRequest(ModelId("m"), None, data, **options))


def diagnosed(data: Any, **options: Any) -> Diagnostics:
    """The diagnostics of a small model."""
    found = fit(data, **options).diagnostics
    assert found is not None
    return found


class Step:
    """A pipeline of two steps, as far as diagnostics look at it."""

    def __init__(self, encoder: Any, estimator: Any) -> None:
        self.steps = [("encode", encoder), ("estimate", estimator)]


class Labels:
    """An estimator that knows its classes only."""

    def __init__(self, classes: list[str]) -> None:
        self.classes_ = np.array(classes)


@pytest.mark.parametrize("dense_text", [False, True])
def test_permuted_features_are_those_of_the_permuted_column(dense_text: bool) -> None:
    """For every kind of column, with missing values, sparse and dense: so no column need be encoded again."""
    fitted = fit(split_target(tickets(), "category"))
    kinds = [(column.name, column.kind.value) for column in fitted.signature.inputs]
    X = tickets(80, seed=3)
    encoder = TableEncoder(kinds, dense_text=dense_text).fit(X)
    columns = encoder._canonical(X)
    orders = [np.random.default_rng(seed).permutation(len(X)) for seed in range(len(kinds))]
    masks = [encoder.feature_columns == name for name, _ in kinds]
    made = _permuted(encoder.transform(columns), masks, orders)
    wanted = [
        encoder.transform({**columns, name: take(columns, order)[name]})
        for (name, _), order in zip(kinds, orders, strict=True)
    ]
    found = made if dense_text else made.toarray()
    np.testing.assert_array_equal(found, np.vstack([table if dense_text else table.toarray() for table in wanted]))
    assert all(mask.any() for mask in masks)
    assert sum(mask.sum() for mask in masks) == encoder.n_features_out


@settings(max_examples=50)
@given(st.integers(2, 60), st.data())
def test_a_confusion_matrix_has_every_row_once(n_classes: int, data: st.DataObject) -> None:
    """Of the most frequent classes at most 30, then all others, labels that no training row had among them."""
    classes = [f"{number:02}" for number in range(n_classes)]
    labels = st.lists(st.sampled_from([*classes, "new", "another"]), min_size=1, max_size=200)
    truth = np.array(data.draw(labels))
    predicted = np.array(data.draw(st.lists(st.sampled_from(classes), min_size=len(truth), max_size=len(truth))))
    answered = Answered(None, predicted, None)
    found = diagnose(Step(None, Labels(classes)), answered, truth, OutputKind.CLASSES, {})
    assert found is not None
    assert found.confusion is not None
    counts = np.array(found.confusion.counts)
    assert counts.sum() == len(truth)
    shown = list(found.confusion.classes)
    assert len(shown) == min(n_classes, 30)
    assert counts.shape == (len(shown) + found.confusion.has_others,) * 2
    for (row, true), (column, answer) in itertools.product(enumerate(shown), enumerate(shown)):
        assert counts[row, column] == np.sum((truth == true) & (predicted == answer))
    least = min(np.sum(truth == name) for name in shown)
    assert all(np.sum(truth == name) <= least for name in set(classes) - set(shown))


def test_calibration_bins_have_the_rows_of_their_probability() -> None:
    """Mean probability, share right, and no row lost."""
    probabilities = np.array([[0.05, 0.95], [0.92, 0.08], [0.4, 0.6], [1.0, 0.0], [np.nan, np.nan]])
    answered = Answered(None, np.array(["b", "a", "b", "a", "a"]), probabilities)
    truth = np.array(["b", "b", "b", "a", "a"])
    found = diagnose(Step(None, Labels(["a", "b"])), answered, truth, OutputKind.CLASSES, {})
    assert found is not None
    bins = [(round(each.probability, 4), round(each.share_right, 4), each.rows) for each in found.calibration]
    assert bins == [(0.0, 1.0, 1), (0.6, 1.0, 1), (round((0.95 + 0.92 + 1.0) / 3, 4), round(2 / 3, 4), 3)]


@settings(max_examples=50)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=150), st.floats(allow_nan=False))
def test_residuals_have_a_json_form_whatever_the_numbers(truth: list[float], constant: float) -> None:
    """No infinity gets into it, each bin has ten rows or more, and the histogram counts what the bins do."""
    answered = Answered(None, np.full(len(truth), constant), None)
    found = diagnose(Step(None, None), answered, np.array(truth), OutputKind.NUMBER, {})
    assert found is not None
    content = orjson.dumps(found)
    assert orjson.dumps(TypeAdapter(Diagnostics).validate_json(content)) == content
    assert all(each.rows >= 10 for each in found.residuals)
    if found.residual_histogram is None:
        assert "Residuals are not shown" in found.notes[0]
    else:
        assert sum(found.residual_histogram.counts) == sum(each.rows for each in found.residuals) >= 10


@pytest.mark.parametrize("algorithm", ["decision_tree", "random_forest", "gradient_boosting", "ridge"])
def test_importances_rank_input_columns(algorithm: str) -> None:
    """The two columns that decide come first, and a text is one column however many words it has."""
    X, y = split_target(measures(400), "outcome")
    found = diagnosed((X, y), hyperparameters={"algorithm": algorithm})
    assert {each.column for each in found.importances[:2]} == {"m0", "m1"}
    assert {each.column for each in found.importances} == set(X.columns)
    assert found.importance_metric == "balanced_accuracy"
    words = diagnosed(split_target(tickets(), "category"), hyperparameters={"algorithm": "logistic_regression"})
    assert words.importances[0].column == "subject"
    assert len(words.importances) == 5


def test_a_repeated_training_has_equal_diagnostics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte where there is time for all, so that the stored file is the same."""
    monkeypatch.setattr(training_fit, "_DIAGNOSTICS_SHARE", math.inf)
    X, y = split_target(measures(3_000), "outcome")
    first, second = (orjson.dumps(diagnosed((X, y))) for _ in range(2))
    assert first == second


class Doubling(DataProcessor):
    """A processor of the caller's own."""

    def preprocess(self, data: Any, model_type: str | None = None, is_training: bool = True) -> pd.DataFrame:
        return super().preprocess(data, model_type, is_training).assign(m0=lambda frame: frame.m0 + frame.m1)


def test_importances_that_cost_too_much_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of predictions, by time, and where features can't be assigned to columns; the rest is there."""
    X, y = split_target(measures(2_600), "outcome")
    fitted = fit((X, y))
    columns = fitted.pipeline.steps[0][1].transform(X)
    answered = Answered(columns, fitted.pipeline.steps[-1][1].predict(columns), None)

    def notes(budget_s: float) -> str:
        found = diagnose(fitted.pipeline, answered, y.to_numpy(), OutputKind.CLASSES, {}, budget_s)
        assert found is not None
        assert found.confusion is not None
        assert not (found.notes and found.importances)
        return " ".join(found.notes)

    assert notes(np.inf) == ""
    assert "a tenth of the training's time" in notes(-1.0)
    monkeypatch.setattr(diagnostics, "_MAX_PREDICTIONS", 5_999)
    assert "they need 6000 predictions, more than 5999" in notes(np.inf)
    own = diagnosed((X, y), processor=Doubling())
    assert "caller's own" in own.notes[0]
    assert own.confusion is not None


def test_diagnostics_that_fail_lose_no_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The model is there without them, and the log says why."""
    monkeypatch.setattr(diagnostics, "_permuted", lambda *_: None)
    fitted = fit(split_target(measures(), "outcome"))
    assert fitted.diagnostics is None
    assert "The diagnostics of DecisionTreeClassifier failed" in caplog.text


def leaves(value: Any) -> list[Any]:
    """All numbers and texts in a JSON document, names of fields left out."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


@pytest.mark.parametrize("rows", [20, 60, 400])
@pytest.mark.parametrize("algorithm", ["decision_tree", "ridge"])
def test_no_cell_is_in_the_diagnostics(rows: int, algorithm: str) -> None:
    """Whatever the tenant's policy: every target and every cell is a number or word that occurs nowhere else."""
    random = np.random.default_rng(rows)
    secrets = [f"secret{number} {random.choice(['alpha', 'beta', 'gamma'])}" for number in range(rows)]
    numbers = random.normal(size=rows) * 1234.567
    X = pd.DataFrame({"size": numbers, "words": secrets, "other": random.normal(size=rows)})
    y = numbers * 3.21 + random.normal(size=rows)
    options: dict[str, Any] = {"hyperparameters": {"algorithm": algorithm}, "self_test_rows": SelfTestRows.SYNTHETIC}
    found = leaves(orjson.loads(orjson.dumps(diagnosed((X, y), kinds={"words": "text"}, **options))))
    cells = {*y.tolist(), *X["size"].tolist(), *X["other"].tolist()}
    assert not cells & {leaf for leaf in found if isinstance(leaf, float)}
    assert "secret" not in " ".join(str(leaf) for leaf in found)


@pytest.mark.parametrize(
    ("estimator", "metrics"),
    [
        (
            HistGradientBoostingRegressor(max_iter=8, early_stopping=True),
            {"rounds/train/loss", "rounds/early_stopping/loss"},
        ),
        (
            HistGradientBoostingRegressor(max_iter=8, early_stopping=True, scoring="r2"),
            {"rounds/train/score", "rounds/early_stopping/score"},
        ),
        (HistGradientBoostingRegressor(max_iter=8), set()),
        (GradientBoostingRegressor(n_estimators=8), {"rounds/train/loss"}),
        (LinearRegression(), set()),
    ],
)
def test_learning_curves_are_those_that_the_estimator_kept(estimator: Any, metrics: set[str]) -> None:
    """A loss falls and a score rises, from the first round to the last."""
    X = np.random.default_rng(0).normal(size=(200, 3))
    curves = learning_curves(estimator.fit(X, X[:, 0] * 2))
    assert set(curves) == metrics
    for name, values in curves.items():
        assert (values[-1] < values[0]) == name.endswith("loss")
