"""The selection of an algorithm where a training names none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from ml_core.data.processor import DataProcessor
from ml_core.domain.columns import ColumnKind
from ml_core.domain.tenant_policies import SelfTestRows
from ml_core.exceptions import TrainingError
from ml_core.ids import ModelId
from ml_core.models.formats import skops_format
from ml_core.models.model_factory import ModelFactory
from ml_core.training import candidates, selection
from ml_core.training.fit import IN_PROCESS, FittedModel, fit_model
from ml_core.training.request import TrainingRequest
from support.tables import measures, split_target, tickets

RANDOM = np.random.default_rng(0)
NUMBERS = pd.DataFrame(RANDOM.normal(size=(400, 4)), columns=list("abcd"))
LINE = np.where(NUMBERS["a"] + NUMBERS["b"] + RANDOM.normal(scale=0.3, size=400) > 0, "yes", "no")
TEXT = {"text": ColumnKind.TEXT}
CHECKS = np.where((NUMBERS["a"] > 0) ^ (NUMBERS["b"] > 0), "yes", "no")


def request(X: Any, y: Any, **options: Any) -> TrainingRequest:
    """One that names no algorithm unless told so."""
    return TrainingRequest(ModelId("m"), options.pop("model_type", None), (X, y), **options)


def entries(fitted: FittedModel) -> list[Any]:
    """What was recorded of each candidate."""
    found: list[Any] = fitted.selection["candidates"]
    return found


@pytest.mark.parametrize(("y", "wanted"), [(LINE, "logistic_regression"), (CHECKS, "gradient_boosting")])
def test_it_finds_what_fits_the_table(y: Any, wanted: str) -> None:
    """A line, and a pattern that no line shows; the version records each score, the best one first."""
    fitted = fit_model(request(NUMBERS, y))
    assert fitted.algorithm == wanted
    assert (fitted.selection["metric"], fitted.selection["folds"], fitted.selection["rows"]) == ("log_loss", 5, 320)
    scores = [each["score"] for each in entries(fitted)]
    assert scores == sorted(scores)
    assert len(scores) == 4
    assert [each["hyperparameters"]["algorithm"] for each in entries(fitted) if each["selected"]] == [wanted]
    assert fitted.hyperparameters == {}  # as given
    if wanted == "gradient_boosting":  # as it was measured, whatever the number of rows
        assert fitted.effective_hyperparameters["early_stopping"] is False


def test_numbers_are_selected_by_r2() -> None:
    """The greatest is the best."""
    fitted = fit_model(request(NUMBERS, NUMBERS["a"] * NUMBERS["b"]))
    assert fitted.selection["metric"] == "r2"
    assert fitted.algorithm == "gradient_boosting"
    scores = [each["score"] for each in entries(fitted)]
    assert scores == sorted(scores, reverse=True)


def test_texts_are_a_matter_of_linear_models() -> None:
    """No candidate makes a dense matrix of words."""
    fitted = fit_model(request(*split_target(tickets(), "category")))
    assert {each["hyperparameters"]["algorithm"] for each in entries(fitted)} == {"logistic_regression"}


@pytest.mark.parametrize(
    ("hyperparameters", "wanted"),
    [({"n_estimators": 3}, "random_forest"), ({"algorithm": "decision_tree"}, "decision_tree")],
)
def test_a_named_algorithm_stays_as_it_is(hyperparameters: dict[str, Any], wanted: str) -> None:
    """So does the default of ``ModelFactory``, whose hyperparameters were given without its name."""
    fitted = fit_model(request(NUMBERS, LINE, hyperparameters=hyperparameters))
    assert (fitted.algorithm, fitted.selection) == (wanted, {})


def test_hyperparameters_of_auto_are_those_of_all_candidates() -> None:
    """One that a candidate lacks is refused before data is read."""
    given = {"algorithm": "auto", "class_weight": "balanced", "random_state": np.random.RandomState(0)}
    fitted = fit_model(request(NUMBERS, LINE, hyperparameters=given))
    assert fitted.effective_hyperparameters["class_weight"] == "balanced"
    assert all("class_weight" not in each["hyperparameters"] for each in entries(fitted))  # given, so recorded as such
    assert json.dumps(fitted.selection)  # also of a random state, which has no JSON
    with pytest.raises(TrainingError, match="LogisticRegression has no hyperparameter 'max_depth'"):
        fit_model(
            request(None, LINE, model_type="classification", hyperparameters={"algorithm": "auto", "max_depth": 3})
        )


def test_a_type_without_candidates_says_so() -> None:
    """Its default is trained where nothing is named."""
    with pytest.raises(TrainingError, match="There is no algorithm 'auto' for clustering"):
        fit_model(request(NUMBERS, None, model_type="clustering", hyperparameters={"algorithm": "auto"}))
    assert fit_model(request(NUMBERS, None, model_type="clustering")).algorithm == "kmeans"


def test_a_builder_of_the_callers_own_is_not_passed_over() -> None:
    """Neither a registered one, which may have a hyperparameter of that name, nor an assigned function."""
    ModelFactory.register("neighbours", lambda given: KNeighborsClassifier(**given))
    try:
        auto = request(NUMBERS, LINE, model_type="neighbours", hyperparameters={"algorithm": "auto"})
        assert fit_model(auto).algorithm == "KNeighborsClassifier"
    finally:
        ModelFactory.unregister("neighbours")
    forest = {"algorithm": "random_forest", "n_estimators": 2}
    ModelFactory.register("classification", lambda given: ModelFactory._create_standard_model("classification", forest))
    try:
        assert fit_model(request(NUMBERS, LINE)).effective_hyperparameters["n_estimators"] == 2
    finally:
        ModelFactory.unregister("classification")
    original = ModelFactory.create_model
    ModelFactory.create_model = lambda model_type, _given: ModelFactory._create_standard_model(model_type, forest)
    try:
        assert fit_model(request(NUMBERS, LINE)).effective_hyperparameters["n_estimators"] == 2
    finally:
        ModelFactory.create_model = original


def test_the_choice_does_not_depend_on_the_order_of_the_work() -> None:
    """Nor on the held-out rows, which take no part; so one specification makes one artifact."""

    def backwards(work: Any, items: Any) -> list[Any]:
        return [work(*item) for item in reversed(items)][::-1]

    X, y = split_target(measures(), "outcome")
    fits = [fit_model(request(X, y), execution=each) for each in (IN_PROCESS, replace(IN_PROCESS, spread=backwards))]
    assert fits[0].selection == fits[1].selection
    assert skops_format.dump(fits[0].pipeline) == skops_format.dump(fits[1].pipeline)
    others = [fit_model(request(X, y, validation_data=(X[:50], labels))) for labels in (y[:50], y[50:100])]
    assert others[0].selection == others[1].selection


def test_a_small_budget_takes_rows_then_candidates_away() -> None:
    """By estimates: what is left out says how long it would have taken."""
    X = pd.DataFrame(RANDOM.normal(size=(7_000, 10))).rename(columns=lambda number: f"x{number}")
    y = (X["x0"] > 0).to_numpy()
    fitted = fit_model(request(X, y, selection_seconds=2.0))
    assert fitted.selection["rows"] < 5_600
    assert fitted.selection["folds"] == 3
    large = pd.concat([X, X.rename(columns={})], ignore_index=True)
    of_large = fit_model(request(large, np.r_[y, y], selection_seconds=4.0))
    assert (of_large.selection["folds"], of_large.selection["rows"]) == (1, 11_200)
    cheap = fit_model(request(X, y, selection_seconds=0.001))
    assert (cheap.algorithm, cheap.selection["rows"]) == ("logistic_regression", 1_000)
    assert ["error" in each for each in entries(cheap)] == [False, True, True, True]
    assert "not measured: it would take about" in entries(cheap)[1]["error"]


def test_a_forest_that_would_be_too_large_is_no_candidate() -> None:
    """Many classes make its leaves large."""
    y = np.array([f"class {number}" for number in range(200)] * 20)
    X = pd.DataFrame({"a": RANDOM.normal(size=len(y)), "b": np.arange(len(y)) % 200})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(selection, "_MAX_BYTES", 2**24)
        fitted = fit_model(request(X, y, selection_seconds=1.0))
    assert any("its artifact could take" in each.get("error", "") for each in entries(fitted))
    assert fitted.algorithm != "random_forest"


FAILS = {"algorithm": "naive_bayes", "priors": [0.2, 0.2]}  # refused by the fit


def test_a_candidate_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all of them fail, the fit of the first one says why."""
    both = {"classification": (FAILS, {"algorithm": "logistic_regression"})}
    monkeypatch.setattr(candidates, "_CANDIDATES", both)
    fitted = fit_model(request(NUMBERS, LINE))
    assert fitted.algorithm == "logistic_regression"
    assert "sum of the priors should be 1" in entries(fitted)[1]["error"]
    hidden = fit_model(request(NUMBERS, LINE, self_test_rows=SelfTestRows.SYNTHETIC))
    assert entries(hidden)[1]["error"] == "ValueError"  # its text may quote cells
    monkeypatch.setattr(candidates, "_CANDIDATES", {"classification": (FAILS,)})
    with pytest.raises(TrainingError, match=r"Fitting GaussianNB failed.*sum of the priors should be 1"):
        fit_model(request(NUMBERS, LINE))


