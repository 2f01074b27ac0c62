"""The algorithms of the platform, by model type and name.

The first algorithm of a type is its default. All estimators are on the artifact allow-list, so their versions can be
served.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_core.exceptions import TrainingError

CLASSIFICATION = "classification"
REGRESSION = "regression"
CLUSTERING = "clustering"
ANOMALY_DETECTION = "anomaly_detection"

# A fixed seed makes training reproducible. n_jobs is not set: scikit-learn's default, one thread, suits a replica.
_COMMON: Mapping[str, Any] = {"random_state": 42}


@dataclass(frozen=True, slots=True)
class Algorithm:
    """An algorithm: an estimator, whose module is imported on first use.

    Attributes:
        defaults: Parameters that differ from scikit-learn's defaults.
        takes_sparse: Whether it accepts a sparse matrix, which encoded texts are.
        extra: The optional extra of the platform that installs its library, if any.
    """

    module: str
    class_name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    takes_sparse: bool = True
    extra: str | None = None

    def estimator_class(self) -> Any:
        """Import the class of the estimator.

        Raises:
            TrainingError: The library of an optional extra is missing or can't be loaded; ``stage`` is ``validate``.
        """
        try:
            return getattr(importlib.import_module(self.module), self.class_name)
        except (ImportError, OSError) as error:  # OSError: a library of the system is missing, such as libgomp
            if self.extra is None:
                raise
            raise TrainingError(
                f"The library of {self.class_name} can't be imported.",
                remedy=f"Install it where models are trained and served: pip install 'ml-core-platform[{self.extra}]'.",
                stage="validate",
            ) from error

    def build(self, parameters: Mapping[str, Any]) -> Any:
        """Create an unfitted estimator; ``parameters`` override the defaults."""
        cls = self.estimator_class()
        common = {name: value for name, value in _COMMON.items() if name in cls._get_param_names()}
        return cls(**{**common, **self.defaults, **parameters})


# lbfgs needs more than its default of 100 steps for a few thousand words. It stops when it has converged.
_LINEAR_STEPS = {"max_iter": 1_000}
# Leaves of five rows for regression, as in R's randomForest: one leaf per row makes trees five times as large and
# rarely better.
_REGRESSION_LEAF = {"min_samples_leaf": 5}
_LIGHTGBM = "ml_core.models.lightgbm_estimators"

ALGORITHMS: Mapping[str, Mapping[str, Algorithm]] = {
    CLASSIFICATION: {
        "random_forest": Algorithm("sklearn.ensemble", "RandomForestClassifier"),
        "extra_trees": Algorithm("sklearn.ensemble", "ExtraTreesClassifier"),
        "gradient_boosting": Algorithm("sklearn.ensemble", "HistGradientBoostingClassifier", takes_sparse=False),
        "lightgbm": Algorithm(_LIGHTGBM, "LightGBMClassifier", extra="lightgbm"),
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
        "lightgbm": Algorithm(_LIGHTGBM, "LightGBMRegressor", extra="lightgbm"),
        "linear_regression": Algorithm("sklearn.linear_model", "LinearRegression"),
        "ridge": Algorithm("sklearn.linear_model", "Ridge"),
        "lasso": Algorithm("sklearn.linear_model", "Lasso"),
        "elastic_net": Algorithm("sklearn.linear_model", "ElasticNet"),
        "linear_svm": Algorithm("sklearn.svm", "LinearSVR", {"max_iter": 10_000}),
        "decision_tree": Algorithm("sklearn.tree", "DecisionTreeRegressor", _REGRESSION_LEAF),
    },
    CLUSTERING: {
        # The result of one start is random; ten was scikit-learn's default until 1.4.
        "kmeans": Algorithm("sklearn.cluster", "KMeans", {"n_init": 10}),
        "gaussian_mixture": Algorithm("sklearn.mixture", "GaussianMixture", {"n_components": 8}, takes_sparse=False),
    },
    ANOMALY_DETECTION: {
        "isolation_forest": Algorithm("sklearn.ensemble", "IsolationForest"),
    },
}


def algorithm_of(estimator: Any) -> tuple[str, Algorithm | None]:
    """The name and the algorithm of an estimator; of one that is not the platform's the name of its class, and None."""
    name = type(estimator).__name__
    known = (item for algorithms in ALGORITHMS.values() for item in algorithms.items())
    return next((item for item in known if item[1].class_name == name), (name, None))
