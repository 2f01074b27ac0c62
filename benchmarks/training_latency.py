"""Seconds from the submission of a job until it runs and until its version is registered, on a warm platform.

    .venv/bin/python benchmarks/training_latency.py [--jobs 10] [--json FILE]

Starts a platform (PostgreSQL, Ray, the control loop) and submits trainings of a small table, each when the last one has
ended. The peer is Ray's own job interface on the same cluster: a script that imports pandas and scikit-learn, fits the
same rows and ends, from its submission until it runs and until Ray says that it succeeded. Both take turns. States are
asked every 10 ms. The figures are medians.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from sklearn.datasets import load_iris

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import JobState
from ml_core.platform.local import LocalPlatform
from ml_core.platform.ports import free_ports
from ml_core.platform.ray_cluster import read_token
from ml_core.settings import PlatformSettings, Settings
from ml_core.system import MLSystem

TENANT = "benchmark"
TRAINING = {"dataset": "iris@1", "target": "target", "hyperparameters": {"algorithm": "logistic_regression"}}
SCRIPT = (
    "import pandas; from sklearn.datasets import load_iris; from sklearn.linear_model import LogisticRegression; "
    "LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True))"
)
_LOOK_EVERY_S = 0.01
_WITHIN_S = 300.0


def reached(state: Callable[[], str], waits: set[str]) -> str:
    """The first state that is none of ``waits``."""
    until = time.perf_counter() + _WITHIN_S
    while (found := state()) in waits:
        if time.perf_counter() > until:
            raise TimeoutError(f"A job is {found} after {_WITHIN_S:g} s.")
        time.sleep(_LOOK_EVERY_S)
    return found


def ours(system: MLSystem) -> dict[str, float]:
    """One training through the queue."""
    began = time.perf_counter()
    job_id = system.jobs.train("iris", TRAINING).job_id
    taken = {"submitted_s": time.perf_counter() - began}
    waits: set[str] = set()
    for state, name in (("queued", "claimed_s"), ("starting", "running_s"), ("running", "ended_s")):
        waits.add(state)
        found = reached(lambda: system.jobs.get(job_id).state.value, waits)
        taken[name] = time.perf_counter() - began
    if found != JobState.SUCCEEDED:
        raise RuntimeError(f"The job {job_id} is {found}: {system.jobs.get(job_id).error}")
    return taken


def ray_job(client: httpx.Client) -> dict[str, float]:
    """One job of Ray's own."""
    began = time.perf_counter()
    entrypoint = shlex.join([sys.executable, "-c", SCRIPT])
    answer = client.post("", json={"entrypoint": entrypoint, "entrypoint_num_cpus": 1}).raise_for_status()
    job = answer.json()["submission_id"]
    taken = {"submitted_s": time.perf_counter() - began}
    waits: set[str] = set()
    for state, name in (("PENDING", "running_s"), ("RUNNING", "ended_s")):
        waits.add(state)
        found = reached(lambda: client.get(job).json()["status"], waits)
        taken[name] = time.perf_counter() - began
    if found != "SUCCEEDED":
        raise RuntimeError(f"Ray's job {job} is {found}.")
    return taken


def measure(home: Path, jobs: int) -> dict[str, dict[str, float]]:
    """Medians by way, after one job of each that is not counted."""
    home.chmod(0o711)  # the account of the embedded server enters it
    settings = Settings(platform=PlatformSettings(home=home, http_port=free_ports(1)[0]))
    platform = LocalPlatform(settings)
    try:
        state = platform.up()
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{state.dashboard_port}/api/jobs/",
            headers={"Authorization": f"Bearer {read_token(home)}"},
            trust_env=False,
        )
        taken: dict[str, list[dict[str, float]]] = {"ours": [], "ray_job": []}
        with client, DatabaseConnection(settings=settings) as db:
            system = MLSystem(db, tenant_id=TENANT)
            system.datasets.create("iris", load_iris(as_frame=True).frame)
            for _ in range(jobs + 1):
                taken["ours"].append(ours(system))
                taken["ray_job"].append(ray_job(client))
        return {
            way: {name: round(statistics.median(row[name] for row in rows[1:]), 3) for name in rows[0]}
            for way, rows in taken.items()
        }
    finally:
        platform.down()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/training_latency.json"))
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="mlcore-benchmark-"))
    try:
        results = measure(home, options.jobs)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    for way, medians in results.items():
        print(f"{way:8}", "  ".join(f"{name} {value:.2f}" for name, value in medians.items()))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"jobs": options.jobs, **results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