class Demanding(DataProcessor):
    """Refuses fewer rows than all that are trained on."""

    def preprocess(self, data: Any, model_type: str | None = None, is_training: bool = True) -> pd.DataFrame:
        if is_training and len(data) < 320:
            raise ValueError("too few rows")
        return super().preprocess(data, model_type, is_training)


def test_what_can_not_be_measured_is_fitted_all_the_same() -> None:
    """By the first candidate; the record says why none has a score."""
    fitted = fit_model(request(NUMBERS, LINE, processor=Demanding()))
    assert fitted.algorithm == "logistic_regression"
    assert all(each["error"] == "ValueError: too few rows" for each in entries(fitted))


def test_a_rare_class_is_in_the_rows_that_each_fold_is_fitted_on() -> None:
    """So a text with two classes, and the weight of such a class, can be measured."""
    texts = pd.DataFrame({"text": [f"word{number} and {number % 7} others" for number in range(80)]})
    y = np.array(["ham"] * 78 + ["spam"] * 2)
    assert all("score" in each for each in entries(fit_model(request(texts, y, kinds=TEXT))))
    weighted = {"algorithm": "auto", "class_weight": {"spam": 5.0}}
    fitted = fit_model(request(NUMBERS[:80], y, hyperparameters=weighted))
    assert all("score" in each for each in entries(fitted))


