"""Estimators of scikit-learn that are one formula, computed with NumPy alone.

For one row, scikit-learn spends its time on checks of what the platform's encoder made (60 to 100 µs). The operations
are scikit-learn's, in its order, so that the answers are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ml_core.models.ensembles import Answer, family_of

Answerer = Callable[[Any], Answer]
"""From ``(n_rows, width)`` float64 features, an array or CSR, that the platform's encoder made, to the answer."""

_MODULES = ("sklearn.linear_model.", "sklearn.naive_bayes", "sklearn.svm.", "sklearn.tree.", "sklearn.ensemble.")


def formula_of(estimator: Any) -> Answerer | None:
    """The formula of a fitted estimator; None if there is none here."""
    cls = type(estimator)
    make = _FORMULAS.get(cls.__name__) if cls.__module__.startswith(_MODULES) else None
    return None if make is None else make(estimator)


def _number(estimator: Any) -> Answerer | None:
    coefficients, intercept = estimator.coef_, estimator.intercept_
    if not _is_plain(coefficients) or coefficients.ndim != 1:
        return None
    return lambda features: Answer(features @ coefficients + intercept)


def _is_plain(coefficients: Any) -> bool:
    return isinstance(coefficients, np.ndarray) and coefficients.dtype == np.float64


def _scores(estimator: Any) -> Callable[[Any], NDArray[np.float64]] | None:
    """``decision_function`` of a linear classifier: ``(n_rows,)`` for two classes, else ``(n_rows, n_classes)``."""
    coefficients, intercept, classes = estimator.coef_, estimator.intercept_, estimator.classes_
    if not _is_plain(coefficients) or not isinstance(classes, np.ndarray):
        return None
    turned = coefficients.T
    if len(classes) != 2:
        is_usual = coefficients.shape[:-1] == (len(classes),)
        return (lambda features: features @ turned + intercept) if is_usual else None
    if coefficients.ndim == 1:
        return lambda features: features @ turned + intercept
    return (lambda features: (features @ turned + intercept)[:, 0]) if len(coefficients) == 1 else None


def _label(estimator: Any) -> Answerer | None:
    """Of a classifier without probabilities."""
    scores, classes = _scores(estimator), estimator.classes_
    if scores is None or hasattr(estimator, "predict_proba"):
        return None
    is_binary = len(classes) == 2

    def answer(features: Any) -> Answer:
        found = scores(features)
        best = (found > 0).astype(np.intp) if is_binary else found.argmax(axis=1)
        return Answer(classes.take(best))

    return answer


def _logistic(estimator: Any) -> Answerer | None:
    scores, classes = _scores(estimator), estimator.classes_
    if scores is None:
        return None

    def binary(features: Any) -> Answer:
        found = scores(features)
        probabilities = np.empty((len(found), 2))
        second = expit(found, out=probabilities[:, 1])
        np.subtract(1, second, out=probabilities[:, 0])
        return Answer(classes.take((found > 0).astype(np.intp)), probabilities)

    def several(features: Any) -> Answer:
        found = scores(features)
        labels = classes.take(found.argmax(axis=1))
        found -= found.max(axis=1).reshape(-1, 1)
        np.exp(found, out=found)
        found /= found.sum(axis=1).reshape(-1, 1)
        return Answer(labels, found)

    return binary if len(classes) == 2 else several


def _normal(estimator: Any) -> Answerer | None:
    """Naive Bayes of normal distributions."""
    classes, variances = estimator.classes_, estimator.var_
    if variances.dtype != np.float64:
        return None
    scales = [-0.5 * np.sum(np.log(2.0 * np.pi * variance)) for variance in variances]
    parts = list(zip(np.log(estimator.class_prior_), scales, estimator.theta_, variances, strict=True))

    def answer(features: Any) -> Answer:
        joint = np.stack(
            [prior + (scale - 0.5 * np.sum((features - mean) ** 2 / of, axis=1)) for prior, scale, mean, of in parts]
        ).T
        # The logarithm of the sum of exponentials: what is largest is kept out of the sum, which it would round.
        largest = joint.max(axis=1, keepdims=True)
        is_largest = joint == largest
        how_many = is_largest.sum(axis=1, keepdims=True, dtype=np.float64)
        others = np.where(is_largest, -np.inf, joint) - np.where(np.isfinite(largest), largest, 0.0)
        others = np.exp(others).sum(axis=1, keepdims=True)
        others = np.where(others == 0, others, others / how_many)
        total = np.log1p(others) + np.log(how_many) + largest
        return Answer(classes.take(joint.argmax(axis=1)), np.exp(joint - total))

    return answer


def _classifying_tree(estimator: Any) -> Answerer | None:
    tree, classes = estimator.tree_, estimator.classes_
    if estimator.n_outputs_ != 1:
        return None

    def answer(features: Any) -> Answer:
        probabilities = tree.predict(features.astype(np.float32))[:, : len(classes)]
        return Answer(classes.take(probabilities.argmax(axis=1)), probabilities)

    return answer


def _regressing_tree(estimator: Any) -> Answerer | None:
    tree = estimator.tree_
    if estimator.n_outputs_ != 1:
        return None
    return lambda features: Answer(tree.predict(features.astype(np.float32))[:, 0])


def _forest(estimator: Any) -> Answerer | None:
    """The trees one by one, without the threads and checks of scikit-learn, which take twenty times as long."""
    family, trees = family_of(estimator), [each.tree_ for each in estimator.estimators_]
    if family is None or estimator.n_outputs_ != 1:
        return None
    answer_of = family.answer(estimator)

    def answer(features: Any) -> Answer:
        rounded = features.astype(np.float32)
        means = np.zeros((rounded.shape[0], trees[0].value.shape[2]))
        for tree in trees:
            means += tree.predict(rounded)
        means /= len(trees)
        return answer_of(means)

    return answer


def _boosting(estimator: Any) -> Answerer | None:
    """Labels and probabilities of one sum. The label is that of the sum: beside 0 both probabilities are 0.5."""
    family = family_of(estimator)
    if family is None:
        return None
    answer_of = family.answer(estimator)
    return lambda features: answer_of(estimator._raw_predict(features))


_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier", "RandomForestRegressor", "ExtraTreesRegressor")
_FORMULAS: Mapping[str, Callable[[Any], Answerer | None]] = {
    **dict.fromkeys(("LinearRegression", "Ridge", "Lasso", "ElasticNet", "LinearSVR", "SGDRegressor"), _number),
    **dict.fromkeys(("LinearSVC", "RidgeClassifier", "SGDClassifier"), _label),
    **dict.fromkeys(_FORESTS, _forest),
    **dict.fromkeys(("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _boosting),
    "GaussianNB": _normal,
    "LogisticRegression": _logistic,
    "DecisionTreeClassifier": _classifying_tree,
    "DecisionTreeRegressor": _regressing_tree,
}
