"""The algorithm that a training used, and the hyperparameters that were in force, those by default included."""

from __future__ import annotations

from typing import Any

import orjson

from ml_core.models.algorithms import ALGORITHMS
from ml_core.training.request import recorded

MAX_BYTES = 4 * 2**10
"""Of the effective values as JSON: they are kept in the version's metadata, beside those that the caller gave."""
_MAX_VALUE_BYTES = 200


def algorithm_of(estimator: Any) -> str:
    """What ``hyperparameters["algorithm"]`` calls an estimator; for one that is not the platform's its class."""
    name = type(estimator).__name__
    known = (item for algorithms in ALGORITHMS.values() for item in algorithms.items())
    return next((algorithm for algorithm, made in known if made.class_name == name), name)


def effective_hyperparameters(estimator: Any) -> dict[str, Any]:
    """The parameters that an estimator has, by name, those that it was not given too.

    Left out are values without a JSON form, and long ones: a caller gave those, so they are in the hyperparameters.
    """
    effective: dict[str, Any] = {}
    left = MAX_BYTES
    for name, value in (estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}).items():
        try:
            size = len(orjson.dumps({name: recorded(value, unless_json=_refuse)}))
        except TypeError:
            continue
        if size <= min(left, _MAX_VALUE_BYTES):
            effective[name] = recorded(value)
            left -= size
    return effective


def _refuse(value: Any) -> Any:
    raise TypeError(f"{value!r} has no JSON form")
