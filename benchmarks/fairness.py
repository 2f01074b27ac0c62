"""What a quiet tenant notices of a busy one: its latency while the other does what it can.

    .venv/bin/python benchmarks/fairness.py [--seconds 10] [--rounds 1] [--only NAME ...] [--json FILE]

Starts a platform (PostgreSQL, Ray Serve behind its ingress, two replicas). The quiet tenant sends 20 requests of one
row per second to a forest of 100 trees, each at its time whether or not the ones before it were answered. Meanwhile the
busy one sends nothing; rows one at a time, and 1,000 at a time, with 64 connections of ``wrk``, which must be
installed; rows to a slow forest; 10 times its quota; and rows to a model that sleeps for 10 s. Latencies are those of
the quiet tenant in milliseconds, from the time at which a request was due. With several rounds the scenarios alternate
and each figure is the median.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from live_platform import wait_followed, wait_logged
from open_loop import OpenLoop

QUIET, BUSY = "quiet", "busy"
QUIET_RATE, QUOTA, CONNECTIONS = 20, 50, 64
WARM_UP_S = 1.5
"""Seconds of the load before the quiet tenant is measured, in which a burst is used up."""
_SLEEPER = """
import time
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Sleeper(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X):
        if np.asarray(X)[0, 0] > 1e6:
            time.sleep(10)
        return np.full(len(X), self.classes_[0])

def build(hyperparameters):
    return Sleeper()
