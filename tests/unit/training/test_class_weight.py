"""``class_weight``: keys as JSON has them name the classes of any type."""

from functools import cache

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from ml_core.domain.values import category_text
from ml_core.exceptions import TrainingError
from ml_core.ids import ModelId
from ml_core.training.class_weights import set_class_weights
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support.tables import measures, split_target

X, OUTCOME = split_target(measures(), "outcome")
WEIGHTED = ("random_forest", "extra_trees", "gradient_boosting", "logistic_regression", "linear_svm", "ridge")
SIZES = {
    "random_forest": {"n_estimators": 9},
    "extra_trees": {"n_estimators": 9},
    "gradient_boosting": {"max_iter": 9},
}


def fit(labels, class_weight, algorithm="logistic_regression"):
    """Fit with the outcomes renamed to two labels."""
    y = [labels[value == "yes"] for value in OUTCOME]
    hyperparameters = {"algorithm": algorithm, "class_weight": class_weight, **SIZES.get(algorithm, {})}
    return fit_model(TrainingRequest(ModelId("m"), "classification", (X, y), hyperparameters=hyperparameters))


@cache
def plain_answers(weight):
    """The probabilities of a model of ``no`` and ``yes``, of which the second has a weight or none."""
    return fit(("no", "yes"), weight and {"yes": weight}).pipeline.predict_proba(X)


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        ((0, 1), ("0", "1")),
        ((-3, 2**53 + 1), ("-3", "9007199254740993")),
        ((0.0, 1.0), ("0", "1")),
        ((0.0, 1.0), ("0.0", "1.0")),
        ((False, True), ("false", "true")),
        ((False, True), ("False", "True")),
        (("0", "1"), (0, 1)),
        (("no", "yes"), ("no", "yes")),
        (("007", "010"), ("007", "010")),
        ((0, 1), (np.int64(0), np.float64(1))),
    ],
)
def test_a_key_names_the_class_of_its_text(labels, keys):
    """The weights are those that scikit-learn gets when they are written in the classes' own type."""
    meant = plain_answers(25)
    np.testing.assert_array_equal(fit(labels, {keys[0]: 1, keys[1]: 25}).pipeline.predict_proba(X), meant)
    np.testing.assert_array_equal(fit(labels, {keys[1]: 25}).pipeline.predict_proba(X), meant)
    assert not np.allclose(plain_answers(None), meant)


def test_classes_that_are_one_number_to_scikit_learn_need_one_weight():
    """It would give both the weight of either."""
    with pytest.raises(TrainingError, match="reads as the same number"):
        fit(("1", "01"), {"1": 1, "01": 5})


@pytest.mark.parametrize("algorithm", [*WEIGHTED, "decision_tree"])
@pytest.mark.parametrize("labels", [(0, 1), (3, 7), (-1, 0), ("no", "yes"), (False, True)])
def test_every_algorithm_with_class_weights_takes_them(algorithm, labels):
    """Those of JSON, for classes of every type: they answer as with the numbers 0 and 1."""
    named = fit(labels, {category_text(labels[1]): 5}, algorithm).pipeline
    numbered = fit((0, 1), {"0": 1, "1": 5}, algorithm).pipeline
    answer = "predict_proba" if hasattr(named, "predict_proba") else "decision_function"
    np.testing.assert_array_equal(getattr(named, answer)(X), getattr(numbered, answer)(X))


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({"2": 1}, r"weight for '2', which is not a class of the target\. Its classes are: 0, 1\."),
        ({"0": 1, 0: 2}, "two weights for the class 0"),
        ({"0": "much"}, "gives the class '0' the weight 'much'"),
        ({"0": -1}, "gives the class '0' the weight -1"),
        ({"0": float("nan")}, "the weight nan"),
    ],
)
def test_weights_that_mean_nothing_are_refused(class_weight, message):
    """The message names the classes that there are."""
    with pytest.raises(TrainingError, match=message) as caught:
        fit((0, 1), class_weight)
    assert caught.value.stage == "validate"


def test_estimators_inside_of_others_are_reached():
    """A type of the caller's own may wrap one."""
    pipeline = make_pipeline(LinearSVC(class_weight={"7": 2.0}))
    set_class_weights(pipeline, np.array([3, 7]))
    assert pipeline[0].class_weight == {3: 1.0, 7: 2.0}


def test_words_and_none_are_left_alone():
    """``balanced`` is scikit-learn's own."""
    forest = RandomForestClassifier(class_weight="balanced")
    set_class_weights(forest, np.array([3, 7]))
    assert forest.class_weight == "balanced"
