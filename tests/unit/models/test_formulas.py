"""Formulas: equal to scikit-learn to the last bit, over generated models, matrices and labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn import linear_model, naive_bayes, svm, tree
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from threadpoolctl import threadpool_limits

from ml_core.models.formulas import formula_of

CLASSIFIERS = {
    "logistic": lambda: linear_model.LogisticRegression(),
    "logistic without intercept": lambda: linear_model.LogisticRegression(fit_intercept=False),
    "svm": lambda: svm.LinearSVC(max_iter=100),
    "ridge": lambda: linear_model.RidgeClassifier(),
    "sgd": lambda: linear_model.SGDClassifier(max_iter=5),
    "tree": lambda: tree.DecisionTreeClassifier(max_depth=4),
    "naive bayes": lambda: naive_bayes.GaussianNB(),
    "forest": lambda: RandomForestClassifier(7, max_depth=3),
    "extra trees": lambda: ExtraTreesClassifier(7),
}
REGRESSORS = {
    "linear": linear_model.LinearRegression,
    "ridge": linear_model.Ridge,
    "lasso": lambda: linear_model.Lasso(0.1),
    "elastic net": lambda: linear_model.ElasticNet(0.1),
    "svm": lambda: svm.LinearSVR(max_iter=100),
    "sgd": lambda: linear_model.SGDRegressor(max_iter=5),
    "tree": tree.DecisionTreeRegressor,
    "forest": lambda: RandomForestRegressor(7),
    "extra trees": lambda: ExtraTreesRegressor(7),
}
LABELS = {
    "two texts": lambda numbers: np.where(numbers > 1, "yes", "no"),
    "texts of many lengths": lambda numbers: np.array(["a", "bb", "ccc", "dddd"], dtype=object)[numbers],
    "integers": lambda numbers: numbers * 10 - 5,
    "booleans": lambda numbers: numbers > 1,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", list(CLASSIFIERS | REGRESSORS))
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), width=st.integers(1, 30), labels=st.sampled_from(sorted(LABELS)))
def test_a_formula_is_scikit_learn_to_the_last_bit(kind, seed, width, labels):
    random = np.random.default_rng(seed)
    features = random.normal(size=(60, width))
    numbers = np.arange(60) % 4
    with threadpool_limits(1):
        if kind in CLASSIFIERS:
            _compare(CLASSIFIERS[kind]().fit(features, LABELS[labels](numbers)), features, random)
        if kind in REGRESSORS:
            _compare(REGRESSORS[kind]().fit(features, numbers + random.normal(size=60)), features, random)


def _compare(estimator, fitted_on, random):
    formula = formula_of(estimator)
    width = fitted_on.shape[1]
    dense = [fitted_on, random.normal(size=(1, width)), random.normal(size=(64, width)) * 1e6, np.zeros((3, width))]
    few = random.normal(size=(9, width)) * (random.random((9, width)) < 0.3)
    takes_sparse = estimator.__sklearn_tags__().input_tags.sparse
    for rows in (*dense, *([sparse.csr_matrix(few), sparse.csr_matrix(few[:1])] if takes_sparse else [few])):
        answer, wanted = formula(rows), estimator.predict(rows)
        assert answer.predictions.dtype == wanted.dtype
        np.testing.assert_array_equal(answer.predictions, wanted, strict=True)
        if hasattr(estimator, "predict_proba"):
            np.testing.assert_array_equal(answer.probabilities, estimator.predict_proba(rows), strict=True)
        else:
            assert answer.probabilities is None


@pytest.mark.parametrize(
    "sums", [[[1e-20], [-1e-20], [0.0]], [[1.0, 1.0, 1.0 + 2e-16], [0.0, 0.0, 5e-324], [0.5, 0.5, 0.5]]]
)
def test_boosting_decides_by_its_sums(monkeypatch, sums):
    """As scikit-learn does, where probabilities are equal: so a row has one label, whatever form answers its batch."""
    features = np.arange(40.0).reshape(-1, 1)
    estimator = HistGradientBoostingClassifier(max_iter=2).fit(features, np.arange(40) % max(2, len(sums[0])))
    monkeypatch.setattr(estimator, "_raw_predict", lambda _: np.array(sums))
    answer = formula_of(estimator)(features)
    np.testing.assert_array_equal(answer.predictions, estimator.predict(features), strict=True)
    np.testing.assert_array_equal(answer.probabilities, estimator.predict_proba(features), strict=True)
    assert (answer.predictions != estimator.classes_[answer.probabilities.argmax(axis=1)]).any()


def test_boosting_is_scikit_learn_to_the_last_bit():
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 4))
    classes = [HistGradientBoostingClassifier(max_iter=9).fit(features, features[:, 0] > each) for each in (0, 0.5)]
    of_three = HistGradientBoostingClassifier(max_iter=9).fit(features, np.array(["a", "b", "c"])[np.arange(200) % 3])
    for estimator in (*classes, of_three):
        for rows in (features, features[:1]):
            answer = formula_of(estimator)(rows)
            np.testing.assert_array_equal(answer.predictions, estimator.predict(rows), strict=True)
            np.testing.assert_array_equal(answer.probabilities, estimator.predict_proba(rows), strict=True)
    for loss in ("squared_error", "poisson", "gamma"):
        estimator = HistGradientBoostingRegressor(loss=loss, max_iter=9).fit(features, np.exp(features[:, 0]))
        np.testing.assert_array_equal(
            formula_of(estimator)(features).predictions, estimator.predict(features), strict=True
        )


def test_what_the_formula_does_not_cover_has_none():
    """Several targets, coefficients that were made sparse, and a loss with probabilities of its own."""
    random = np.random.default_rng(0)
    features, target = random.normal(size=(30, 4)), random.normal(size=(30, 2))
    assert formula_of(linear_model.LinearRegression().fit(features, target)) is None
    assert formula_of(tree.DecisionTreeRegressor().fit(features, target)) is None
    assert formula_of(RandomForestRegressor(2).fit(features, target)) is None
    labels = target[:, 0] > 0
    assert formula_of(linear_model.SGDClassifier(loss="log_loss").fit(features, labels)) is None
    assert formula_of(linear_model.SGDClassifier().fit(features, labels).sparsify()) is None

    class LogisticRegression(linear_model.LogisticRegression):
        """Of the same name, from elsewhere."""

    assert formula_of(LogisticRegression().fit(features, labels)) is None
