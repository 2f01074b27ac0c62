"""LightGBM through Ray Train with two workers against LightGBM alone with two threads, by the size of the table.

    .venv/bin/python benchmarks/training_lightgbm.py [--rows 100000 400000 1600000] [--rounds 100] [--json FILE]

Starts a Ray of its own with two cores. Both get the same rows of 30 numbers in memory and the same parameters; the
time of Ray Train includes putting the rows into the object store, starting the workers, and the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from ml_core.models.lightgbm_estimators import LightGBMClassifier
from ml_core.training.distributed.boosting import fit_boosting, put_rows

_CORES = 2


def table(rows: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Thirty numbers; three of them and noise decide the label."""
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, 30))
    return X, X[:, 0] + X[:, 1] * X[:, 2] + random.normal(size=rows) > 0


def measure(rows: int, rounds: int) -> dict[str, float]:
    """Seconds and accuracy on new rows of both."""
    X, y = table(rows)
    tests = table(rows + 20_000)
    new, labels = tests[0][rows:], tests[1][rows:]
    alone = LightGBMClassifier(n_estimators=rounds, random_state=0, n_jobs=_CORES)
    started = time.perf_counter()
    alone.fit(X, y)
    alone_s = time.perf_counter() - started
    through_ray = LightGBMClassifier(n_estimators=rounds, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        fit_boosting(through_ray, put_rows(X, y, _CORES), Path(folder) / "boosting", workers=_CORES)
        ray_s = time.perf_counter() - started
    return {
        "alone_s": round(alone_s, 2),
        "ray_s": round(ray_s, 2),
        "overhead": round(ray_s / alone_s - 1, 3),
        "alone_accuracy": round(alone.score(new, labels), 4),
        "ray_accuracy": round(through_ray.score(new, labels), 4),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 400_000, 1_600_000])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/training_lightgbm.json"))
    options = parser.parse_args()
    ray.init(address="local", num_cpus=_CORES, include_dashboard=False, log_to_driver=False)
    results = {rows: measure(rows, options.rounds) for rows in options.rows}
    ray.shutdown()
    for rows, values in results.items():
        print(f"{rows:>10,} rows", "  ".join(f"{key} {value}" for key, value in values.items()))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
