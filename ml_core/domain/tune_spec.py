"""The specification of a search for hyperparameters, as ``Trainer.tune`` and jobs of the kind ``tune`` take it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self

from ml_core.domain.document import Document
from ml_core.domain.keywords import nearest
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.search_space import Dimension
from ml_core.exceptions import InvalidRequestError, shown

AUTO = "auto"
"""Search over algorithms, each with its own space."""
DEFAULT_TRIALS = 60
MAX_TRIALS = 10_000
_MAX_SECONDS = 30 * 86_400
_MAX_FOLDS = 20
_MAX_SEED = 2**31


class Sampler(StrEnum):
    """How the configurations of trials are chosen."""

    OPTUNA = "optuna"
    RANDOM = "random"
    GRID = "grid"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSpec(Document):
    """How to search for the hyperparameters of a training.

    Attributes:
        algorithm: Such as ``gradient_boosting``; ``auto``: a linear model, boosted trees and a random forest.
        space: Hyperparameter → its dimension; empty: the default space of the algorithm.
        sampler: ``optuna`` learns from the trials before; ``random``; or ``grid``, every combination once.
        folds: Parts of the training rows: a trial is measured on each after a fit on the others.
        trials: Trials at most; None: 60, or all configurations of a grid.
        seconds: Seconds at most, from the start of the search; None: unbounded. What runs then is stopped.
        cpu_seconds: Core-seconds of all trials at most; None: unbounded.
        early_stopping: Whether trials begin with a ninth and a third of the rows where there are enough, and only the
            better third of them goes on (ASHA, Li et al., 2020).
        metric: What the best is chosen by; None: accuracy, r2, silhouette or roc_auc, by the model type.
        seed: Of folds and configurations.

    Raises:
        InvalidRequestError: A field is invalid; says which.
    """

    algorithm: str = AUTO
    space: Mapping[str, Dimension] = field(default_factory=dict)
    sampler: Sampler = Sampler.OPTUNA
    folds: int = 5
    trials: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    early_stopping: bool = True
    metric: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sampler not in list(Sampler):
            raise _invalid("sampler", self.sampler, nearest(self.sampler, Sampler))
        if self.metric is not None and self.metric not in HIGHER_IS_BETTER:
            raise _invalid("metric", self.metric, nearest(self.metric, HIGHER_IS_BETTER))
        for name, lowest, highest in (
            ("folds", 2, _MAX_FOLDS),
            ("trials", 1, MAX_TRIALS),
            ("seconds", 1, _MAX_SECONDS),
            ("cpu_seconds", 1, _MAX_SECONDS),
            ("seed", 0, _MAX_SEED),
        ):
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                raise _invalid(name, value, f"Give a number from {lowest} to {highest:,}.")
        space = {str(name): Dimension.parse(str(name), given) for name, given in self.space.items()}
        object.__setattr__(self, "space", space)  # the class is frozen
        object.__setattr__(self, "sampler", Sampler(self.sampler))
        if self.algorithm == AUTO and space:
            raise InvalidRequestError(
                "A space belongs to one algorithm.", remedy="Name the algorithm, or leave the space out.", field="space"
            )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a spec from a JSON object. Members that are omitted or null have their defaults.

        Raises:
            InvalidRequestError: A member is unknown or of another type, or as the constructor.
        """
        if not isinstance(data, Mapping):
            raise InvalidRequestError("A search is not a JSON object.", remedy="Give an object.", field="search")
        known = [each.name for each in fields(cls)]
        for name in data:
            if name not in known:
                raise InvalidRequestError(
                    f"A search has no field {shown(name)}.", remedy=nearest(name, known), field=str(name)
                )
        given = {name: value for name, value in data.items() if value is not None}
        for name, value in given.items():
            fits, wanted = _JSON_TYPES.get(name, _TEXT)
            if not fits(value):
                raise _invalid(name, value, f"Give {wanted}.")
        return cls(**given)


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types) and (bool in types or not isinstance(value, bool))


_TEXT = (_is(str), "a string")
_WHOLE = (_is(int), "a whole number")
_NUMBER = (_is(int, float), "a number")
_JSON_TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "space": (_is(Mapping), "an object of hyperparameter and its values"),
    "folds": _WHOLE,
    "trials": _WHOLE,
    "seed": _WHOLE,
    "seconds": _NUMBER,
    "cpu_seconds": _NUMBER,
    "early_stopping": (_is(bool), "true or false"),
}
"""Member → its form, and what it is; the others are strings."""


def _invalid(name: str, value: object, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"The field {name!r} of the search is {shown(value)}.", remedy=remedy, field=name)
