"""The strategy of a training on Ray: a cost model over facts that are known before data is read.

Every estimate is in seconds of one core of the machine on which ``benchmarks/training_strategies.py --units`` measured
the constants below; they order the strategies, and say how long a training takes within a factor of about three.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import DatasetVersion
from ml_core.domain.train_spec import CALIBRATION_FOLDS, SELECTION_SECONDS, TrainSpec
from ml_core.domain.tune_spec import AUTO
from ml_core.training.candidates import selects

_VALUE_S = {
    ColumnKind.NUMBER: 5e-7,
    ColumnKind.BOOLEAN: 5e-7,
    ColumnKind.DATETIME: 1.4e-6,
    ColumnKind.CATEGORY: 1.5e-6,
    ColumnKind.TEXT: 2.8e-5,
}
"""Seconds to read, check, divide and encode a value, training and evaluation together."""
_WIDTH = {
    ColumnKind.NUMBER: 1,
    ColumnKind.BOOLEAN: 1,
    ColumnKind.DATETIME: 13,
    ColumnKind.CATEGORY: 12,
    ColumnKind.TEXT: 30,
}
"""Features of a row that are not zero or stored densely; of a category as of a typical one."""
_FOREST_S = {"random_forest": 4.5e-8, "extra_trees": 1.1e-8, "isolation_forest": 4.3e-10}
"""Seconds for each row, tree, tried feature and level (the binary logarithm of the rows)."""
_PASS_S = {
    "gradient_boosting": 1.3e-8,
    "lightgbm": 1.3e-8,  # not measured apart
    "ridge": 5.4e-9,
    "naive_bayes": 5.6e-8,
    "decision_tree": 6.8e-7,
    "linear_svm": 1.3e-7,
}
"""Seconds for each row, feature and round (boosting) or further feature (ridge); of others for row and feature."""
_ROUND_S = 1e-3
"""Seconds for each round of boosting, however few the rows."""
_OTHER_S = 7.8e-8  # logistic regression
_TASKS_S = 4.0
"""Connection of a job's process to Ray and the first tasks, whose workers import scikit-learn."""
_TRAIN_S = 20.0
"""Start of Ray Train and its workers, which it asks every 2 s whether they have ended."""
_MOVED_S = 2e-9
"""Seconds for each byte that is put into Ray's object store or taken from it."""
_SHARDED_ROW_S = 2.2e-6
"""Seconds for each row of shards in one process: the target, the data digest, the division of rows, the metrics."""
_SHARDED_TIMES = 2.5
"""How often tasks read and encode a value of shards, if once in one process: for its kind, the fit and the answers."""
_THREADED = ("random_forest", "extra_trees", "isolation_forest", "lightgbm")
"""Algorithms whose result does not depend on the number of threads; others have one, see ``docs/jobs.md``."""
_SELECTION_TIMES = 8
"""How often a selection fits candidates that cost as much as the dearest."""
_CALIBRATION = "a calibration"
_FORESTS = ("random_forest", "extra_trees")
_RIDGE_MERGED = ("algorithm", "alpha", "copy_X", "max_iter", "tol", "random_state")


