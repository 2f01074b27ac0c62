"""The candidates among which a training selects where its caller names no algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.domain.tune_spec import AUTO
from ml_core.exceptions import TrainingError
from ml_core.models.algorithms import CLASSIFICATION, REGRESSION
from ml_core.models.model_factory import ModelFactory

Configuration = Mapping[str, Any]

_CANDIDATES: Mapping[str, Sequence[Configuration]] = {
    CLASSIFICATION: (
        {"algorithm": "logistic_regression"},
        {"algorithm": "gradient_boosting", "learning_rate": 0.05, "max_leaf_nodes": 8},
        {"algorithm": "gradient_boosting", "learning_rate": 0.05, "max_leaf_nodes": 15, "max_iter": 150},
        {"algorithm": "random_forest", "min_samples_leaf": 5},
    ),
    REGRESSION: (
        {"algorithm": "ridge"},
        {"algorithm": "gradient_boosting"},
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

    Hyperparameters without an algorithm are those of the default of ``ModelFactory``; so is a model type that a caller
    has registered or builds by an assigned ``ModelFactory.create_model``.
    """
    if "algorithm" in hyperparameters:
        return bool(hyperparameters["algorithm"] == AUTO)
    return not hyperparameters and model_type in _CANDIDATES and ModelFactory.is_standard(model_type)


def candidates_of(model_type: str, hyperparameters: Mapping[str, Any], *, has_texts: bool) -> list[dict[str, Any]]:
    """The hyperparameters of each candidate, with those that the caller gave for all of them.

    Raises:
        TrainingError: The model type has no candidates, or one lacks a hyperparameter or refuses its value.
    """
    if model_type not in _CANDIDATES:
        raise TrainingError(
            f"algorithm={AUTO} selects for classification and regression, not for {model_type}.",
            remedy="Name an algorithm, or leave it out.",
            stage="validate",
        )
    given = {name: value for name, value in hyperparameters.items() if name != "algorithm"}
    found = [{**each, **given} for each in (_OF_TEXTS if has_texts else _CANDIDATES)[model_type]]
    for each in found:
        ModelFactory.create_model(model_type, each)
    return found


def check_hyperparameters(model_type: str, hyperparameters: Mapping[str, Any]) -> None:
    """Refuse hyperparameters with which no estimator can be made.

    Raises:
        TrainingError: As ``candidates_of`` and ``ModelFactory.create_model``; ``stage`` is ``validate``.
    """
    if selects(model_type, hyperparameters):
        candidates_of(model_type, hyperparameters, has_texts=False)
    else:
        ModelFactory.create_model(model_type, hyperparameters)
