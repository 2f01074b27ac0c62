"""The cost of a version in a replica: bytes on disk, bytes in memory, and milliseconds to load, verify and self-test.

    .venv/bin/python benchmarks/loading.py [--repeats 15] [--json FILE]

Trains three models in the registry of MLCORE_HOME and loads each from disk as a replica does: digest, audit,
construction, tuning and self-test. Ray is not involved.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ml_core.database.connection import DatabaseConnection
from ml_core.models.loading import load_version
from ml_core.system import MLSystem

_WORDS = ("invoice", "login", "crash", "refund", "password", "export", "payment", "error", "update", "account")


def numbers(rows: int = 1000) -> tuple[pd.DataFrame, pd.Series]:
    """Twenty numbers; two of them determine the label."""
    values = np.random.default_rng(0).normal(size=(rows, 20))
    labels = np.where(values[:, 0] + values[:, 1] > 0, "yes", "no")
    return pd.DataFrame(values, columns=[f"x{i}" for i in range(20)]), pd.Series(labels)


def tickets(rows: int = 1000) -> tuple[pd.DataFrame, pd.Series]:
    """A text of eight words, a date, a category and a number; the first word determines the label."""
    random = np.random.default_rng(0)
    texts = random.choice(_WORDS, (rows, 8))
    frame = pd.DataFrame(
        {
            "subject": [" ".join(words) for words in texts],
            "opened": pd.date_range("2026-01-01", periods=rows, freq="h").strftime("%Y-%m-%dT%H:%M:%S"),
            "priority": random.choice(["low", "normal", "high"], rows),
            "minutes": random.integers(1, 5000, rows),
        }
    )
    return frame, pd.Series(texts[:, 0])


CASES = {
    "20 numbers, logistic regression": (numbers, {"algorithm": "logistic_regression"}),
    "ticket, logistic regression": (tickets, {"algorithm": "logistic_regression"}),
    "20 numbers, forest of 100 trees": (numbers, {}),
}


def measure(system: MLSystem, repeats: int) -> dict[str, dict[str, float]]:
    """Bytes and milliseconds of each case: the median of the loads after a warm-up."""
    results = {}
    for index, (name, (table, hyperparameters)) in enumerate(CASES.items()):
        trained = system.train_model(f"loading_{index}", "classification", table(), None, hyperparameters)
        version = system.resolve(trained["model_id"], version=trained["version"])
        model = load_version(system.models.store, version)
        times_ms = []
        for _ in range(repeats):
            started = time.perf_counter()
            model = load_version(system.models.store, version)
            times_ms.append((time.perf_counter() - started) * 1000)
        results[name] = {
            "artifact_bytes": version.size_bytes,
            "memory_bytes": model.memory_bytes,
            "load_ms": round(statistics.median(times_ms), 1),
        }
    return results


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/loading.json"))
    options = parser.parse_args()
    with DatabaseConnection() as database, MLSystem(database, tenant_id="benchmark") as system:
        results = measure(system, options.repeats)
    for name, values in results.items():
        print(f"{name:34}", "  ".join(f"{key} {value:>10,}" for key, value in values.items()))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