@pytest.mark.parametrize(
    ("differences", "is_tie"),
    [
        ([0.0, 0.0, 0.0], True),
        ([0.02, -0.01, 0.01], True),
        ([0.009, 0.009, 0.0091], False),  # little, and no chance
        ([0.3, -0.2, 0.1], False),  # chance, and not little
    ],
)
def test_a_tie_goes_to_the_cheaper_one(differences: list[float], is_tie: bool) -> None:
    """A difference that is at most its standard error, and at most a hundredth."""
    best = np.array([1.0, 1.1, 0.9])
    assert selection._is_tie(best + np.array(differences), best) == is_tie


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_what_a_forest_can_be_fitted_on_can_be_selected_on(data: st.DataObject) -> None:
    """Few rows, equal rows, rare classes, targets that hardly vary, texts."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    n_rows = data.draw(st.integers(10, 40))
    different = data.draw(st.integers(2, n_rows))
    X = pd.DataFrame({"a": random.normal(size=different), "b": random.choice(["u", "v", "w"], different)})
    kinds = {}
    if data.draw(st.booleans()):
        X["text"], kinds = [f"some {word} words" for word in random.choice(list("xyz"), different)], TEXT
    X = X.iloc[random.integers(0, different, n_rows)].reset_index(drop=True)
    rare = data.draw(st.integers(2, n_rows // 2))
    model_type = data.draw(st.sampled_from(["classification", "regression"]))
    names = ("rare", "common") if model_type == "classification" else (1.5, 0.0)
    y = np.array([names[0]] * rare + [names[1]] * (n_rows - rare))
    try:
        fit_model(request(X, y, model_type=model_type, kinds=kinds, hyperparameters={"n_estimators": 2}))
    except TrainingError:
        return
    assert fit_model(request(X, y, model_type=model_type, kinds=kinds)).selection["candidates"]
