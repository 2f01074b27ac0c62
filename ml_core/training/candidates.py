"""The candidates among which a training selects where its caller names no algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.domain.keywords import nearest
from ml_core.domain.tune_spec import AUTO
from ml_core.exceptions import TrainingError, shown
from ml_core.models.algorithms import ALGORITHMS, CLASSIFICATION, REGRESSION
from ml_core.models.model_factory import ModelFactory

Configuration = Mapping[str, Any]

# By default it stops early above 10,000 rows: other rounds than those that were measured on fewer, and an error where a
# class has one row.
_BOOSTING: Configuration = {"algorithm": "gradient_boosting", "early_stopping": False}
_CANDIDATES: Mapping[str, Sequence[Configuration]] = {
    CLASSIFICATION: (
        {"algorithm": "logistic_regression"},
        {**_BOOSTING, "learning_rate": 0.05, "max_leaf_nodes": 8},
        {**_BOOSTING, "learning_rate": 0.05, "max_leaf_nodes": 15, "max_iter": 150},
        {"algorithm": "random_forest", "min_samples_leaf": 5},
    ),
    REGRESSION: (
        {"algorithm": "ridge"},
        _BOOSTING,
        {"algorithm": "random_forest"},
        {"algorithm": "random_forest", "min_samples_leaf": 1},
    ),
}
"""Model type → hyperparameters of each, ordered by bytes of the artifact and seconds of an answer, least first.

Those of which ``benchmarks/quality.py`` has a table where no other one does as well.
"""
_OF_TEXTS: Mapping[str, Sequence[Configuration]] = {
    CLASSIFICATION: tuple({"algorithm": "logistic_regression", "C": strength} for strength in (1.0, 10.0, 100.0)),
    REGRESSION: ({"algorithm": "ridge"}, {"algorithm": "ridge", "alpha": 0.1}),
}
"""Of tables with a text: thousands of words are a matter of linear models, which fit and answer in a fraction."""


def selects(model_type: str, hyperparameters: Mapping[str, Any]) -> bool:
    """Whether a training selects its algorithm: it names ``auto``, or no hyperparameter at all.

    Hyperparameters without an algorithm are those of the default of ``ModelFactory``. A model type that a caller has
    registered, or builds by an assigned ``ModelFactory.create_model``, selects nothing.
    """
    if model_type not in _CANDIDATES or not ModelFactory.is_standard(model_type):
        return False
    return not hyperparameters or hyperparameters.get("algorithm") == AUTO


def candidates_of(model_type: str, hyperparameters: Mapping[str, Any], *, has_texts: bool) -> list[dict[str, Any]]:
    """The candidates of a training that selects: hyperparameters without those that the caller gave for all of them.

    Raises:
        TrainingError: A candidate lacks a hyperparameter of the caller's, or refuses its value.
    """
    given = given_for_all(hyperparameters)
    found: list[dict[str, Any]] = []
    for each in (_OF_TEXTS if has_texts else _CANDIDATES)[model_type]:
        own = {name: value for name, value in each.items() if name not in given}
        ModelFactory.create_model(model_type, {**given, **own})
        if own not in found:
            found.append(own)
    return found


def given_for_all(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters that the caller of a training that selects gave for each candidate."""
    return {name: value for name, value in hyperparameters.items() if name != "algorithm"}


def model_types_of(hyperparameters: Mapping[str, Any]) -> list[str]:
    """The model types that a training which names none may turn out to have: by its algorithm, else any by its target.

    Raises:
        TrainingError: None has its algorithm; ``stage`` is ``validate``.
    """
    name, types = hyperparameters.get("algorithm"), list(_CANDIDATES)
    if name in (None, AUTO) or not all(map(ModelFactory.is_standard, types)):
        return types
    if found := [each for each in types if name in ALGORITHMS[each]]:
        return found
    raise TrainingError(
        f"There is no algorithm {shown(name)} for {' or '.join(types)}.",
        remedy=nearest(name, dict.fromkeys(known for each in types for known in ALGORITHMS[each])),
        stage="validate",
    )


def check_hyperparameters(model_type: str, hyperparameters: Mapping[str, Any]) -> None:
    """Refuse hyperparameters with which no estimator can be made.

    Raises:
        TrainingError: As ``candidates_of`` and ``ModelFactory.create_model``; ``stage`` is ``validate``.
    """
    if selects(model_type, hyperparameters):
        candidates_of(model_type, hyperparameters, has_texts=False)
    else:
        ModelFactory.create_model(model_type, hyperparameters)