class Strategy(StrEnum):
    """How a training is executed."""

    IN_PROCESS = "in_process"
    ONE_TASK = "one_task"
    FOREST_BY_TREES = "forest_by_trees"
    EXACT_MERGE = "exact_merge"
    LIGHTGBM_ON_RAY_TRAIN = "lightgbm_on_ray_train"
    MANY_SMALL_MODELS = "many_small_models"

    @property
    def reads_shards(self) -> bool:
        """Whether no process reads the whole table."""
        return self in (Strategy.EXACT_MERGE, Strategy.LIGHTGBM_ON_RAY_TRAIN)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the choice depends on.

    Attributes:
        columns: Kind → number of columns that are trained on.
        cores: Of a Ray cluster, that the training may use; at most 1: it has a process to itself.
        in_one_process: What must be read in one process, such as a validation dataset; None: nothing.
        models: Of as many tenants.
        selection_seconds: About how long a selection of the algorithm may take.
        fits: How often the estimator is fitted, for a calibration and a cross-validation.
        nodes: The cores of each node of the Ray cluster; asked for where the choice depends on them.
    """

    rows: int
    columns: Mapping[ColumnKind, int]
    algorithm: str = "random_forest"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    cores: float = 1.0
    is_regression: bool = False
    in_one_process: str | None = None
    models: int = 1
    selection_seconds: float = SELECTION_SECONDS
    fits: int = 1
    nodes: tuple[float, ...] = ()

    @classmethod
    def of(cls, source: DatasetVersion, spec: TrainSpec, cores: float) -> Facts:
        """Those of a training on a dataset; kinds are those of its profile where the spec names none."""
        unused = {spec.target, spec.group, spec.weight, *spec.ignore}
        profiles = [each for each in source.profile.columns if each.name not in unused]
        kinds = [spec.kinds.get(each.name, each.kind) for each in profiles]
        target = source.profile.column(spec.target or "")
        is_number = target is not None and target.kind is ColumnKind.NUMBER
        is_regression = spec.model_type == "regression" or (spec.model_type is None and is_number)
        model_type = spec.model_type or ("regression" if is_regression else "classification")
        is_selected = selects(model_type, spec.hyperparameters)
        return cls(
            rows=source.row_count,
            columns=Counter(kind for kind in kinds if kind is not None),
            algorithm=AUTO if is_selected else str(spec.hyperparameters.get("algorithm", "random_forest")),
            hyperparameters=spec.hyperparameters,
            cores=cores,
            is_regression=is_regression,
            in_one_process=_read_in_one_process(spec),
            selection_seconds=spec.selection_seconds,
            fits=(1 + (spec.cross_validation or 0)) * (1 if spec.calibration is None else 1 + CALIBRATION_FOLDS),
        )

    @property
    def features(self) -> int:
        """About how many features a row has."""
        return max(1, sum(_WIDTH[kind] * count for kind, count in self.columns.items()))

    @property
    def tasks(self) -> int:
        """Tasks of one core that run at the same time."""
        return max(1, int(self.cores))

    @property
    def read_s(self) -> float:
        """Seconds of one core to read, check, divide, encode and evaluate."""
        return self.rows * sum(_VALUE_S[kind] * count for kind, count in self.columns.items())

    @property
    def fit_s(self) -> float:
        """Seconds of one core to fit the estimator as often as needed."""
        if self.algorithm == AUTO:  # the fit as of the dearest candidate
            dearest = replace(self, algorithm="random_forest")._one_fit_s
            return self.fits * dearest + min(self.selection_seconds, _SELECTION_TIMES * dearest)
        return self.fits * self._one_fit_s

    @property
    def _one_fit_s(self) -> float:
        cells = float(self.rows * self.features)
        if self.algorithm in _FOREST_S:
            tried = self.features if self.is_regression else math.sqrt(self.features)
            levels = math.log2(max(2, self.rows))
            return _FOREST_S[self.algorithm] * self.rows * levels * tried * self._count("n_estimators")
        unit = _PASS_S.get(self.algorithm, _OTHER_S)
        if self.algorithm in ("gradient_boosting", "lightgbm"):
            rounds = self._count("max_iter" if self.algorithm == "gradient_boosting" else "n_estimators")
            return (unit * cells + _ROUND_S) * rounds
        return unit * cells * (self.features if self.algorithm == "ridge" else 1)

    @property
    def moved_s(self) -> float:
        """Seconds to move the encoded table through Ray's object store."""
        return _MOVED_S * 8 * self.rows * self.features

    def _count(self, name: str, default: int = 100) -> int:
        given = self.hyperparameters.get(name, default)
        return given if isinstance(given, int) else default