"""
_WRK = """
wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["Authorization"] = "Bearer {key}"
"""


def install_sleeper(folder: Path) -> None:
    """Write a distribution with the model that sleeps, for this process and those that it starts."""
    info = folder / "bench_sleeper-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "bench_sleeper.py").write_text(_SLEEPER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-sleeper\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ml_core.model_types]\nbench_sleeper = bench_sleeper:build\n")
    (info / "RECORD").write_text("bench_sleeper.py,,\n")
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    os.environ["MLCORE_TRUSTED_MODULES"] = "bench_sleeper"


def serve(db: Any) -> tuple[dict[str, str], pd.DataFrame]:
    """Train and promote the models; the keys by tenant, and rows."""
    from ml_core.domain.api_key import Scope
    from ml_core.ids import TenantId
    from ml_core.registry.keys import KeyRepository
    from ml_core.system import MLSystem

    random = np.random.default_rng(0)
    rows = pd.DataFrame(random.normal(size=(1000, 20)), columns=[f"x{i}" for i in range(20)])
    data = rows, pd.Series(np.where(rows.x0 + rows.x1 > 0, "yes", "no"))
    forest = {"algorithm": "random_forest"}
    models: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
        QUIET: {"forest": ("classification", forest)},
        BUSY: {
            "forest": ("classification", forest),
            "slow": ("classification", {**forest, "n_estimators": 1000}),
            "sleeper": ("bench_sleeper", {}),
        },
    }
    keys = {}
    for tenant, of in models.items():
        system = MLSystem(db, tenant_id=tenant)
        for model, (model_type, parameters) in of.items():
            trained = system.train_model(model, model_type, data, None, parameters)
            system.promote(model, trained["version"])
        keys[tenant] = str(KeyRepository(db, TenantId(tenant)).create("benchmark", [Scope.PREDICT]))
    return keys, rows


def asking(url: str, tenant: str, key: str, rows: pd.DataFrame) -> tuple[str, str, dict[str, str]]:
    """URL, body and headers of a request to the forest of a tenant."""
    body = json.dumps({"rows": rows.to_dict("records")})
    return f"{url}/t/{tenant}/models/forest/predict", body, {"authorization": f"Bearer {key}"}


def offer(rate: float, seconds: float) -> None:
    """Send the request of standard input at a rate, in a process of its own, and print the statuses."""
    load = OpenLoop(*json.load(sys.stdin))
    load.run(rate, seconds)
    print(json.dumps(load.statuses))


@contextmanager
def flooding(url: str, key: str, body: str, model: str, seconds: float, script: Path) -> Iterator[dict[str, float]]:
    """``wrk`` in the background; afterwards requests per second that were answered with 200, and with anything else."""
    found: dict[str, float] = {}
    script.write_text(_WRK.format(body=body, key=key))
    options = ["-t2", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", str(script)]
    command = ["wrk", *options, f"{url}/t/{BUSY}/models/{model}/predict"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield found
        printed = process.communicate()[0]
    done, refused = re.search(r"(\d+) requests in", printed), re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    bad = int(refused[1]) if refused else 0
    found["busy_per_s"] = (int(done[1] if done else 0) - bad) / seconds
    found["not_200_per_s"] = bad / seconds


@contextmanager
def offering(request: tuple[str, str, dict[str, str]], rate: float, seconds: float) -> Iterator[dict[str, float]]:
    """An open-loop load in the background; afterwards requests per second that were answered with 200, and not."""
    found: dict[str, float] = {}
    command = [sys.executable, __file__, "--offer", str(rate), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        json.dump(request, process.stdin)
        process.stdin.close()
        process.stdin = None
        yield found
        statuses = Counter(json.loads(process.communicate()[0]))
    if statuses.keys() - {"200", "429"}:
        print(f"The busy tenant was not only refused: {dict(statuses)}", file=sys.stderr)
    found["busy_per_s"] = statuses["200"] / seconds
    found["not_200_per_s"] = (statuses.total() - statuses["200"]) / seconds


class Benchmark:
    """The scenarios on a running platform."""

    def __init__(self, db: Any, url: str, home: Path, seconds: float) -> None:
        self._url, self._seconds, self._script = url, seconds, home / "wrk.lua"
        self._db = db
        self._keys, self._rows = serve(db)
        wait_followed(db)
        self.scenarios = {
            "alone": self._nothing,
            "one-row flood": lambda: self._flood("forest", 1),
            "1,000-row flood": lambda: self._flood("forest", 1000),
            "slow forest flood": lambda: self._flood("slow", 1),
            "10 x quota": self._beyond_quota,
            "sleeping model": lambda: self._flood("sleeper", 1),
        }

    def measure(self, name: str) -> dict[str, float]:
        """One scenario."""
        quiet = OpenLoop(*asking(self._url, QUIET, self._keys[QUIET], self._rows[:1]))
        with self.scenarios[name]() as found:
            time.sleep(WARM_UP_S)
            measured = quiet.run(QUIET_RATE, self._seconds)
        wait_logged(self._url)
        return {figure: measured[figure] for figure in ("p50_ms", "p99_ms", "failed")} | found

    @contextmanager
    def _nothing(self) -> Iterator[dict[str, float]]:
        yield {"busy_per_s": 0.0, "not_200_per_s": 0.0}

    def _flood(self, model: str, rows: int) -> Any:
        sent = self._rows[:rows].round(6)
        if model == "sleeper":
            sent = sent.assign(x0=1e9)
        body = json.dumps({"rows": sent.to_dict("records")})
        return flooding(self._url, self._keys[BUSY], body, model, self._seconds + WARM_UP_S, self._script)

    @contextmanager
    def _beyond_quota(self) -> Iterator[dict[str, float]]:
        from ml_core.domain.tenant_policies import PredictionQuota
        from ml_core.registry.tenants import TenantRepository

        tenants = TenantRepository(self._db)
        tenants.set_quota(BUSY, PredictionQuota(requests_per_s=QUOTA))
        wait_followed(self._db)
        request = asking(self._url, BUSY, self._keys[BUSY], self._rows[:1])
        with offering(request, 10 * QUOTA, self._seconds + WARM_UP_S) as found:
            yield found
        tenants.set_quota(BUSY, PredictionQuota())
        wait_followed(self._db)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--offer", nargs=2, type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.offer:
        offer(*options.offer)
        return
    from ml_core.database.connection import DatabaseConnection
    from ml_core.platform.local import LocalPlatform
    from ml_core.platform.ports import free_ports
    from ml_core.settings import Settings

    home = Path(tempfile.mkdtemp(prefix="mlcore-fairness-"))
    home.chmod(0o711)  # root runs PostgreSQL as a user that must get through
    install_sleeper(home / "own")
    os.environ |= {"MLCORE_HOME": str(home), "MLCORE_HTTP_PORT": str(free_ports(1)[0])}
    settings = Settings.from_environment()
    platform = LocalPlatform(settings)
    try:
        url = platform.up().url
        with DatabaseConnection(settings=settings) as db:
            benchmark = Benchmark(db, url, home, options.seconds)
            names = options.only or list(benchmark.scenarios)
            rounds = [[benchmark.measure(name) for name in names] for _ in range(options.rounds)]
    finally:
        platform.down()
        down = [sys.executable, "-m", "ml_core.cli", "down"]
        subprocess.run(down, check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)
    results = []
    print(f"{'':18} {'p50 ms':>8} {'p99 ms':>8} {'failed':>7} {'busy/s':>8} {'not 200/s':>10}")
    for name, *found in zip(names, *rounds, strict=True):
        medians = {figure: round(statistics.median(one[figure] for one in found), 2) for figure in found[0]}
        results.append({"scenario": name, **medians})
        shown = [medians[figure] for figure in ("p50_ms", "p99_ms", "failed", "busy_per_s", "not_200_per_s")]
        print(f"{name:18} {shown[0]:8.1f} {shown[1]:8.1f} {shown[2]:7.0f} {shown[3]:8.0f} {shown[4]:10.0f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
