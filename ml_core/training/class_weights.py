"""Class weights that name classes by their texts, as those of a JSON object do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from ml_core.data.evidence import fits
from ml_core.domain.values import category_text, read_number
from ml_core.exceptions import listed
from ml_core.training.targets import invalid


def set_class_weights(estimator: Any, target: NDArray[Any]) -> None:
    """Convert the keys of an estimator's class weights to the type of the classes.

    The keys of a JSON object are strings, so weights of the classes 0 and 1 can only be written ``{"0": 1, "1": 5}``
    there. A key names the class of the same text, see ``category_text``. The estimator is unfitted and changed in
    place, estimators inside of it too; the target is the ``(n_rows,)`` classes that it will be fitted on.

    Raises:
        TrainingError: A key names no class, two name one, or a weight is not a number from 0 up; ``stage`` is
            ``validate``.
    """
    given = estimator.get_params() if hasattr(estimator, "get_params") else {}
    weights = {
        name: value
        for name, value in given.items()
        if name.rpartition("__")[2] == "class_weight" and isinstance(value, Mapping)
    }
    if weights:
        classes = {category_text(label): label for label in np.unique(target).tolist()}
        found = {}
        for name, value in weights.items():
            owner = given.get(name.rpartition("__")[0], estimator)
            # It looks classes up by their numbers, since it encodes the target before (scikit-learn 1.9).
            by_number = isinstance(owner, HistGradientBoostingClassifier)
            found[name] = _by_class(name, value, classes, by_number=by_number)
        estimator.set_params(**found)


def add_numbers(estimator: Any, target: NDArray[Any]) -> None:
    """Give class weights by the numbers of the classes besides: a calibration encodes the target in some of its fits.

    The estimator has been given to ``set_class_weights``, and is changed in place.

    Raises:
        TrainingError: A class is called like the number of another one, with another weight.
    """
    classes = np.unique(target).tolist()
    given = estimator.get_params() if hasattr(estimator, "get_params") else {}
    for name, weights in given.items():
        if name.rpartition("__")[2] != "class_weight" or not isinstance(weights, Mapping):
            continue
        numbered = {number: weights.get(_key(label), weights.get(label, 1.0)) for number, label in enumerate(classes)}
        if any(weights.get(number, weight) != weight for number, weight in numbered.items()):
            if isinstance(given.get(name.rpartition("__")[0], estimator), HistGradientBoostingClassifier):
                continue  # it has them by number already
            raise invalid(
                f"{name} can't be used with a calibration, which confuses classes that are numbers with their places.",
                "Leave one of the two out, or give the classes as texts.",
            )
        estimator.set_params(**{name: {**weights, **numbered}})


def _by_class(
    name: str, weights: Mapping[Any, Any], classes: Mapping[str, Any], *, by_number: bool
) -> dict[Any, float]:
    by_class: dict[Any, float] = {}
    for key, weight in weights.items():
        text = _text_of_class(key, classes)
        if text is None:
            raise invalid(
                f"{name} has a weight for {key!r}, which is not a class of the target.",
                f"Its classes are: {listed(map(repr, classes.values()))}.",
            )
        if text in by_class:
            raise invalid(f"{name} has two weights for the class {classes[text]!r}.", "Give one.")
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not 0 <= weight < np.inf:
            raise invalid(f"{name} gives the class {key!r} the weight {weight!r}.", "Give a number from 0 up.")
        by_class[text] = float(weight)
    # All classes, with 1 for those that were left out, by the keys that scikit-learn looks for.
    full: dict[Any, float] = {}
    for number, (text, label) in enumerate(classes.items()):
        if full.setdefault(number if by_number else _key(label), by_class.get(text, 1.0)) != by_class.get(text, 1.0):
            raise invalid(
                f"{name} has different weights for {label!r} and another class that scikit-learn reads as the same "
                "number.",
                "Give both the same weight, or rename one.",
            )
    return full


def _text_of_class(key: Any, classes: Mapping[str, Any]) -> str | None:
    """The class that a key names: by its text, or for numbers and booleans by an equal value in another form."""
    text = category_text(key)
    if text in classes:
        return text
    if not any(isinstance(label, str) for label in classes.values()):
        text = category_text(float(text)) if fits(read_number, text) else text.lower()
    return text if text in classes else None


def _key(label: Any) -> Any:
    """The key by which ``sklearn.utils.class_weight.compute_class_weight`` looks a class up."""
    try:
        return int(label)
    except ValueError:
        return str(label)
