"""The effect of the prediction log on the serving rate: requests per second with each policy.

    .venv/bin/python benchmarks/predictions_serving.py [--seconds 10] [--repetitions 3] [--json FILE]

Starts a platform (PostgreSQL, Ray Serve behind its ingress, two replicas), serves a logistic regression over 20
numbers, and loads it with ``wrk``, which must be installed: 64 connections, one row per request, authenticated. The
policies ``nothing``, ``digest`` and ``inputs`` alternate, so that other load on the machine affects all alike. Each
figure is the median of the repetitions; a share is the median of the shares of each repetition. ``cpu`` is processor
time of the platform per request, which other load affects less than the rate. Finally the rows of the log are counted:
each answer that the policy logs must be in the log or in its counts of losses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from ml_core.client import MLClient
from ml_core.database.cluster import find_postmaster
from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.domain.api_key import Scope
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.ids import TenantId
from ml_core.platform.local import LocalPlatform
from ml_core.platform.ports import free_ports
from ml_core.platform.processes import find_marked
from ml_core.platform.state import PlatformState
from ml_core.registry.keys import KeyRepository
from ml_core.registry.predictions import PredictionRepository
from ml_core.settings import PlatformSettings, Settings
from ml_core.system import MLSystem

TENANT, MODEL, CONNECTIONS, THREADS = TenantId("benchmark"), "numbers", 64, 2
FOLLOWED_WITHIN_S = 2.0
"""Time for a policy to take effect: replicas apply it within about 1 s and write their queues 0.5 s later."""
_SCRIPT = """
wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["Authorization"] = "Bearer {key}"
"""


def serve(db: DatabaseConnection, url: str) -> tuple[str, str]:
    """Train and promote a model, and wait for an answer; returns a key and a body."""
    values = np.random.default_rng(0).normal(size=(1000, 20))
    frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(20)])
    labels = pd.Series(np.where(values[:, 0] + values[:, 1] > 0, "yes", "no"))
    system = MLSystem(db, tenant_id=TENANT)
    parameters = {"algorithm": "logistic_regression"}
    trained = system.train_model(MODEL, "classification", (frame, labels), None, parameters)
    system.promote(MODEL, trained["version"])
    key = str(KeyRepository(db, TENANT).create("benchmark", [Scope.PREDICT]))
    row = frame.iloc[0].round(4).to_dict()
    time.sleep(FOLLOWED_WITHIN_S)
    with MLClient(url, api_key=key, tenant_id=TENANT) as client:
        client.predict(MODEL, [row])
    return key, json.dumps({"rows": [row]})


def load(script: Path, url: str, seconds: int) -> tuple[float, int]:
    """Requests per second, and the number of answers."""
    target = f"{url}/t/{TENANT}/models/{MODEL}/predict"
    command = ["wrk", "-t", str(THREADS), "-c", str(CONNECTIONS), "-d", f"{seconds}s", "-s", str(script), target]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise RuntimeError(printed)
    rate, answered = re.search(r"Requests/sec:\s+([\d.]+)", printed), re.search(r"(\d+) requests in", printed)
    if rate is None or answered is None:
        raise RuntimeError(printed)
    return float(rate[1]), int(answered[1])


def kept(db: DatabaseConnection) -> int:
    """Rows in the prediction log, and its counts of losses."""
    with db.tenant(TENANT) as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM mlcore.predictions").scalar_one()
        lost = connection.exec_driver_sql("SELECT COALESCE(sum(row_count), 0) FROM mlcore.prediction_losses")
        return int(rows) + int(lost.scalar_one())


def cpu_s(home: Path, session_id: int | None) -> dict[str, float]:
    """Seconds of processor time of the platform, by kind of process."""
    postmaster = find_postmaster(home / "postgres")
    processes = {process.pid: ("serving", process) for process in find_marked(home, session_id)}
    if postmaster is not None:
        for process in (postmaster.process, *postmaster.process.children()):
            processes[process.pid] = ("postgres", process)
    total = {"serving": 0.0, "postgres": 0.0}
    for kind, process in processes.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total[kind] += times.user + times.system
    return total


def measure(
    db: DatabaseConnection, state: PlatformState, script: Path, seconds: int, repetitions: int
) -> dict[str, Any]:
    """Requests per second by policy, and the numbers of answers and of logged rows."""
    predictions, url, home = PredictionRepository(db, TENANT), state.url, db.settings.platform.home
    rates: dict[str, list[float]] = {policy.value: [] for policy in PredictionPolicy}
    costs: dict[str, list[float]] = {policy.value: [] for policy in PredictionPolicy}
    load(script, url, seconds)  # warms up
    time.sleep(FOLLOWED_WITHIN_S)
    before, to_keep = kept(db), 0
    for _ in range(repetitions):
        for policy in PredictionPolicy:
            predictions.set_policy(policy)
            time.sleep(FOLLOWED_WITHIN_S)
            before_s = cpu_s(home, state.session_id)
            rate, answered = load(script, url, seconds)
            time.sleep(1)  # what is still queued belongs to the load
            taken = {
                kind: (now - before_s[kind]) / answered * 1e6 for kind, now in cpu_s(home, state.session_id).items()
            }
            rates[policy.value].append(rate)
            costs[policy.value].append(sum(taken.values()))
            to_keep += 0 if policy is PredictionPolicy.NOTHING else answered
            print(f"{policy.value:8} {rate:10,.0f} requests/s  µs cpu a request: {taken}")
    return {
        "connections": CONNECTIONS,
        "requests_a_second": {policy: round(statistics.median(found)) for policy, found in rates.items()},
        "cpu_us_a_request": {policy: round(statistics.median(found)) for policy, found in costs.items()},
        "share_of_rate_without": {policy: _share(rates[policy], rates["nothing"]) for policy in ("digest", "inputs")},
        "share_of_cpu_without": {policy: _share(costs[policy], costs["nothing"]) for policy in ("digest", "inputs")},
        "answered": to_keep,
        # wrk stops while up to 64 answers are outstanding, which it does not count.
        "kept_or_counted": kept(db) - before,
    }


def _share(found: list[float], without: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(found, without, strict=True)), 3)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/predictions_serving.json"))
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: https://github.com/wg/wrk")
    home = Path(tempfile.mkdtemp(prefix="mlcore-predictions-"))
    home.chmod(0o711)  # the server's account must pass through
    settings = Settings(platform=PlatformSettings(home=home, http_port=free_ports(1)[0]))
    local = LocalPlatform(settings)
    try:
        state = local.up()
        with DatabaseConnection(settings=settings) as db:
            key, body = serve(db, state.url)
            script = home / "request.lua"
            script.write_text(_SCRIPT.format(key=key, body=body), encoding="utf-8")
            result = measure(db, state, script, options.seconds, options.repetitions)
    finally:
        local.down()
        EmbeddedServer(home).stop()
        shutil.rmtree(home, ignore_errors=True)
    print(f"of the rate without: {result['share_of_rate_without']}, of the cpu: {result['share_of_cpu_without']}")
    print(f"{result['answered']:,} answered, {result['kept_or_counted']:,} kept or counted as lost")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
