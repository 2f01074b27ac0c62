"""A search beside random search, Optuna alone and scikit-learn's HalvingRandomSearchCV: time to reach their best score.

    .venv/bin/python benchmarks/training_search.py [--rows 2000] [--trials 60] [--seconds 240] [--json FILE]

All search the same space of gradient boosting on the same folds of the same rows, with as many seconds and cores. The
peers refit the same pipeline, 60 times. Most of our trials end early, so ours has four times as many of them. Random
search and Optuna run as many trials at the same time as there are cores, HalvingRandomSearchCV as many fits. Each is
credited with its best cross-validated accuracy on all rows, and with the moment at which it had it. Ray is started
before; its start, and the refit of the best configuration, are not in the times.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import ray
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - its import enables the class
from sklearn.model_selection import HalvingRandomSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from ml_core.data.canonical import frame_from_columns
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.search_space import Dimension
from ml_core.domain.signature import OutputKind
from ml_core.ids import ModelId
from ml_core.registry.runs import RunRepository
from ml_core.training.cross_validation import divide_into_folds
from ml_core.training.encoding import encoding_steps
from ml_core.training.request import TrainingRequest
from ml_core.training.samplers import suggest
from ml_core.training.table import read_training_table
from ml_core.training.trainer import Trainer

Curve = list[tuple[float, float]]
"""Seconds and the score of a configuration that was known then."""

FOLDS = 5
CORES = os.cpu_count() or 1
SPACE = {
    "learning_rate": "log:0.005:0.5",
    "max_iter": "log:20:150",
    "max_leaf_nodes": "log:3:63",
    "min_samples_leaf": "log:2:100",
    "l2_regularization": "log:0.000001:10",
}
TENANT = "benchmark"
OUR_TRIALS = 4  # times those of the peers


def table(rows: int) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Thirty numbers, of which twelve decide, and a category."""
    X, y = make_classification(
        rows, 30, n_informative=12, n_redundant=6, n_classes=3, n_clusters_per_class=3, flip_y=0.05, random_state=0
    )
    random = np.random.default_rng(0)
    frame = pd.DataFrame(X.round(4), columns=[f"x{index}" for index in range(30)])
    frame["priority"] = random.choice(["low", "normal", "high"], rows)
    return frame, pd.Series(y).map({0: "account", 1: "billing", 2: "bug"})


def ours(data: tuple[pd.DataFrame, Any], trials: int, seconds: float) -> Curve:
    """Our search: when each trial on all rows had ended."""
    with DatabaseConnection() as db:
        trainer, runs = Trainer(db, TENANT), RunRepository(db, TENANT)
        search: dict[str, Any] = {"algorithm": "gradient_boosting", "space": SPACE, "folds": FOLDS, "seconds": seconds}
        found = trainer.tune("search", None, data, trials=trials, **search)
        began = runs.get(found["run_id"]).started_at
        ended = runs.search("search", kind="trial", parent_run_id=found["run_id"], status="finished", limit=1000).items
    scores = [(run.finished_at or began, run.metrics["cv/accuracy"]) for run in ended]
    whole = max(score.last_step for _, score in scores)
    return sorted(((at - began).total_seconds(), of.last_value) for at, of in scores if of.last_step == whole)


class Peer:
    """What the peers search over: the pipeline, rows and folds of our trials."""

    def __init__(self, data: tuple[pd.DataFrame, Any]) -> None:
        request = TrainingRequest(ModelId("search"), "classification", data)
        found = read_training_table(request, OutputKind.CLASSES)
        steps = encoding_steps(request, found, takes_sparse=False)
        self.pipeline = Pipeline([*steps, ("estimate", HistGradientBoostingClassifier(random_state=42))])
        kinds = [(column.name, column.kind.value) for column in found.inputs]
        self.rows, self.target = frame_from_columns(found.train.columns, kinds), found.train.target
        self.folds = divide_into_folds(found, OutputKind.CLASSES, FOLDS, 0)

    def score(self, parameters: dict[str, Any]) -> float:
        """The mean accuracy over the folds."""
        pipeline = clone(self.pipeline).set_params(**{f"estimate__{name}": of for name, of in parameters.items()})
        return float(np.mean(cross_val_score(pipeline, self.rows, self.target, cv=self.folds)))

    def optuna(self, trials: int, seconds: float, sampler: optuna.samplers.BaseSampler) -> Curve:
        """Optuna alone: when each of its trials had ended."""
        curve: Curve = []

        def objective(trial: optuna.Trial) -> float:
            score = self.score({name: suggest(trial, name, Dimension.parse(name, of)) for name, of in SPACE.items()})
            curve.append((time.perf_counter() - began, score))
            return score

        study = optuna.create_study(direction="maximize", sampler=sampler)
        began = time.perf_counter()
        with threadpool_limits(1):
            study.optimize(objective, n_trials=trials, timeout=seconds, n_jobs=CORES)
        return curve

    def halving(self, trials: int) -> Curve:
        """scikit-learn's successive halving: its end."""
        drawn = {f"estimate__{name}": Drawn(Dimension.parse(name, of)) for name, of in SPACE.items()}
        search = HalvingRandomSearchCV(
            self.pipeline, drawn, n_candidates=trials, cv=self.folds, n_jobs=CORES, random_state=0, refit=False,
            min_resources="exhaust", scoring="accuracy",
        )  # fmt: skip
        began = time.perf_counter()
        search.fit(self.rows, self.target)
        seconds = time.perf_counter() - began
        best = {name.removeprefix("estimate__"): of for name, of in search.best_params_.items()}
        return [(seconds, self.score(best))]


class Drawn:
    """A dimension as a distribution of SciPy."""

    def __init__(self, dimension: Dimension) -> None:
        self._dimension = dimension

    def rvs(self, *, random_state: Any) -> Any:
        """A random value."""
        return self._dimension.draw(np.random.default_rng(random_state.randint(2**31)))


def reached(curve: Curve, score: float) -> float | None:
    """The seconds after which a score was reached."""
    return next((seconds for seconds, of in curve if of >= score), None)


def note(results: dict[str, Any], name: str, values: dict[str, Any]) -> None:
    """Keep a result, and print it at once."""
    results[name] = values
    shown = [f"{key} {'never' if value is None else round(value, 4)}" for key, value in values.items()]
    print(f"{name:8}", "  ".join(shown), flush=True)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/training_search.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.environ.setdefault("RAY_worker_niceness", "0")  # that of the peers
    data, peer = table(options.rows), Peer(table(options.rows))
    with ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False):
        mine = ours(data, OUR_TRIALS * options.trials, options.seconds)
    best = max(of for _, of in mine)
    results: dict[str, Any] = {}
    note(results, "ours", {"trials_on_all_rows": len(mine), "seconds": mine[-1][0], "best": best})
    samplers = optuna.samplers
    searches = {
        "random": lambda: peer.optuna(options.trials, options.seconds, samplers.RandomSampler(seed=0)),
        "optuna": lambda: peer.optuna(options.trials, options.seconds, samplers.TPESampler(seed=0)),
        "halving": lambda: peer.halving(options.trials),
    }
    for name, search in searches.items():
        curve = search()
        best = max(of for _, of in curve)
        theirs, us = reached(curve, best), reached(mine, best)
        share = None if us is None or theirs is None else us / theirs
        found = {"seconds": curve[-1][0], "best": best, "reached_s": theirs, "ours_reached_s": us, "share": share}
        note(results, name, found)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    report = {"cores": CORES, "rows": options.rows, **results}
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
