"""Weights of rows, calibration, cross-validation, kept rare classes and the seed of the split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import log_loss

from ml_core.domain.signature import OutputKind
from ml_core.domain.train_spec import Calibration
from ml_core.exceptions import TrainingError
from ml_core.ids import ModelId
from ml_core.models.algorithms import ALGORITHMS
from ml_core.models.formats import skops_format
from ml_core.training.fit import FittedModel, fit_model
from ml_core.training.pipelines import pipeline_of
from ml_core.training.request import TrainingRequest
from ml_core.training.table import read_training_table

FAST = {"algorithm": "logistic_regression"}


def fit(X: Any, y: Any, hyperparameters: Any = FAST, model_type: str | None = None, **options: Any) -> FittedModel:
    """The model of a training."""
    return fit_model(TrainingRequest(ModelId("m"), model_type, (X, y), hyperparameters=hyperparameters, **options))


def table(n_rows: int = 300, n_classes: int = 2, seed: int = 0) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Two numbers and a category that tell a class, with noise."""
    random = np.random.default_rng(seed)
    X = pd.DataFrame({"a": random.normal(size=n_rows), "b": random.normal(size=n_rows)})
    X["c"] = random.choice(["x", "y", "z"], n_rows)
    score = X["a"] + (X["c"] == "x") + random.normal(size=n_rows)
    return X, pd.Series(
        pd.qcut(score, n_classes, labels=[f"class {i}" for i in range(n_classes)]).astype(str), name="t"
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from(["logistic_regression", "decision_tree", "ridge", "naive_bayes"]))
def test_rows_count_with_their_weights(seed: int, algorithm: str) -> None:
    """The estimator is the one that scikit-learn fits with the weights of the rows that were not held out."""
    X, y = table(seed=seed)
    X["weight"] = np.random.default_rng(seed).integers(0, 3, len(X))
    request = TrainingRequest(ModelId("m"), None, (X, y), hyperparameters={"algorithm": algorithm}, weight="weight")
    rows, fitted = read_training_table(request, OutputKind.CLASSES).train, fit_model(request)
    weights = X.set_index("a")["weight"].loc[rows.columns["a"]].to_numpy(dtype=np.float64)
    features = fitted.pipeline[:-1].transform(rows.columns)
    expected = clone(fitted.pipeline[-1]).fit(features, rows.target, sample_weight=weights)
    np.testing.assert_array_equal(fitted.pipeline.predict(rows.columns), expected.predict(features))
    assert [column.name for column in fitted.signature.inputs] == ["a", "b", "c"]
    assert fitted.data_digest != fit(X.drop(columns="weight"), y, {"algorithm": algorithm}).data_digest


