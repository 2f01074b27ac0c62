"""Rows a second of a batch prediction: a plain loop, the job in its own process, and with Ray actors on two cores.

    .venv/bin/python benchmarks/training_predict.py [--rows 400000] [--repeats 3] [--json FILE]

Trains two models in the registry of MLCORE_HOME, registers a dataset of tickets, and predicts it three ways, from the
file of the dataset to a file of predictions:

* the loop: the fitted scikit-learn pipeline over pieces of the file (``pyarrow.parquet``, 8,192 rows), labels only,
* one core: ``BatchPredictor`` as the job's process uses it; rows that do not fit would be found,
* two cores: the same by two Ray actors, timed from the call until the last row is written. Ray runs already; the start
  of the actors is in the time.

The ways take turns, so that a change of the machine's load meets all of them; the table shows medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from ml_core.data.table_file import TableWriter
from ml_core.data.tables import frame_of
from ml_core.database.connection import DatabaseConnection
from ml_core.inference.batch import BatchPredictor, BatchRequest
from ml_core.models.own_types import Trust
from ml_core.models.store import platform_store
from ml_core.settings import Settings
from ml_core.system import MLSystem
from ml_core.training.distributed.ordered import stream

_WORDS = ("invoice", "login", "crash", "refund", "password", "export", "payment", "error", "update", "account")
_PIECE = 8_192
MODELS = {"logistic_regression": {}, "random_forest": {"n_estimators": 100}}


def tickets(rows: int) -> pd.DataFrame:
    """A text of eight words, a date, a category and a number; the first word determines the label."""
    random = np.random.default_rng(0)
    texts = random.choice(_WORDS, (rows, 8))
    opened = pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 10**7, rows), unit="s")
    return pd.DataFrame(
        {
            "subject": [" ".join(words) for words in texts],
            "opened": opened.astype("datetime64[us]"),
            "priority": random.choice(["low", "normal", "high"], rows),
            "minutes": random.integers(1, 5000, rows),
            "label": texts[:, 0],
        }
    )


def loop(pipeline: Any, source: Path, inputs: list[str]) -> Iterator[pa.Table]:
    """The pipeline over the file in pieces."""
    with pq.ParquetFile(source) as file:
        for batch in file.iter_batches(_PIECE, columns=inputs):
            labels = pipeline.predict(frame_of(pa.Table.from_batches([batch])))
            yield pa.table({"prediction": pa.array(list(labels), pa.string())})


def one_core(request: BatchRequest) -> Iterator[pa.Table]:
    """As the job's process does it."""
    predictor = opened(request)
    for group in range(len(predictor.group_rows)):
        yield from predictor.predict(group)


def two_cores(request: BatchRequest) -> Iterator[pa.Table]:
    """By two actors."""
    groups = range(len(opened(request).group_rows))
    yield from stream(lambda: opened(request).predict, groups, 2)


def opened(request: BatchRequest) -> BatchPredictor:
    """With the store of this process."""
    return BatchPredictor(request, platform_store(Settings.from_environment()), Trust())


def seconds(tables: Callable[[], Iterator[pa.Table]], rows: int) -> float:
    """The time until all rows are written."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with TableWriter(Path(folder) / "t.parquet", pa.schema([("prediction", pa.string())])) as writer:
            for table in tables():
                writer.write(table)
        assert writer.rows == rows
        return time.perf_counter() - began


def measure(system: MLSystem, rows: int, repeats: int) -> dict[str, dict[str, float]]:
    """Rows a second by model and way."""
    table = tickets(rows)
    dataset = system.datasets.create("benchmark_inbox", table.drop(columns="label"))
    source = system.datasets.open(dataset.reference)
    training = table.head(5_000)
    results = {}
    for algorithm, hyperparameters in MODELS.items():
        data = (training.drop(columns="label"), training["label"])
        given = {"algorithm": algorithm, **hyperparameters}
        trained = system.trainer.train(f"benchmark_{algorithm}", None, data, None, given)
        version = system.resolve(trained["model_id"], version=trained["version"])
        request = BatchRequest.checked(version, dataset, keep=[], proba=False, null_on_error=False)
        inputs = [column.name for column in version.signature.inputs]
        ways = {
            "loop": partial(loop, trained["model"], source, inputs),
            "one core": partial(one_core, request),
            "two cores": partial(two_cores, request),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, tables in ways.items():
                times[name].append(seconds(tables, rows))
        results[algorithm] = {name: round(rows / statistics.median(each)) for name, each in times.items()}
    return results


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/training_predict.json"))
    options = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with DatabaseConnection() as database:
        results = measure(MLSystem(database, tenant_id="benchmark"), options.rows, options.repeats)
    for algorithm, rates in results.items():
        print(f"{algorithm:20}", "  ".join(f"{name} {rate:8,} rows/s" for name, rate in rates.items()))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(
        json.dumps({"rows": options.rows, "rows_per_s": results}, indent=2) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
