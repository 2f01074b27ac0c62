"""Estimators from the statistics of parts, against scikit-learn's on all rows, on its own data sets."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.base import is_classifier
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler

from ml_core.training.moments import fit_from, summarize

TOLERANCE = 1e-9
NUMBERS = ("theta_", "var_", "epsilon_", "class_count_", "class_prior_", "coef_", "intercept_")
CASES = {
    "naive Bayes of three classes": (GaussianNB(), "load_wine"),
    "naive Bayes with priors": (GaussianNB(priors=[0.3, 0.7]), "load_breast_cancer"),
    "naive Bayes of features that don't vary": (GaussianNB(var_smoothing=1e-3), "load_digits"),
    "ridge of two classes": (RidgeClassifier(), "load_breast_cancer"),
    "ridge of ten classes": (RidgeClassifier(alpha=0.1), "load_digits"),
    "ridge regression": (Ridge(alpha=3.0), "load_diabetes"),
}


@cache
def scaled(name: str):
    """The features, as an encoder scales them, and the target."""
    X, y = getattr(datasets, name)(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def merged(estimator, X, y, cuts):
    """A copy of the estimator, fitted from the parts between the cuts."""
    made = type(estimator)(**estimator.get_params())
    classes = np.unique(y) if is_classifier(estimator) else None
    parts = zip(np.split(X, cuts), np.split(y, cuts), strict=True)
    fit_from(made, [summarize(made, *part, classes) for part in parts], classes)
    return made


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=15)
@given(shares=st.lists(st.floats(0, 1), max_size=6))
def test_any_parts_give_the_estimator_of_all_rows(case, shares):
    """Within the tolerance, with the same attributes; parts may be empty or lack a class."""
    estimator, name = CASES[case]
    X, y = scaled(name)
    whole = type(estimator)(**estimator.get_params()).fit(X, y)
    made = merged(estimator, X, y, sorted(int(share * len(y)) for share in shares))
    assert list(vars(made)) == list(vars(whole))
    for attribute in set(NUMBERS) & vars(whole).keys():
        expected, found = getattr(whole, attribute), getattr(made, attribute)
        assert type(found) is type(expected), attribute
        assert np.shape(found) == np.shape(expected), attribute
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max())
    assert (made.predict(X) == whole.predict(X)).all() or not is_classifier(estimator)


def test_large_means_cost_no_digits():
    """Sums of squares would lose them all."""
    random = np.random.default_rng(0)
    X, y = random.normal(1e9, 1.0, (3_000, 4)), random.choice(["a", "b"], 3_000)
    found = merged(GaussianNB(), X, y, [10, 1_500])
    np.testing.assert_allclose(found.var_, GaussianNB().fit(X, y).var_, rtol=1e-6)


def test_parameters_that_do_not_fit_are_refused_as_by_a_fit():
    """The error is scikit-learn's."""
    X, y = scaled("load_wine")
    with pytest.raises(ValueError, match="Number of priors"):
        merged(GaussianNB(priors=[0.5, 0.5]), X, y, [5])
