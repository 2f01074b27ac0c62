"""The algorithm ``lightgbm``: deterministic, silent, and kept as a text that answers the same."""

import sys

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from ml_core.exceptions import ModelLoadError, TrainingError
from ml_core.models.formats import skops_format
from ml_core.models.graph import estimators, measure_bytes, tune_for_serving
from ml_core.models.lightgbm_estimators import LightGBMClassifier, LightGBMRegressor
from ml_core.models.model_factory import ModelFactory

RANDOM = np.random.default_rng(0)
X = np.where(RANDOM.random((400, 6)) < 0.1, np.nan, RANDOM.normal(size=(400, 6)))
SCORE = np.nansum(X[:, :2], axis=1)
TARGETS = {
    "two": np.where(SCORE > 0, "yes", "no"),
    "three": np.digitize(SCORE, [-1, 1]),
    "booleans": SCORE > 0.5,
    "number": SCORE,
}


def made(name, **parameters):
    kind = LightGBMRegressor if name == "number" else LightGBMClassifier
    return kind(n_estimators=12, random_state=42, **parameters)


@pytest.mark.parametrize("rows", [X, sparse.csr_matrix(np.nan_to_num(X))], ids=["dense", "sparse"])
@pytest.mark.parametrize("parameters", [{}, {"early_stopping_rounds": 2, "subsample": 0.7}], ids=["all", "stopped"])
@pytest.mark.parametrize("name", TARGETS)
def test_what_is_kept_answers_the_same(name, parameters, rows):
    """To the last bit, and it is written with equal bytes again."""
    estimator = made(name, **parameters).fit(rows, TARGETS[name])
    data = skops_format.dump(estimator)
    reloaded = skops_format.load(data)
    assert skops_format.dump(reloaded) == data
    methods = ("predict",) if name == "number" else ("predict", "predict_proba")
    for method in methods:
        np.testing.assert_array_equal(getattr(reloaded, method)(rows), getattr(estimator, method)(rows))
    assert estimator.score(rows, TARGETS[name]) > 0.7


@pytest.mark.parametrize("scale", [1.0, 1e-35, 1e30])
def test_a_split_of_missing_values_from_all_others_is_kept(scale):
    """Its threshold is infinite. Tables with zeros and missing values have such splits often."""
    are_infinite = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        rows = random.normal(size=(300, 4)) * scale * (random.random((300, 4)) >= 0.4)
        target = rows[:, 0] / scale + random.normal(size=300) / 4 > 0
        rows[random.random(rows.shape) < 0.2] = np.nan
        estimator = LightGBMClassifier(n_estimators=8, random_state=0).fit(rows, target)
        reloaded = skops_format.load(skops_format.dump(estimator))
        asked = np.concatenate([rows, np.full((1, 4), np.nan), np.full((1, 4), 3e38), np.full((1, 4), -3e38)])
        np.testing.assert_array_equal(reloaded.predict_proba(asked), estimator.predict_proba(asked))
        are_infinite += [np.isinf(tree.get("threshold", np.zeros(1))).any() for tree in estimator.trees()]
    assert any(are_infinite)


@pytest.mark.parametrize("name", TARGETS)
def test_equal_trainings_have_equal_bytes_with_any_number_of_threads(name):
    """Two jobs of one spec give one digest, however many cores they have."""
    kept = [made(name, n_jobs=jobs).fit(X, TARGETS[name]).__getstate__()["text_"].tobytes() for jobs in (1, 2, None)]
    assert kept[0] == kept[1] == kept[2]


def test_the_text_keeps_nothing_of_the_training():
    """Neither ranges of features nor weights, settings or addresses; counts of rows are what explanations need."""
    text = made("two").fit(X, TARGETS["two"]).__getstate__()["text_"].tobytes().decode()
    assert not [word for word in ("weight", "parameters", "machines", "[", "internal_value") if word in text]


def test_it_is_silent(capfd):
    """LightGBM prints by default, here with a table from which it learns nothing as well."""
    estimator = made("two").fit(X, TARGETS["two"])
    made("number").fit(np.ones((30, 2)), np.arange(30.0))
    skops_format.load(skops_format.dump(estimator)).predict(X)
    assert capfd.readouterr() == ("", "")


