"""The spaces of a search: defaults for each algorithm, and the check of a caller's own against the estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

from ml_core.domain.keywords import nearest
from ml_core.domain.search_space import Dimension
from ml_core.domain.signature import OutputKind
from ml_core.domain.train_spec import TrainSpec
from ml_core.domain.tune_spec import AUTO, MAX_TRIALS, Sampler, TuneSpec
from ml_core.exceptions import ConfigurationError, InvalidRequestError, MLFrameworkError, TrainingError, shown
from ml_core.models.algorithms import ALGORITHMS, CLASSIFICATION, REGRESSION
from ml_core.models.model_factory import ModelFactory, find_algorithm
from ml_core.training.targets import OUTPUTS, invalid

Space: TypeAlias = Mapping[str, Dimension]

_TREES = {"n_estimators": "log:50:400", "max_features": ["sqrt", 0.3, 0.6, 1.0], "min_samples_leaf": "log:1:20"}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "random_forest": _TREES,
    "extra_trees": _TREES,
    "gradient_boosting": {
        "learning_rate": "log:0.01:0.3",
        "max_iter": "log:50:500",
        "max_leaf_nodes": "log:7:127",
        "min_samples_leaf": "log:5:100",
        "l2_regularization": "log:0.000001:10",
    },
    "lightgbm": {
        "learning_rate": "log:0.01:0.3",
        "n_estimators": "log:50:500",
        "num_leaves": "log:7:127",
        "min_child_samples": "log:5:100",
        "reg_lambda": "log:0.000001:10",
    },
    "logistic_regression": {"C": "log:0.001:100"},
    "linear_svm": {"C": "log:0.001:100"},
    "ridge": {"alpha": "log:0.001:1000"},
    "lasso": {"alpha": "log:0.0001:10"},
    "elastic_net": {"alpha": "log:0.0001:10", "l1_ratio": "0.05..0.95"},
    "naive_bayes": {"var_smoothing": "log:0.000000000001:1"},
    "decision_tree": {"max_depth": "2..30", "min_samples_leaf": "log:1:50"},
    "kmeans": {"n_clusters": "2..20"},
    "gaussian_mixture": {"n_components": "2..20", "covariance_type": ["full", "tied", "diag", "spherical"]},
    "isolation_forest": {"n_estimators": "log:50:400", "max_samples": ["auto", 0.25, 0.5, 1.0]},
}
_AUTO: Mapping[str, Sequence[str]] = {
    CLASSIFICATION: ("logistic_regression", "gradient_boosting", "random_forest"),
    REGRESSION: ("ridge", "gradient_boosting", "random_forest"),
}
"""Model type → the algorithms that ``auto`` searches over; of another type its default algorithm."""
_METRICS: Mapping[OutputKind, Sequence[str]] = {
    OutputKind.CLASSES: ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "roc_auc"),
    OutputKind.NUMBER: ("r2", "mae", "rmse"),
    OutputKind.CLUSTER: ("silhouette", "davies_bouldin", "adjusted_rand"),
    OutputKind.ANOMALY: ("roc_auc", "average_precision"),
}
"""Output → the metrics by which a configuration can be chosen; the first one is the default."""
_OF_PROBABILITIES = ("log_loss", "roc_auc")


def check_search(search: TuneSpec, training: TrainSpec) -> None:
    """Refuse a search that can't be done, whatever the data.

    A training without a model type is one of classification or regression: what fits neither is refused.

    Raises:
        ConfigurationError: The sampler is not installed.
        MLFrameworkError: As ``spaces_of`` and ``metric_of``.
    """
    if search.sampler is Sampler.OPTUNA and find_spec("optuna") is None:
        raise ConfigurationError(
            "The sampler optuna needs Optuna, which is not installed.",
            remedy='Install it with pip install "ml-core-platform[search]", or use the sampler random.',
            setting="sampler",
        )
    errors: list[MLFrameworkError] = []
    for model_type in (CLASSIFICATION, REGRESSION) if training.model_type is None else (training.model_type,):
        try:
            metric_of(search, model_type, spaces_of(search, model_type, training.hyperparameters))
        except MLFrameworkError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def spaces_of(search: TuneSpec, model_type: str, fixed: Mapping[str, Any]) -> Mapping[str, Space]:
    """The spaces of a search by algorithm, checked against the estimators.

    Args:
        search: The search.
        model_type: A standard one.
        fixed: The hyperparameters that are the same in all trials.

    Raises:
        TrainingError: The model type, the algorithm or a hyperparameter does not exist; a value is outside of the
            estimator's bounds; or the algorithm has no default space.
        InvalidRequestError: A hyperparameter is both fixed and searched, or a grid can't be made.
    """
    if "algorithm" in fixed or (search.algorithm == AUTO and fixed):
        raise _refused(
            f"The hyperparameter {next(iter(fixed))!r} is fixed, and the algorithm is that of the search.",
            "Give the algorithm as a field of the search, and its fixed hyperparameters with the training.",
        )
    find_algorithm(model_type, None)  # the type, before its algorithms
    names = (
        _AUTO.get(model_type, tuple(ALGORITHMS[model_type])[:1]) if search.algorithm == AUTO else (search.algorithm,)
    )
    spaces = {name: _space(search, model_type, name, fixed) for name in names}
    if search.sampler is Sampler.GRID:
        _check_grid(search, spaces)
    return spaces


def _space(search: TuneSpec, model_type: str, algorithm: str, fixed: Mapping[str, Any]) -> Space:
    find_algorithm(model_type, algorithm)
    space: Space = search.space
    if not space:
        given = _DEFAULTS.get(algorithm, {})
        space = {name: Dimension.parse(name, text) for name, text in given.items() if name not in fixed}
    if not space:
        raise invalid(f"The algorithm {algorithm} has no default space.", "Give a space, or another algorithm.")
    if search.sampler is Sampler.GRID and not search.space:
        raise _refused("A grid needs a space of its own.", "Give the values, or sampler=random.")
    for name, dimension in space.items():
        if name in fixed:
            raise _refused(f"The hyperparameter {name!r} is both fixed and searched.", "Leave it out of one.")
        for value in dimension.ends:
            try:
                ModelFactory.create_model(model_type, {**fixed, "algorithm": algorithm, name: value})
            except TrainingError as error:
                if "has no hyperparameter" not in error.message:
                    error.message = f"The space of {name!r} holds {shown(value)}. {error.message}"
                raise
    return space


def grid_size(spaces: Mapping[str, Space]) -> int:
    """The number of configurations of a grid; 0 if a range has no step."""
    return sum(math.prod(of.size or 0 for of in space.values()) for space in spaces.values())


def _check_grid(search: TuneSpec, spaces: Mapping[str, Space]) -> None:
    for name, dimension in search.space.items():
        if dimension.size is None:
            raise _refused(
                f"A grid has a finite number of values, and the range of {name!r} has no step.",
                "Give it a step, such as 0.1..0.9:0.2, or choices.",
            )
    count, most = grid_size(spaces), search.trials or MAX_TRIALS
    if count > most:
        raise _refused(
            f"The grid has {count:,} configurations, more than {most:,} trials.",
            "Give more trials, fewer values, or sampler=random.",
        )


def metric_of(search: TuneSpec, model_type: str, spaces: Mapping[str, Space]) -> str:
    """The metric that configurations are chosen by.

    Raises:
        InvalidRequestError: It is not one of the model type, or needs probabilities that an algorithm does not give.
    """
    possible = _METRICS[OUTPUTS[model_type]]
    metric = search.metric or possible[0]
    if metric not in possible:
        raise _refused(f"The metric {metric!r} does not fit {model_type}.", nearest(metric, possible), "metric")
    for name in spaces if model_type == CLASSIFICATION and metric in _OF_PROBABILITIES else ():
        if not hasattr(find_algorithm(model_type, name).estimator_class(), "predict_proba"):
            raise _refused(
                f"The metric {metric!r} needs probabilities, and the algorithm {name} gives none.",
                "Choose by accuracy, balanced_accuracy or f1_macro.",
                "metric",
            )
    return metric


def _refused(message: str, remedy: str, field: str = "space") -> InvalidRequestError:
    return InvalidRequestError(message, remedy=remedy, field=field)
