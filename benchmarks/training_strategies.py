"""Trainings on the tasks of a Ray cluster beside trainings in one process, and the unit costs of the cost model.

    .venv/bin/python benchmarks/training_strategies.py [--rows 5000000] [--json FILE]
    .venv/bin/python benchmarks/training_strategies.py --units

Starts a registry in a temporary folder and a Ray node with two cores. The forest is fitted on encoded rows, by trees in
two tasks and with ``n_jobs=2``, in turn; ``start_s`` is the connection and the first tasks. The exact merge is a whole
training of naive Bayes on a stored dataset, from its file to a registered version, each in a process of its own; memory
is the largest resident size, that of a worker with the shared memory that it reads. ``--units`` prints the constants of
``ml_core/training/strategies.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from joblib import parallel_config
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits

from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.domain.train_spec import TrainSpec
from ml_core.ids import ModelId
from ml_core.models.model_factory import ModelFactory
from ml_core.registry.datasets import DatasetRepository
from ml_core.settings import PlatformSettings, Settings
from ml_core.training.attempt import TrainingAttempt
from ml_core.training.distributed.cluster import joined
from ml_core.training.distributed.forest import fit_forest
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from ml_core.training.trainer import Trainer

CORES = 2
MIB = 2**20
WORDS = [f"word{index}" for index in range(2_000)]


def numbers(rows: int, columns: int) -> tuple[pd.DataFrame, pd.Series]:
    """Numbers; two of them determine the label."""
    values = np.random.default_rng(0).normal(size=(rows, columns))
    labels = np.where(values[:, 0] + values[:, 1] > 0, "yes", "no")
    return pd.DataFrame(values, columns=[f"x{i}" for i in range(columns)]), pd.Series(labels, name="label")


def seconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long a call takes."""
    started = clock()
    run()
    return clock() - started


def cpu_seconds(run: Callable[[], object]) -> float:
    """The processor time of a call, which other programs lengthen less."""
    return seconds(run, time.process_time)


@contextmanager
def cluster(home: Path) -> Iterator[psutil.Process]:
    """A Ray node; its raylet."""
    from ray.cluster_utils import Cluster

    os.environ["MLCORE_HOME"] = str(home)
    node = Cluster(initialize_head=True, head_node_args={"num_cpus": CORES, "include_dashboard": False})
    os.environ["RAY_ADDRESS"] = node.address
    try:
        yield psutil.Process(node.head_node.all_processes["raylet"][0].process.pid)
    finally:
        node.shutdown()


def forest(rows: int, trees: int, repeats: int) -> dict[str, Any]:
    """Seconds of a forest by trees in two tasks, and with two threads; medians of repeats in turn."""
    X, y = numbers(rows, 20)
    times: dict[str, list[float]] = {"two_tasks_s": [], "n_jobs_2_s": []}

    def pipeline() -> Pipeline:
        estimator = ModelFactory.create_model("classification", {"n_estimators": trees})
        return Pipeline([("rows", FunctionTransformer()), ("estimate", estimator)])

    started = time.perf_counter()
    with joined(CORES):
        fit_forest(pipeline(), X.to_numpy()[:1_000], y.to_numpy()[:1_000], tasks=CORES)  # starts the workers
        start_s = round(time.perf_counter() - started, 1)
        for _ in range(repeats):
            made = pipeline()
            fit = partial(fit_forest, made, X.to_numpy(), y.to_numpy(), tasks=CORES)
            times["two_tasks_s"].append(seconds(fit))
            other = pipeline()
            other.set_params(estimate__n_jobs=CORES)
            times["n_jobs_2_s"].append(seconds(partial(other.fit, X.to_numpy(), y.to_numpy())))
    medians = {name: round(statistics.median(values), 2) for name, values in times.items()}
    ratio = round(medians["n_jobs_2_s"] / medians["two_tasks_s"], 2)
    return {"rows": rows, "trees": trees, **medians, "ratio": ratio, "start_s": start_s}