def test_early_stopping_keeps_the_best_round():
    """Of noise the first rounds are the best."""
    noise = np.random.default_rng(1).normal(size=400)
    estimator = LightGBMRegressor(n_estimators=300, early_stopping_rounds=5, random_state=42).fit(X, noise)
    assert estimator._booster.num_trees() < 100


def test_class_weights_move_the_answers():
    """A class of weight 20 is predicted more often."""
    plain, weighted = (made("two", class_weight=w).fit(X, TARGETS["two"]) for w in (None, {"yes": 20.0, "no": 1.0}))
    assert weighted.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean() + 0.05


def test_importances_are_those_of_the_splits():
    """Two features decide."""
    importances = made("number").fit(X, TARGETS["number"]).feature_importances_
    assert importances.sum() == pytest.approx(1.0)
    assert set(np.argsort(importances)[-2:]) == {0, 1}


def test_it_is_an_estimator_of_scikit_learn():
    """Cloned without what was fitted; served on one thread; measured with its trees."""
    estimator = made("two", num_leaves=7).fit(X, TARGETS["two"])
    with pytest.raises(NotFittedError):
        clone(estimator).predict(X)
    assert clone(estimator).get_params() == estimator.get_params()
    assert measure_bytes(estimator) > estimator._text_bytes > 1_000
    tune_for_serving(estimator)
    assert [part.n_jobs for part in estimators(estimator)] == [1]


@pytest.mark.parametrize("n_features", [5, 7])
def test_rows_of_another_width_are_refused(n_features):
    """Compiled code would read beside them."""
    with pytest.raises(ValueError, match="features"):
        made("two").fit(X, TARGETS["two"]).predict(np.zeros((1, n_features)))


@pytest.mark.parametrize("target", [np.full(400, 1e39), np.full(400, np.nan)])
def test_a_target_that_lightgbm_can_not_hold_is_refused(target):
    """It keeps float32 and would train on infinity."""
    with pytest.raises(ValueError, match=r"targets below|NaN"):
        made("number").fit(X, target)


@pytest.mark.parametrize("model_type", ["classification", "regression"])
@pytest.mark.parametrize(("alias", "name"), sorted(LightGBMClassifier.parameter_aliases().items()))
def test_an_alias_of_lightgbm_is_refused_with_its_name(model_type, alias, name):
    """LightGBM would take both and choose one."""
    with pytest.raises(TrainingError, match=f"'{alias}'.* Use {name},") as caught:
        ModelFactory.create_model(model_type, {"algorithm": "lightgbm", alias: 1})
    assert caught.value.stage == "validate"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_leafs": 3}, "'num_leafs'.*Did you mean num_leaves"),
        ({"linear_tree": True}, "'linear_tree'"),
        ({"num_leaves": 1}, "num_leaves"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"subsample": 1.5}, "subsample"),
        ({"n_estimators": 10**6}, "n_estimators"),
    ],
)
def test_what_is_not_valid_is_refused(given, message):
    """As for every algorithm."""
    with pytest.raises(TrainingError, match=message):
        ModelFactory.create_model("classification", {"algorithm": "lightgbm", **given})


@pytest.fixture
def without_lightgbm(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    monkeypatch.delitem(sys.modules, "ml_core.models.lightgbm_estimators")


def test_without_the_library_a_training_says_what_to_install(without_lightgbm):
    """Before there is any data."""
    with pytest.raises(TrainingError, match=r"pip install 'ml-core-platform\[lightgbm\]'") as caught:
        ModelFactory.create_model("classification", {"algorithm": "lightgbm"})
    assert caught.value.stage == "validate"


def test_without_the_library_a_replica_says_what_to_install(monkeypatch):
    """The version is on its list, but can't be built."""
    data = skops_format.dump(made("two").fit(X, TARGETS["two"]))
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    monkeypatch.delitem(sys.modules, "ml_core.models.lightgbm_estimators")
    with pytest.raises(ModelLoadError, match=r"pip install 'ml-core-platform\[lightgbm\]'"):
        skops_format.load(data)
