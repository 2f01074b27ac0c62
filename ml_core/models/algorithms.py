"""The estimators that the platform offers, by model type and name.

The first algorithm of a type is its default. Defaults that differ from scikit-learn's say why. Every estimator here is
on the artifact allow-list, so what is trained with it can be served.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CLASSIFICATION = "classification"
REGRESSION = "regression"
CLUSTERING = "clustering"
ANOMALY_DETECTION = "anomaly_detection"

# The same data gives the same model. scikit-learn's own default for n_jobs is one thread, as a replica wants it.
_COMMON: Mapping[str, Any] = {"random_state": 42}


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One estimator.

    Attributes:
        module: Where it is imported from, when it is first used.
        class_name: Its name there.
        defaults: Parameters that differ from scikit-learn's.
        takes_sparse: Whether it can be fitted on a sparse matrix, which texts become.
    """

    module: str
    class_name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    takes_sparse: bool = True

    def estimator_class(self) -> Any:
        """The class, imported."""
        return getattr(importlib.import_module(self.module), self.class_name)

    def build(self, parameters: Mapping[str, Any]) -> Any:
        """An unfitted estimator; ``parameters`` win over the defaults."""
        cls = self.estimator_class()
        common = {name: value for name, value in _COMMON.items() if name in cls._get_param_names()}
        return cls(**{**common, **self.defaults, **parameters})


# lbfgs needs more than its default of 100 steps on a few thousand words; it stops by itself when it has converged.
_LINEAR_STEPS = {"max_iter": 1_000}
# Nodes of five rows for regression, as in Breiman's and R's randomForest: a tree with one leaf a row is five times as
# large and rarely better.
_REGRESSION_LEAF = {"min_samples_leaf": 5}

ALGORITHMS: Mapping[str, Mapping[str, Algorithm]] = {
    CLASSIFICATION: {
        "random_forest": Algorithm("sklearn.ensemble", "RandomForestClassifier"),
        "extra_trees": Algorithm("sklearn.ensemble", "ExtraTreesClassifier"),
        "gradient_boosting": Algorithm("sklearn.ensemble", "HistGradientBoostingClassifier", takes_sparse=False),
        "logistic_regression": Algorithm("sklearn.linear_model", "LogisticRegression", _LINEAR_STEPS),
        "linear_svm": Algorithm("sklearn.svm", "LinearSVC", {"max_iter": 10_000}),
        "ridge": Algorithm("sklearn.linear_model", "RidgeClassifier"),
        "naive_bayes": Algorithm("sklearn.naive_bayes", "GaussianNB", takes_sparse=False),
        "decision_tree": Algorithm("sklearn.tree", "DecisionTreeClassifier"),
    },
    REGRESSION: {
        "random_forest": Algorithm("sklearn.ensemble", "RandomForestRegressor", _REGRESSION_LEAF),
        "extra_trees": Algorithm("sklearn.ensemble", "ExtraTreesRegressor", _REGRESSION_LEAF),
        "gradient_boosting": Algorithm("sklearn.ensemble", "HistGradientBoostingRegressor", takes_sparse=False),
        "linear_regression": Algorithm("sklearn.linear_model", "LinearRegression"),
        "ridge": Algorithm("sklearn.linear_model", "Ridge"),
        "lasso": Algorithm("sklearn.linear_model", "Lasso"),
        "elastic_net": Algorithm("sklearn.linear_model", "ElasticNet"),
        "linear_svm": Algorithm("sklearn.svm", "LinearSVR", {"max_iter": 10_000}),
        "decision_tree": Algorithm("sklearn.tree", "DecisionTreeRegressor", _REGRESSION_LEAF),
    },
    CLUSTERING: {
        # One start is a coin toss; ten is what scikit-learn used until 1.4.
        "kmeans": Algorithm("sklearn.cluster", "KMeans", {"n_init": 10}),
        "gaussian_mixture": Algorithm("sklearn.mixture", "GaussianMixture", {"n_components": 8}, takes_sparse=False),
    },
    ANOMALY_DETECTION: {
        "isolation_forest": Algorithm("sklearn.ensemble", "IsolationForest"),
    },
}
