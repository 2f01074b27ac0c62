"""The time from a promotion until all replicas answer with the new version, under load.

    .venv/bin/python benchmarks/promotion.py [--promotions 50] [--json FILE]

Needs a running platform (`mlcore up`). Creates a tenant with a key, trains two versions of a small model (20 numbers,
logistic regression), and promotes them alternately while four connections send requests. The time is measured from the
commit of the promotion to the last answer of the old version. Authentication, the check of the signature, and the
verification and self-test of each loaded version are on.

There is no comparison with a peer: MLflow does not serve models itself, and KServe and Seldon restart a pod.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ml_core.client import MLClient
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.exceptions import MLFrameworkError
from ml_core.ids import TenantId
from ml_core.platform.local import LocalPlatform
from ml_core.registry.keys import KeyRepository
from ml_core.settings import Settings
from ml_core.system import MLSystem

TENANT, MODEL, CONNECTIONS = TenantId("benchmark"), "promotion", 4
SETTLE_S = 1.5
"""Requests between two promotions; longer than any promotion took, so that promotions do not overlap."""


@dataclass
class Answers:
    """The time of each answer: ``(seconds, version)``, and the failures."""

    seen: list[tuple[float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def ask(self, url: str, key: str, row: dict[str, float]) -> None:
        """Send requests until stopped. Several threads append to the lists, which is safe in CPython."""
        with MLClient(url, api_key=key, tenant_id=TENANT) as client:
            while not self.stop.is_set():
                try:
                    version = client.predict(MODEL, [row]).version
                    self.seen.append((time.monotonic(), version))
                except MLFrameworkError as error:
                    self.failures.append(str(error))


def table(rows: int = 1000) -> tuple[pd.DataFrame, pd.Series]:
    """Twenty numbers; two of them determine the label."""
    values = np.random.default_rng(0).normal(size=(rows, 20))
    labels = np.where(values[:, 0] + values[:, 1] > 0, "yes", "no")
    return pd.DataFrame(values, columns=[f"x{i}" for i in range(20)]), pd.Series(labels)


def measure(url: str, database: DatabaseConnection, promotions: int) -> dict[str, object]:
    """Promote alternately under load; returns milliseconds to the first new and to the last old answer."""
    system = MLSystem(database, tenant_id=TENANT)
    X, y = table()
    versions = [
        system.train_model(MODEL, "classification", (X, y), None, {"algorithm": "logistic_regression", "C": C})[
            "version"
        ]
        for C in (0.5, 1.0)
    ]
    key = str(KeyRepository(database, TENANT).create("benchmark", [Scope.PREDICT]))
    system.promote(MODEL, versions[0])
    time.sleep(SETTLE_S)
    answers, row = Answers(), X.iloc[0].to_dict()
    threads = [threading.Thread(target=answers.ask, args=(url, key, row)) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    moves = []
    for turn in range(promotions):
        time.sleep(SETTLE_S)
        system.promote(MODEL, versions[(turn + 1) % 2])
        moves.append((time.monotonic(), versions[(turn + 1) % 2]))
    time.sleep(SETTLE_S)
    answers.stop.set()
    for thread in threads:
        thread.join()
    first, last = zip(*(_delays(answers.seen, at, version) for at, version in moves), strict=True)
    return {
        "promotions": promotions,
        "requests": len(answers.seen),
        "failures": len(answers.failures),
        "first_new_ms": _summary(first),
        "last_old_ms": _summary(last),
    }


def _delays(seen: list[tuple[float, str]], at: float, version: str) -> tuple[float, float]:
    window = [(moment, name) for moment, name in seen if at <= moment < at + SETTLE_S]
    first = min(moment for moment, name in window if name == version)
    last = max((moment for moment, name in window if name != version), default=at)
    return (first - at) * 1000, (last - at) * 1000


def _summary(values: tuple[float, ...]) -> dict[str, float]:
    return {
        "p50": round(statistics.median(values), 1),
        "p99": round(float(np.quantile(values, 0.99)), 1),
        "max": round(max(values), 1),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--promotions", type=int, default=50)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/promotion.json"))
    options = parser.parse_args()
    settings = Settings.from_environment()
    state = LocalPlatform(settings).state
    if state is None:
        parser.error("no platform runs here: start one with `mlcore up`")
    with DatabaseConnection(settings=settings) as database:
        result = measure(state.url, database, options.promotions)
    print(f"{result['promotions']} promotions, {result['requests']} requests, {result['failures']} failed")
    for name in ("first_new_ms", "last_old_ms"):
        print(f"{name:13}", "  ".join(f"{k} {v:7.1f}" for k, v in result[name].items()))  # type: ignore[attr-defined]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
