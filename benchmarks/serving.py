"""Requests per second of one checkout compared with another, with authentication, signature check, metrics and log.

    .venv/bin/python benchmarks/serving.py [--other PYTHON] [--seconds 4] [--rounds 5] [--json FILE]

``--other`` is the interpreter of another checkout's environment, such as the previous release; without it this checkout
is measured alone. Each starts a platform (PostgreSQL, Ray Serve behind its ingress, two replicas) and serves three
models. ``wrk``, which must be installed, loads them one after another with 1, 16 and 64 connections, one row per
request. The checkouts alternate, so that other load on the machine affects both alike. Each figure is the median of the
rounds, and the ratio is the median of the ratios of each round.
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
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

TENANT, CONNECTIONS = "benchmark", (1, 16, 64)
FOLLOWED_WITHIN_S = 2.0
"""Time until replicas know a new key and have loaded a new version, which takes about 1 s."""
_SCRIPT = """
wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["Authorization"] = "Bearer {key}"
"""


def tables(n_rows: int = 1000) -> dict[str, tuple[pd.DataFrame, pd.Series, str]]:
    """Model → rows, labels and algorithm: 20 numbers for two algorithms, and raw tickets."""
    random = np.random.default_rng(0)
    numbers = pd.DataFrame(random.normal(size=(n_rows, 20)), columns=[f"x{i}" for i in range(20)])
    sign = pd.Series(np.where(numbers.x0 + numbers.x1 > 0, "yes", "no"))
    words = ["login", "password", "invoice", "refund", "crash", "slow", "error", "printer", "network", "email"]
    tickets = pd.DataFrame(
        {
            "subject": [" ".join(random.choice(words, 5)) for _ in range(n_rows)],
            "body": [" ".join(random.choice(words, 20)) for _ in range(n_rows)],
            "opened": [f"2026-{month:02}-01" for month in random.integers(1, 13, n_rows)],
            "priority": random.choice(["low", "middle", "high"], n_rows),
            "channel": random.choice(["mail", "web"], n_rows),
            "team": random.choice(["a", "b", "c", "d"], n_rows),
        }
    )
    kind = pd.Series(np.where(tickets.body.str.contains("invoice"), "billing", "it"))
    return {
        "logistic regression": (numbers, sign, "logistic_regression"),
        "forest of 100 trees": (numbers, sign, "random_forest"),
        "raw ticket": (tickets, kind, "logistic_regression"),
    }


def serve() -> None:
    """Start the platform of the settings, serve the models, and print their URLs and requests."""
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.api_key import Scope
    from ml_core.ids import TenantId
    from ml_core.platform.local import LocalPlatform
    from ml_core.registry.keys import KeyRepository
    from ml_core.settings import Settings
    from ml_core.system import MLSystem

    settings = Settings.from_environment()
    url = LocalPlatform(settings).up().url
    db = DatabaseConnection(settings=settings)
    system = MLSystem(db, tenant_id=TENANT)
    bodies = {}
    for name, (rows, labels, algorithm) in tables().items():
        model = name.replace(" ", "_")
        trained = system.train_model(model, "classification", (rows, labels), None, {"algorithm": algorithm})
        system.promote(model, trained["version"])
        path = f"/t/{TENANT}/models/{model}/predict"
        bodies[name] = (path, json.dumps({"rows": [rows.iloc[0].to_dict()]}))
    key = str(KeyRepository(db, TenantId(TENANT)).create("benchmark", [Scope.PREDICT]))
    time.sleep(FOLLOWED_WITHIN_S)
    print(json.dumps({"url": url, "key": key, "bodies": bodies}))


def started(python: str, home: Path) -> dict[str, Any]:
    """Run ``serve`` with an interpreter in a separate home; returns its output."""
    from ml_core.platform.ports import free_ports

    environment = {**os.environ, "MLCORE_HOME": str(home), "MLCORE_HTTP_PORT": str(free_ports(1)[0])}
    command = [python, __file__, "--serve"]
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(printed.splitlines()[-1]))


def rate(platform: dict[str, Any], model: str, connections: int, seconds: int, script: Path) -> float:
    """Requests per second.

    Raises:
        RuntimeError: A request failed.
    """
    path, body = platform["bodies"][model]
    script.write_text(_SCRIPT.format(body=body, key=platform["key"]))
    options = ["-t", str(min(2, connections)), "-c", str(connections), "-d", f"{seconds}s", "-s", str(script)]
    command = ["wrk", *options, platform["url"] + path]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    if found is None or "Non-2xx" in printed or "Socket errors" in printed:
        raise RuntimeError(f"{model} at {connections} connections: {printed}")
    return float(found[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    pythons = [sys.executable, *([options.other] if options.other else [])]
    homes = [Path(tempfile.mkdtemp(prefix="mlcore-serving-")) for _ in pythons]
    for home in homes:
        home.chmod(0o711)  # root runs PostgreSQL as a user that must get through
    results = []
    try:
        platforms = [started(python, home) for python, home in zip(pythons, homes, strict=True)]
        for model in platforms[0]["bodies"]:
            for connections in CONNECTIONS:
                rates: list[list[float]] = [[] for _ in platforms]
                for turn in range(options.rounds):
                    for index in sorted(range(len(platforms)), reverse=turn % 2 == 1):
                        script = homes[index] / "wrk.lua"
                        rates[index].append(rate(platforms[index], model, connections, options.seconds, script))
                row = {"model": model, "connections": connections, "requests_s": statistics.median(rates[0])}
                if len(rates) > 1:
                    row["other_requests_s"] = statistics.median(rates[1])
                    row["ratio"] = statistics.median(own / other for own, other in zip(*rates, strict=True))
                results.append(row)
                print("  ".join(f"{name} {v:.2f}" if isinstance(v, float) else f"{v:>20}" for name, v in row.items()))
    finally:
        for python, home in zip(pythons, homes, strict=True):
            down = [python, "-m", "ml_core.cli", "down"]
            subprocess.run(down, env={**os.environ, "MLCORE_HOME": str(home)}, check=False, capture_output=True)
            shutil.rmtree(home, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