def merge(settings: Settings, raylet: psutil.Process, rows: int) -> dict[str, Any]:
    """Seconds and memory of a training of naive Bayes in one process, and merged from the shards of two tasks."""
    with DatabaseConnection(settings=settings) as db, tempfile.TemporaryDirectory() as folder:
        X, y = numbers(rows, 10)
        X.assign(label=y).to_parquet(Path(folder) / "table.parquet")
        del X, y
        DatasetRepository(db, "benchmark").from_parquet("table", Path(folder) / "table.parquet")
    found: dict[str, Any] = {"rows": rows, "columns": 10}
    for name, cores in (("one_process", 1), ("merged", CORES)):
        done = threading.Event()
        peak: list[int] = [0]
        watching = threading.Thread(target=_watch, args=(raylet, done, peak))
        watching.start()
        command = [sys.executable, __file__, "--train", str(cores)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        done.set()
        watching.join()
        found[name] = {**json.loads(answer.stdout.splitlines()[-1]), "largest_worker_mib": peak[0] // MIB}
    found["ratio"] = round(found["one_process"]["train_s"] / found["merged"]["train_s"], 2)
    return found


def _watch(raylet: psutil.Process, done: threading.Event, peak: list[int]) -> None:
    """Keep the largest resident size of a worker."""
    while not done.wait(0.1):
        for process in raylet.children(recursive=True):
            try:
                peak[0] = max(peak[0], process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue


def train(cores: int) -> None:
    """Train once and print what it took, as the process of a job does."""
    with DatabaseConnection() as db:
        spec = TrainSpec(dataset="table@1", target="label", hyperparameters={"algorithm": "naive_bayes"})
        trainer, stages = Trainer(db, "benchmark"), {}
        taken = seconds(
            lambda: trainer.train_spec(
                "m",
                spec,
                TrainingAttempt(cores=cores, on_stage=lambda stage: stages.update({stage: time.perf_counter()})),
            )
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    names = [*stages, "end"]
    ends = [*list(stages.values())[1:], time.perf_counter()]
    spent = {name: round(end - start, 1) for name, start, end in zip(names, stages.values(), ends, strict=False)}
    print(json.dumps({"train_s": round(taken, 1), "process_mib": peak // MIB, "stages_s": spent}))


def units() -> dict[str, float]:
    """The constants of the cost model, in seconds."""
    rows = 50_000
    random = np.random.default_rng(0)
    _, label = numbers(rows, 2)
    columns = {
        "number": lambda: random.normal(size=rows),
        "datetime": lambda: pd.to_datetime(random.integers(0, 10**9, rows), unit="s"),
        "category": lambda: random.choice([f"value {i}" for i in range(30)], rows),
        "text": lambda: [" ".join(words) for words in random.choice(WORDS, (rows, 8))],
    }
    found = {}
    with threadpool_limits(1):
        for kind, make in columns.items():
            frame = pd.DataFrame({f"c{i}": make() for i in range(1 if kind == "text" else 4)})
            stump = {"algorithm": "decision_tree", "max_depth": 1}
            request = TrainingRequest(ModelId("m"), "classification", (frame, label), hyperparameters=stump)
            found[f"value {kind}"] = cpu_seconds(lambda r=request: fit_model(r)) / frame.size
        X, y = numbers(rows, 20)
        for name, parameters, unit in (
            ("random_forest", {"n_estimators": 10}, rows * math.log2(rows) * math.sqrt(20) * 10),
            ("extra_trees", {"n_estimators": 10}, rows * math.log2(rows) * math.sqrt(20) * 10),
            ("gradient_boosting", {"max_iter": 20, "early_stopping": False}, rows * 20 * 20),
            ("ridge", {}, rows * 20 * 20),
            ("naive_bayes", {}, rows * 20),
            ("logistic_regression", {}, rows * 20),
            ("decision_tree", {}, rows * 20),
            ("linear_svm", {}, rows * 20),
        ):
            estimator = ModelFactory.create_model("classification", {"algorithm": name, **parameters})
            found[f"fit {name}"] = cpu_seconds(lambda e=estimator: e.fit(X.to_numpy(), y.to_numpy())) / unit
        with parallel_config(n_jobs=1):
            detector = ModelFactory.create_model("anomaly_detection", {})
            found["fit isolation_forest"] = cpu_seconds(lambda: detector.fit(X.to_numpy())) / (
                rows * math.log2(rows) * math.sqrt(20) * 100
            )
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000, help="Of the exact merge.")
    parser.add_argument("--units", action="store_true")
    parser.add_argument("--train", type=int, metavar="CORES", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/training_strategies.json"))
    options = parser.parse_args()
    if options.train is not None:
        return train(options.train)
    if options.units:
        for name, value in units().items():
            print(f"{name:24} {value:.1e}")
        return None
    with tempfile.TemporaryDirectory(prefix="mlcore-benchmark-") as folder:
        home = Path(folder)
        home.chmod(0o711)  # the account of the embedded server enters it
        try:
            with cluster(home) as raylet:
                results = {"forest": forest(50_000, 100, 3)}
                results["merge"] = merge(Settings(platform=PlatformSettings(home=home)), raylet, options.rows)
        finally:
            EmbeddedServer(home).stop()
    print(json.dumps(results, indent=2))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
