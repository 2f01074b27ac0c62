"""``ModelFactory``: the standard types, both ways of extending it, and messages that name what is valid."""

import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import IsolationForest, RandomForestClassifier, RandomForestRegressor

from ml_core.exceptions import TrainingError
from ml_core.models.algorithms import ALGORITHMS, algorithm_of
from ml_core.models.formats.allowed_types import ALLOWED
from ml_core.models.model_factory import ModelFactory

EVERY = [(model_type, name) for model_type, algorithms in ALGORITHMS.items() for name in algorithms]


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("classification", RandomForestClassifier),
        ("regression", RandomForestRegressor),
        ("anomaly_detection", IsolationForest),
    ],
)
def test_the_default_is_a_forest_where_it_fits(model_type, expected):
    """Seeded, so the same data gives the same model."""
    estimator = ModelFactory.create_model(model_type, {})
    assert type(estimator) is expected
    assert estimator.random_state == 42


@pytest.mark.parametrize(("model_type", "name"), EVERY)
def test_every_algorithm_is_one_that_a_server_loads(model_type, name):
    """What the platform trains is on the allow-list, and its defaults are valid."""
    estimator = ModelFactory.create_model(model_type, {"algorithm": name})
    assert f"{type(estimator).__module__}.{type(estimator).__qualname__}" in ALLOWED["ObjectNode"]


def test_hyperparameters_reach_the_estimator():
    """They win over the platform's defaults."""
    estimator = ModelFactory.create_model("regression", {"n_estimators": 7, "min_samples_leaf": 1, "random_state": 1})
    assert (estimator.n_estimators, estimator.min_samples_leaf, estimator.random_state) == (7, 1, 1)


@pytest.mark.parametrize(
    ("model_type", "hyperparameters", "message"),
    [
        ("classification", {"n_estimatrs": 5}, "'n_estimatrs'.*Did you mean n_estimators"),
        ("classification", {"algoritm": "x"}, "'algoritm'.*Did you mean algorithm"),
        ("classification", {"algorithm": "random_forrest"}, "'random_forrest'.*Did you mean random_forest"),
        ("classification", {"zzz": 1}, "'zzz'.*Valid are: algorithm"),
        ("classificaton", {}, "'classificaton'.*Did you mean classification"),
        ("classification", {"n_estimators": -1}, "n_estimators.*Correct it"),
        ("classification", {"n_estimators": "many"}, "n_estimators.*Correct it"),
    ],
)
def test_what_is_not_valid_is_named_with_the_nearest(model_type, hyperparameters, message):
    """Before any data is looked at."""
    with pytest.raises(TrainingError, match=message) as caught:
        ModelFactory.create_model(model_type, hyperparameters)
    assert caught.value.stage == "validate"


def test_a_registered_type_is_built_by_its_builder():
    """The builder gets the hyperparameters."""
    ModelFactory.register("custom", lambda hyperparameters: DummyClassifier(**hyperparameters))
    try:
        assert ModelFactory.create_model("custom", {"strategy": "uniform"}).strategy == "uniform"
        assert "custom" in ModelFactory.model_types()
    finally:
        ModelFactory.unregister("custom")
    with pytest.raises(TrainingError):
        ModelFactory.create_model("custom", {})


@pytest.mark.parametrize("caller", [ModelFactory, ModelFactory()], ids=["class", "instance"])
def test_the_older_way_of_extending_works(monkeypatch, caller):
    """A function assigned to create_model, which falls back to the standard types."""

    def create_model(model_type, hyperparameters):
        if model_type == "custom":
            return DummyClassifier(**hyperparameters)
        return ModelFactory._create_standard_model(model_type, hyperparameters)

    monkeypatch.setattr(ModelFactory, "create_model", create_model)
    assert isinstance(caller.create_model("custom", {"strategy": "uniform"}), DummyClassifier)
    assert isinstance(caller.create_model("classification", {}), RandomForestClassifier)


def test_estimators_that_need_dense_input_are_known():
    """So that texts are made dense for them."""
    name, boosting = algorithm_of(ModelFactory.create_model("classification", {"algorithm": "gradient_boosting"}))
    assert name == "gradient_boosting"
    assert not boosting.takes_sparse
    name, forest = algorithm_of(ModelFactory.create_model("classification", {}))
    assert name == "random_forest"
    assert forest.takes_sparse
    assert algorithm_of(DummyClassifier()) == ("DummyClassifier", None)
