"""The specification of a search for hyperparameters, as ``Trainer.tune`` and jobs of the kind ``tune`` take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ml_core.domain.keywords import nearest
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.search_space import Dimension
from ml_core.domain.specification import FORM, Specification
from ml_core.domain.train_spec import MAX_FOLDS, MAX_SEED
from ml_core.exceptions import InvalidRequestError, shown

AUTO = "auto"
"""Search over algorithms, each with its own space."""
DEFAULT_TRIALS = 60
MAX_TRIALS = 10_000
_MAX_SECONDS = 30 * 86_400


class Sampler(StrEnum):
    """How the configurations of trials are chosen."""

    OPTUNA = "optuna"
    RANDOM = "random"
    GRID = "grid"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSpec(Specification):
    """How to search for the hyperparameters of a training.

    Attributes:
        algorithm: Such as ``gradient_boosting``; ``auto``: a linear model, boosted trees and a random forest.
        space: Hyperparameter → its dimension; empty: the default space of the algorithm.
        sampler: ``optuna`` learns from the trials before; ``random``; or ``grid``, every combination once.
        folds: Parts of the training rows: a trial is measured on each after a fit on the others.
        trials: Trials at most; None: 60, or all configurations of a grid.
        seconds: Seconds at most, from the start of the search; None: unbounded. What runs then is stopped.
        cpu_seconds: Core-seconds of all trials at most; None: unbounded.
        early_stopping: Whether trials begin with shares of the rows of one fold where there are enough, and only the
            better third of each goes on, at last to all folds (ASHA, Li et al., 2020).
        metric: What the best is chosen by; None: accuracy, r2, silhouette or roc_auc, by the model type.
        seed: Of folds and configurations.

    Raises:
        InvalidRequestError: A field is invalid; says which.
    """

    noun = "A search"

    algorithm: str = AUTO
    space: Mapping[str, Dimension] = field(
        default_factory=dict, metadata={FORM: "an object of hyperparameter and its values"}
    )
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
        self.refuse_outside(
            folds=(2, MAX_FOLDS),
            trials=(1, MAX_TRIALS),
            seconds=(1, _MAX_SECONDS),
            cpu_seconds=(1, _MAX_SECONDS),
            seed=(0, MAX_SEED),
        )
        space = {str(name): Dimension.parse(str(name), given) for name, given in self.space.items()}
        object.__setattr__(self, "space", space)  # the class is frozen
        object.__setattr__(self, "sampler", Sampler(self.sampler))
        if self.algorithm == AUTO and space:
            raise InvalidRequestError(
                "A space belongs to one algorithm.", remedy="Name the algorithm, or leave the space out.", field="space"
            )


def _invalid(name: str, value: object, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"The field {name!r} of the search is {shown(value)}.", remedy=remedy, field=name)
