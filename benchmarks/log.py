"""The prediction log of a running platform: its effect on the serving rate, and what a killed replica loses.

    .venv/bin/python benchmarks/log.py [--seconds 10] [--repetitions 3] [--kills 2] [--json FILE]

Starts a platform (PostgreSQL, Ray Serve behind its ingress, two replicas) with three tenants, which serve a logistic
regression over 20 numbers each and differ in the policy of their log: ``nothing``, ``digest`` and ``inputs``. ``wrk``,
which must be installed, loads them in turn with 64 connections, one row per request, authenticated, so that other load
on the machine affects all alike. Each figure is the median of the repetitions; a share is the median of the shares of
each repetition. ``cpu`` is processor time of the platform per request, which other load affects less than the rate.

Then clients of two tenants record the id of each answer while replicas are killed with ``kill -9``, one after another,
each once Serve has replaced the one before. Each recorded id must be in the log, or the counts of losses must admit it.

``predictions.py`` measures the rows per second into PostgreSQL, and the time of each stage.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
from live_platform import Clients, numbers, temporary_platform, wait_followed
from populate import superuser

from ml_core.database.cluster import find_postmaster
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.ids import TenantId
from ml_core.platform.processes import find_marked
from ml_core.platform.state import PlatformState
from ml_core.registry.keys import KeyRepository
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.replicas import seen_replicas
from ml_core.system import MLSystem

MODEL, CONNECTIONS, THREADS, REPLICAS = "numbers", 64, 2, 2
WRITTEN_AFTER_S = 2.0
"""Two intervals at which a replica writes its spool: after them the load is over for PostgreSQL too."""
WRITTEN_WITHIN_S = 30.0
"""A replica writes its spool each second, and looks for those of killed replicas every 5 s."""
REPLACED_WITHIN_S = 60.0
_SCRIPT = """
wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["Authorization"] = "Bearer {key}"
"""


def tenant(policy: PredictionPolicy) -> TenantId:
    """The tenant with a policy."""
    return TenantId(f"keeps-{policy}")


def path(tenant_id: TenantId) -> str:
    """Where its model is asked."""
    return f"/t/{tenant_id}/models/{MODEL}/predict"


def serve(db: DatabaseConnection) -> tuple[dict[PredictionPolicy, str], bytes]:
    """Train and promote a model for each tenant; returns the keys, and the body of a request."""
    frame, labels = numbers()
    keys = {}
    for policy in PredictionPolicy:
        system = MLSystem(db, tenant_id=tenant(policy))
        trained = system.train_model(
            MODEL, "classification", (frame, labels), None, {"algorithm": "logistic_regression"}
        )
        system.promote(MODEL, trained["version"])
        PredictionRepository(db, tenant(policy)).set_policy(policy)
        keys[policy] = str(KeyRepository(db, tenant(policy)).create("benchmark", [Scope.PREDICT]))
    wait_followed(db)
    return keys, json.dumps({"rows": [frame.iloc[0].round(4).to_dict()]}).encode()


def load(script: Path, url: str, seconds: int) -> tuple[float, int]:
    """Requests per second, and the number of answers."""
    command = ["wrk", "-t", str(THREADS), "-c", str(CONNECTIONS), "-d", f"{seconds}s", "-s", str(script), url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate, answered = re.search(r"Requests/sec:\s+([\d.]+)", printed), re.search(r"(\d+) requests in", printed)
    if rate is None or answered is None or "Non-2xx" in printed or "Socket errors" in printed:
        raise RuntimeError(printed)
    return float(rate[1]), int(answered[1])


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


def kept(db: DatabaseConnection) -> tuple[set[str], int]:
    """The request ids in the prediction log, and the number of rows that are counted as lost."""
    with superuser(db) as session:
        ids = session.execute("SELECT request_id FROM mlcore.predictions").fetchall()
        lost = session.execute("SELECT COALESCE(sum(row_count), 0)::bigint FROM mlcore.prediction_losses").fetchone()
    return {request_id for (request_id,) in ids}, lost[0] if lost else 0


def measure_rates(
    db: DatabaseConnection,
    state: PlatformState,
    keys: dict[PredictionPolicy, str],
    body: bytes,
    seconds: int,
    repetitions: int,
) -> dict[str, Any]:
    """Requests per second by policy, and the numbers of answers and of logged rows."""
    home, script = db.settings.platform.home, db.settings.platform.home / "request.lua"
    rates: dict[str, list[float]] = {policy.value: [] for policy in PredictionPolicy}
    costs: dict[str, list[float]] = {policy.value: [] for policy in PredictionPolicy}
    logged = 0
    for turn in range(repetitions + 1):
        for policy in PredictionPolicy:
            script.write_text(_SCRIPT.format(key=keys[policy], body=body.decode()), encoding="utf-8")
            before_s = cpu_s(home, state.session_id)
            rate, answered = load(script, state.url + path(tenant(policy)), seconds)
            time.sleep(
                WRITTEN_AFTER_S
            )  # a question whether it is written would be work of PostgreSQL, which is measured
            after_s = cpu_s(home, state.session_id)
            taken = {kind: round((after_s[kind] - before_s[kind]) / answered * 1e6, 1) for kind in after_s}
            logged += 0 if policy is PredictionPolicy.NOTHING else answered
            if turn == 0:
                continue  # it warms up
            rates[policy.value].append(rate)
            costs[policy.value].append(sum(taken.values()))
            print(f"{policy.value:8} {rate:10,.0f} requests/s  µs cpu a request: {taken}")
    ids, lost = kept(db)
    return {
        "connections": CONNECTIONS,
        "requests_a_second": {policy: round(statistics.median(found)) for policy, found in rates.items()},
        "cpu_us_a_request": {policy: round(statistics.median(found)) for policy, found in costs.items()},
        "share_of_rate_without": {policy: _share(rates[policy], rates["nothing"]) for policy in ("digest", "inputs")},
        "share_of_cpu_without": {policy: _share(costs[policy], costs["nothing"]) for policy in ("digest", "inputs")},
        "answered": logged,
        # wrk stops while up to 64 answers are outstanding, which it does not count.
        "kept_or_counted": len(ids) + lost,
    }


def _share(found: list[float], without: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(found, without, strict=True)), 3)


def measure_kills(
    db: DatabaseConnection,
    state: PlatformState,
    keys: dict[PredictionPolicy, str],
    body: bytes,
    seconds: int,
    kills: int,
) -> dict[str, int]:
    """Answers while replicas are killed, and how many of them are in the log, counted as lost, or neither."""
    with superuser(db) as session:
        session.execute("TRUNCATE mlcore.predictions, mlcore.prediction_losses")
    turns = itertools.cycle([PredictionPolicy.DIGEST, PredictionPolicy.INPUTS])

    def choose() -> tuple[str, str, bytes]:
        policy = next(turns)
        return path(tenant(policy)), keys[policy], body

    with Clients(state.url, choose, connections=8) as clients:
        for _ in range(kills):
            wait_until(lambda: len(replicas(db, state)) == REPLICAS and live_reports(db) >= REPLICAS, REPLACED_WITHIN_S)
            time.sleep(seconds)
            os.kill(replicas(db, state)[0].pid, signal.SIGKILL)
        time.sleep(seconds)
    answered = {answer.body["request_id"] for answer in clients.answers}
    wait_until(lambda: answered <= kept(db)[0], WRITTEN_WITHIN_S)
    logged, lost = kept(db)
    missing = len(answered - logged)
    return {
        "kills": kills,
        "answered": len(answered),
        "failed": len(clients.failures),
        "logged": len(answered & logged),
        "counted": lost,
        "neither": max(0, missing - lost),
    }


def replicas(db: DatabaseConnection, state: PlatformState) -> list[psutil.Process]:
    """The replicas of the shared cell, oldest first."""
    found = find_marked(db.settings.platform.home, state.session_id)
    named = [process for process in found if process.is_running() and "ServeReplica:shared" in title(process)]
    return sorted(named, key=lambda process: process.create_time())


def title(process: psutil.Process) -> str:
    """How Ray names a process; empty if it ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def live_reports(db: DatabaseConnection) -> int:
    """Replicas that have applied the assignment."""
    return sum(not seen.is_behind for seen in seen_replicas(db))


def wait_until(condition: Any, within_s: float) -> bool:
    """Wait for a condition; whether it held in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10, help="of each load; a third before each kill")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/log.json"))
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: https://github.com/wg/wrk")
    with temporary_platform() as (db, state):
        keys, body = serve(db)
        result = measure_rates(db, state, keys, body, options.seconds, options.repetitions)
        print(f"of the rate without: {result['share_of_rate_without']}, of the cpu: {result['share_of_cpu_without']}")
        print(f"{result['answered']:,} answered, {result['kept_or_counted']:,} kept or counted as lost")
        if options.kills:
            result["kills"] = measure_kills(db, state, keys, body, max(1, options.seconds // 3), options.kills)
            print("kill -9:", ", ".join(f"{count:,} {name}" for name, count in result["kills"].items()))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
