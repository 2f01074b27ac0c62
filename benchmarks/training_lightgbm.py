"""LightGBM through Ray Train, by two nodes of one core, and LightGBM alone with two threads, by the size of the table.

    .venv/bin/python benchmarks/training_lightgbm.py [--rows 100000 400000 1600000 4000000] [--rounds 200] [--json FILE]

Starts a Ray of two nodes on the loopback interface. Both fit the same pipeline of an encoder and LightGBM on the same
20 numbers, which lie in memory: for Ray in its object store, as the tasks that read a dataset leave them there. The
time through Ray has the start of Ray Train and its workers; ``start_s`` is that of a table of 1,000 rows. LightGBM's
ports are open on all interfaces while its workers connect to each other.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from ml_core.data.encoding.table import TableEncoder
from ml_core.models.lightgbm_estimators import LightGBMClassifier

CORES = 2
COLUMNS = [f"x{number}" for number in range(20)]
LEAST_ROWS, NEW_ROWS, SHARDS = 1_000, 20_000, 8
ACCEPTED = 0.1
STORE_BYTES = 3 * 2**30  # of each node


def table(rows: int, seed: int = 0) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Numbers; three of them and noise decide the label."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(len(COLUMNS), rows))
    return dict(zip(COLUMNS, X, strict=True)), X[0] + X[1] * X[2] + random.normal(size=rows) > 0


def pipeline(rounds: int, threads: int | None = None) -> Pipeline:
    """An encoder and LightGBM."""
    encoder = TableEncoder([(name, "number") for name in COLUMNS])
    return Pipeline(
        [("encode", encoder), ("fit", LightGBMClassifier(n_estimators=rounds, random_state=0, n_jobs=threads))]
    )


def through_ray(made: Pipeline, columns: dict[str, NDArray[Any]], y: NDArray[Any]) -> float:
    """Seconds of a fit by workers on the nodes of the cluster."""
    import ray

    from ml_core.training.distributed.boosting import fit_boosting
    from ml_core.training.distributed.shards import Shards

    pieces = {name: [ray.put(piece) for piece in np.array_split(values, SHARDS)] for name, values in columns.items()}
    rows = [np.arange(len(piece)) for piece in np.array_split(y, SHARDS)]
    started = time.perf_counter()
    fit_boosting(made, Shards(pieces, rows), y, cores=CORES)
    return time.perf_counter() - started


def measure(rows: int, rounds: int) -> dict[str, float]:
    """Seconds and accuracy on new rows of both."""
    columns, y = table(rows)
    alone, two = pipeline(rounds, CORES), pipeline(rounds)
    started = time.perf_counter()
    alone.fit(columns, y)
    alone_s = time.perf_counter() - started
    ray_s = through_ray(two, columns, y)
    new, labels = table(NEW_ROWS, seed=1)
    return {
        "rows": rows,
        "alone_s": round(alone_s, 2),
        "ray_s": round(ray_s, 2),
        "overhead": round(ray_s / alone_s - 1, 3),
        "alone_accuracy": round(float((alone.predict(new) == labels).mean()), 4),
        "ray_accuracy": round(float((two.predict(new) == labels).mean()), 4),
    }


def verdict(sizes: list[dict[str, float]]) -> str:
    """From which size on the overhead is accepted."""
    above = [size["rows"] for size in sizes if size["overhead"] >= ACCEPTED]
    below = [size["rows"] for size in sizes if size["rows"] > max(above, default=0)]
    if not below:
        return f"The overhead is {ACCEPTED:.0%} or more up to {max(above):,} rows, the largest table."
    return f"The overhead is below {ACCEPTED:.0%} from {min(below):,} rows on."


def main() -> None:
    """Measure, print each size at once, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 400_000, 1_600_000, 4_000_000])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/training_lightgbm.json"))
    given = parser.parse_args()
    # Ray reads them when it is imported: the loopback interface, and the niceness of this process.
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for _ in range(CORES):
        cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=STORE_BYTES)
    try:
        ray.init(cluster.address, log_to_driver=False)
        start_s = round(through_ray(pipeline(1), *table(LEAST_ROWS)), 1)
        print(f"{start_s} s for {LEAST_ROWS:,} rows and one round")
        print(f"{'rows':>10} {'alone_s':>9} {'ray_s':>9} {'overhead':>9} {'alone_accuracy':>15} {'ray_accuracy':>13}")
        sizes = []
        for rows in sorted(given.rows):
            sizes.append(size := measure(rows, given.rounds))
            print(
                f"{rows:>10,} {size['alone_s']:>9} {size['ray_s']:>9} {size['overhead']:>9.1%} "
                f"{size['alone_accuracy']:>15} {size['ray_accuracy']:>13}",
                flush=True,
            )
    finally:
        ray.shutdown()
        cluster.shutdown()
    print(verdict(sizes))
    result = {
        "rounds": given.rounds,
        "columns": len(COLUMNS),
        "start_s": start_s,
        "sizes": sizes,
        "verdict": verdict(sizes),
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