@dataclass(frozen=True, slots=True)
class Option:
    """A strategy with its estimate.

    Attributes:
        seconds: None: it can't be used.
        reason: Why it can't, or what the estimate consists of.
    """

    strategy: Strategy
    seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The strategy of a training.

    Attributes:
        options: All strategies, the chosen one first, then by their estimates.
        missing: What keeps the training from starting, in sentences.
    """

    strategy: Strategy
    options: tuple[Option, ...]
    missing: tuple[str, ...] = ()


def _read_in_one_process(spec: TrainSpec) -> str | None:
    """What of a training needs the table in one process."""
    needs = {
        _CALIBRATION: spec.calibration,  # first: no forest is grown by trees with it
        "a validation dataset": spec.validation_dataset,
        "a split by group or time": spec.group or spec.time,
        "weights of rows": spec.weight,
        "a cross-validation": spec.cross_validation,
    }
    return next((what for what, given in needs.items() if given is not None), None)


def choose(facts: Facts, available_cores: float | None = None) -> Choice:
    """The strategy with the least estimate. A pure function.

    Args:
        facts: Of the training.
        available_cores: What the platform gives jobs; None: not known.
    """
    options = [Option(strategy, *estimate(facts)) for strategy, estimate in _ESTIMATES.items()]
    options.sort(key=lambda option: math.inf if option.seconds is None else option.seconds)
    missing: tuple[str, ...] = ()
    if available_cores is not None and facts.cores > available_cores:
        missing = (
            f"The job asks for {facts.cores:g} cores; the platform gives jobs {available_cores:g} (MLCORE_JOB_CPUS), "
            f"so {facts.cores - available_cores:g} are missing.",
        )
    return Choice(options[0].strategy, tuple(options), missing)


_Estimate = tuple[float | None, str]


def _in_process(facts: Facts) -> _Estimate:
    if facts.models > 1:
        return None, f"{facts.models:,} models, one after another, would use one core"
    if facts.tasks > 1:
        return None, f"the process of a job with {facts.cores:g} cores leaves them to its tasks"
    return facts.read_s + facts.fit_s, f"{_took(facts.read_s)} to read and encode, {_took(facts.fit_s)} to fit"


def _one_task(facts: Facts) -> _Estimate:
    if (why := _needs_tasks(facts)) is not None:
        return None, why
    n_threads = int(min(facts.tasks, max(facts.nodes, default=math.inf))) if facts.algorithm in _THREADED else 1
    fit_s = facts.fit_s / n_threads
    threads = f"{n_threads} threads, on one node" if n_threads > 1 else "one thread"
    return (
        facts.read_s + 2 * facts.moved_s + fit_s + _TASKS_S,
        f"{_took(facts.read_s)} to read and encode, {_took(fit_s)} to fit with {threads}",
    )


def _forest_by_trees(facts: Facts) -> _Estimate:
    if facts.algorithm not in _FORESTS:
        return None, f"{facts.algorithm} has no independent trees"
    if facts.in_one_process == _CALIBRATION:
        return None, f"{_CALIBRATION} needs the estimator in one process"
    for name in ("oob_score", "warm_start"):
        if facts.hyperparameters.get(name):
            return None, f"{name} needs all trees in one process"
    if (why := _needs_tasks(facts)) is not None:
        return None, why
    fit_s = facts.fit_s / min(facts.tasks, max(1, facts._count("n_estimators")))
    return (
        facts.read_s + facts.moved_s + fit_s + _TASKS_S,
        f"{_took(facts.read_s)} to read and encode, {_took(fit_s)} to grow the trees in {facts.tasks} tasks",
    )


def _exact_merge(facts: Facts) -> _Estimate:
    why = _not_merged(facts) or _needs_tasks(facts)
    if why is not None:
        return None, why
    in_turn, parallel = _sharded(facts)
    return (
        in_turn + parallel + facts.moved_s + _TASKS_S,
        f"{_took(in_turn)} in turn, {_took(parallel)} in {facts.tasks} tasks; no process holds the table",
    )


def _sharded(facts: Facts) -> tuple[float, float]:
    """Seconds of one process, and of tasks at the same time, where no process holds the table."""
    return facts.rows * _SHARDED_ROW_S, (_SHARDED_TIMES * facts.read_s + facts.fit_s) / facts.tasks


def _not_merged(facts: Facts) -> str | None:
    """Why a training can't be fitted from statistics of its parts; None: it can."""
    if facts.algorithm not in ("naive_bayes", "ridge"):
        return f"{facts.algorithm} can't be fitted from sums over parts of the rows"
    if facts.in_one_process is not None:
        return f"{facts.in_one_process} is read in one process"
    if facts.algorithm == "naive_bayes":
        return None
    if facts.columns.get(ColumnKind.TEXT):
        return "ridge on texts is fitted in iterations over all rows"
    other = next((name for name in facts.hyperparameters if name not in _RIDGE_MERGED), None)
    if other is not None:
        return f"ridge with {other} is not fitted from sums"
    alpha = facts.hyperparameters.get("alpha", 1.0)
    return None if isinstance(alpha, int | float) and alpha > 0 else "ridge is fitted from sums with one alpha above 0"


def _lightgbm_on_ray_train(facts: Facts) -> _Estimate:
    if facts.algorithm != "lightgbm":
        return None, "for the algorithm lightgbm"
    if facts.in_one_process is not None:
        return None, f"{facts.in_one_process} is read in one process"
    if (why := _needs_tasks(facts)) is not None:
        return None, why
    if len(facts.nodes) < 2:
        return None, "for a Ray cluster of 2 nodes or more; on one node LightGBM's threads use all cores"
    in_turn, parallel = _sharded(facts)
    nodes = min(len(facts.nodes), facts.tasks)
    return (
        in_turn + parallel + facts.moved_s + _TASKS_S + _TRAIN_S,
        f"{_took(in_turn)} in turn, {_took(parallel)} in workers on {nodes} nodes; no process holds the table",
    )


def _many_small_models(facts: Facts) -> _Estimate:
    if facts.models == 1:
        return None, "for one model for each of many tenants"
    one_s = facts.read_s + facts.fit_s
    return (
        facts.models * one_s / facts.tasks + _TASKS_S,
        f"{facts.models:,} models of {_took(one_s)} in {facts.tasks} tasks",
    )


def _needs_tasks(facts: Facts) -> str | None:
    if facts.models > 1:
        return f"for one model, and these are {facts.models:,}"
    return None if facts.tasks > 1 else "for a job on Ray with 2 cores or more"


def _took(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


_ESTIMATES: Mapping[Strategy, Callable[[Facts], _Estimate]] = {
    # Of equal estimates the first is chosen.
    Strategy.IN_PROCESS: _in_process,
    Strategy.FOREST_BY_TREES: _forest_by_trees,
    Strategy.EXACT_MERGE: _exact_merge,
    Strategy.ONE_TASK: _one_task,
    Strategy.LIGHTGBM_ON_RAY_TRAIN: _lightgbm_on_ray_train,
    Strategy.MANY_SMALL_MODELS: _many_small_models,
}
