"""What a cache saves: predictions of one row, and features of texts, without a cache, with one here and one in Redis.

    .venv/bin/python benchmarks/cache.py [--redis redis://127.0.0.1:6379/0] [--calls 500] [--json FILE]

Starts an embedded PostgreSQL server. ``MLSystem.predict`` is asked for one row again and again: of ten columns by a
logistic regression and a forest of 100 trees, and of 300 columns by a logistic regression. Each call reads pointer and
digest of the version from the registry; ``resolve`` is that part. ``extract_features`` is called with 20,000 rows of
one text. ``miss`` is a call with a cache that lacks the entry: the price of asking in vain and storing.

The columns without Redis are left out unless ``--redis`` names a server.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from populate import temporary_registry
from timing import Operation

from ml_core import DataProcessor, MLSystem
from ml_core.cache import CacheConfig, CacheMechanism
from ml_core.database.connection import DatabaseConnection

ROWS, TEXTS = 300, 20_000
MODELS = [(10, "logistic_regression"), (10, "random_forest"), (300, "logistic_regression")]
Caches = Mapping[str, CacheMechanism | None]


def timed(call: Callable[[Any], object], calls: int, prepare: Callable[[], Any] = lambda: None) -> float:
    """Milliseconds of a call with what ``prepare`` returns, the median."""
    return round(Operation(prepare, call).measure(calls)["p50_ms"], 2)


def of_model(db: DatabaseConnection, width: int, algorithm: str, caches: Caches, calls: int) -> dict[str, Any]:
    """The figures of a model."""
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(ROWS, width))).add_prefix("x")
    data, name = (table, np.where(table["x0"] > 0, "yes", "no")), f"{algorithm}_{width}"
    row, numbers = table.iloc[0].to_dict(), count(1.0)
    found: dict[str, Any] = {"what": f"predict, {algorithm}, {width} columns"}
    with MLSystem(db, tenant_id="bench") as system:
        version = system.train_model(name, "classification", data, hyperparameters={"algorithm": algorithm})["version"]
        system.promote(name, version)
        system.predict(name, row)
        found["resolve"] = timed(lambda _: system.resolve(name), calls)
    for cache_name, cache in caches.items():
        with MLSystem(db, cache, tenant_id="bench") as system:

            def predict(x: float, system: MLSystem = system) -> None:
                system.predict(name, {**row, "x0": x})

            found[cache_name] = timed(predict, calls, lambda: 0.5)
            if cache is not None:
                found[f"{cache_name}, miss"] = timed(predict, calls, lambda: next(numbers))
    return found


def of_features(caches: Caches) -> dict[str, Any]:
    """The figures of the features of texts."""
    words = np.random.default_rng(0).choice(["refund", "invoice", "login", "fails", "again", "today"], (TEXTS, 12))
    table = pd.DataFrame({"text": [f"{number} {' '.join(row)}" for number, row in enumerate(words)]})
    found: dict[str, Any] = {"what": f"extract_features, {TEXTS:,} texts"}
    for name, cache in caches.items():
        processor = DataProcessor(kinds={"text": "text"}, cache=cache)
        processor.preprocess(table.head(100))
        found[name] = timed(lambda _, processor=processor: processor.extract_features(table), 20)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis", help="the address of a server; its cache is cleared")
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    given = parser.parse_args()
    caches: dict[str, CacheMechanism | None] = {"none": None, "here": CacheMechanism()}
    if given.redis is not None:
        shared = caches["redis"] = CacheMechanism(CacheConfig(url=given.redis))
        shared.clear()
    with temporary_registry() as db:
        rows = [of_model(db, *each, caches, given.calls) for each in MODELS]
    rows.append(of_features(caches))
    print("milliseconds, median")
    print(pd.DataFrame(rows).set_index("what").to_string(na_rep=""))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