def test_weights_move_the_model() -> None:
    """Rows of one label that count twenty times are predicted more often."""
    X, y = table()
    X["weight"] = np.where(y == "class 1", 20.0, 1.0)
    weighted = fit(X, y, weight="weight").pipeline.predict(X)
    plain = fit(X.drop(columns="weight"), y).pipeline.predict(X)
    assert (weighted == "class 1").mean() > (plain == "class 1").mean() + 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, None], "a value is missing"),
        ([1.0, -1.0], "from -1 to 1"),
        ([0.0, 0.0], "from 0 to 0"),
        ([1.0, float("inf")], "inf"),
        (["a", "b"], "weight"),
    ],
)
def test_weights_that_weigh_nothing_are_refused(values: list[Any], message: str) -> None:
    """With the column and what to give."""
    X, y = table()
    X["weight"] = pd.Series(values * (len(X) // 2), dtype=object)
    with pytest.raises(TrainingError, match=message) as caught:
        fit(X, y, weight="weight")
    assert caught.value.stage == "validate"
    assert caught.value.remedy


def test_an_algorithm_without_weights_is_refused_before_the_data_is_read() -> None:
    """By its name."""
    X, _ = table()
    with pytest.raises(TrainingError, match="gaussian_mixture takes no weights"):
        fit(X, None, {"algorithm": "gaussian_mixture"}, "clustering", weight="none of the columns")


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_calibrated_model_gives_better_probabilities_and_can_be_saved(method: str, n_classes: int) -> None:
    """Naive Bayes on columns that repeat each other is too sure of itself. The record names the algorithm itself."""
    X, y = table(600, n_classes)
    for copy in range(6):
        X[f"copy {copy}"] = X["a"] + copy * 1e-9
    options = {"hyperparameters": {"algorithm": "naive_bayes"}}
    plain, better = fit(X, y, **options), fit(X, y, **options, calibration=Calibration(method))
    assert better.metrics["validation"]["log_loss"] < plain.metrics["validation"]["log_loss"]
    assert better.algorithm == "naive_bayes"
    assert "var_smoothing" in better.effective_hyperparameters
    assert isinstance(better.pipeline[-1], CalibratedClassifierCV)
    assert better.pipeline[-1].cv == 5
    loaded = skops_format.load(skops_format.dump(better.pipeline))
    np.testing.assert_array_equal(loaded.predict_proba(X), better.pipeline.predict_proba(X))


def test_a_linear_svm_gets_probabilities_by_a_calibration() -> None:
    """It has none of its own."""
    X, y = table()
    fitted = fit(X, y, {"algorithm": "linear_svm"}, calibration=Calibration.SIGMOID)
    assert log_loss(y, fitted.pipeline.predict_proba(X)) < 0.69


@pytest.mark.parametrize("by", [{"group": "customer"}, {"time": "when"}])
def test_a_calibration_is_divided_by_group_or_by_no_time(by: dict[str, str]) -> None:
    """Each row is measured in one fold, which folds in time don't do."""
    X, y = table()
    X["customer"], X["when"] = np.arange(len(X)) // 10, pd.date_range("2026-01-01", periods=len(X))
    request = TrainingRequest(ModelId("m"), None, (X, y), hyperparameters=FAST, calibration=Calibration.SIGMOID, **by)
    found = read_training_table(request, OutputKind.CLASSES)
    folds = pipeline_of(request, FAST, found, OutputKind.CLASSES)[-1].cv
    assert sorted(np.concatenate([measured for _, measured in folds])) == list(range(found.train.n_rows))
    if found.groups is not None:
        assert not any(set(found.groups[fitted]) & set(found.groups[measured]) for fitted, measured in folds)
    assert fit_model(request).metrics["validation"]["log_loss"] < 0.7


def test_what_cannot_be_calibrated_is_refused() -> None:
    """Numbers, and a class of one row to train on."""
    X, y = table(40)
    with pytest.raises(TrainingError, match="Only a classification can be calibrated"):
        fit(X, np.arange(40.0) ** 2, {"algorithm": "ridge"}, calibration=Calibration.SIGMOID)
    y[:2] = "rare"
    with pytest.raises(TrainingError, match=r"can't be calibrated\. The class rare has 1 rows.*Leave calibration out"):
        fit(X, y, calibration=Calibration.SIGMOID)


@pytest.mark.parametrize(
    "hyperparameters", [{}, FAST, {"algorithm": "gradient_boosting", "class_weight": {"class 0": 3}}]
)
def test_a_training_is_repeated_in_folds(hyperparameters: dict[str, Any]) -> None:
    """Means near the metrics of the held-out rows, with deviations; the model itself is the same as without."""
    X, y = table(400)
    fitted = fit(X, y, hyperparameters, cross_validation=4)
    assert fitted.cross_validation["folds"] == 4
    accuracy = fitted.cross_validation["metrics"]["accuracy"]
    assert abs(accuracy["mean"] - fitted.metrics["validation"]["accuracy"]) < 0.15
    assert 0 < accuracy["std"] < 0.15
    plain = fit(X, y, hyperparameters)
    assert plain.cross_validation == {}
    assert skops_format.dump(plain.pipeline) == skops_format.dump(fitted.pipeline)


@pytest.mark.parametrize("model_type", list(ALGORITHMS))
def test_each_model_type_can_be_cross_validated(model_type: str) -> None:
    """Also with weights; metrics that a fold lacks are left out."""
    X, y = table()
    X["weight"] = 1.0 + (X["a"] > 0)
    target = {"classification": y, "regression": X["a"] * 2 + X["b"]}.get(model_type)
    algorithm = next(iter(ALGORITHMS[model_type]))
    count = {"n_clusters": 3} if algorithm == "kmeans" else {"n_estimators": 5}
    found = fit(X, target, {"algorithm": algorithm, **count}, model_type, cross_validation=3, weight="weight")
    assert found.cross_validation["folds"] == 3
    assert set(found.cross_validation["metrics"]) <= set(found.metrics["validation"])
    expected = {"classification": "accuracy", "regression": "r2"}.get(model_type)
    assert expected is None or found.cross_validation["metrics"][expected]["mean"] > 0


def test_more_folds_than_a_class_has_rows_are_refused() -> None:
    """With the number that would do."""
    X, y = table(60)
    y[:4] = "rare"
    with pytest.raises(TrainingError, match=r"rare has 3 rows.*fewer than 5 folds.*Give cross_validation=3") as caught:
        fit(X, y, cross_validation=5)
    assert caught.value.stage == "validate"


def test_a_cross_validation_that_fails_costs_no_training() -> None:
    """A fold whose customer has all rows of a class is refused before the fit; what an estimator raises is a note."""
    X, _ = table(200)
    X["customer"] = np.arange(200) // 20
    with pytest.raises(TrainingError, match=r"one class only") as caught:
        fit(X, np.where(X["customer"] == 3, "yes", "no"), group="customer", cross_validation=8)
    assert caught.value.stage == "validate"
    stopping = {"algorithm": "gradient_boosting", "early_stopping": True}
    rare = pd.Series(np.where(np.arange(200) < 3, "rare", np.where(np.arange(200) % 2, "a", "b")))
    fitted = fit(X[["a", "b"]], rare, stopping, cross_validation=2)
    assert fitted.cross_validation == {}
    assert any("The cross-validation failed" in note for note in fitted.notes)


@pytest.mark.parametrize("labels", [["yes", "no"], ["0", "1"], [0, 1], [False, True], [1, 2]], ids=str)
@pytest.mark.parametrize(
    ("algorithm", "size"),
    [("logistic_regression", {}), ("gradient_boosting", {"max_iter": 9}), ("random_forest", {"n_estimators": 9})],
)
def test_class_weights_can_be_calibrated(labels: list[Any], algorithm: str, size: dict[str, int]) -> None:
    """Whatever the classes are called; where the numbers of classes are names of others, it is refused."""
    X, y = table(200)
    target = pd.Series([labels[value == "class 1"] for value in y])
    hyperparameters = {"algorithm": algorithm, "class_weight": {str(labels[1]): 5.0}, **size}
    if labels == [1, 2] and algorithm != "gradient_boosting":
        with pytest.raises(TrainingError, match="can't be used with a calibration"):
            fit(X, target, hyperparameters, calibration=Calibration.SIGMOID)
    else:
        found = fit(X, target, hyperparameters, calibration=Calibration.SIGMOID)
        assert found.metrics["validation"]["accuracy"] > 0.5


def test_rare_classes_are_kept() -> None:
    """Rows of a class of one are trained on, none is held out, and a note says so."""
    X, y = table(60)
    y[3], y[7], y[8] = "once", "twice", "twice"
    with pytest.raises(TrainingError, match="train on them unmeasured"):
        fit(X, y)
    fitted = fit(X, y, rare_classes="keep")
    assert {"once", "twice"} <= set(fitted.signature.output.classes)
    assert any("class(es) are trained on, and the held-out metrics don't cover" in note for note in fitted.notes)
    assert fit(X, y, rare_classes="keep", cross_validation=3).cross_validation["folds"] == 3


def test_another_seed_holds_out_other_rows() -> None:
    """And the same seed the same ones."""
    X, y = table()
    scores = [fit(X, y, split_seed=seed).metrics["validation"]["log_loss"] for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]
