"""A second machine: a command in a process of its own, with an empty home, an address and a key, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import JobState
from ml_core.domain.run import RunStatus
from ml_core.registry.jobs import JobRepository
from ml_core.registry.runs import RunRepository
from support.http_server import mounted, served
from support.job_queue import running_queue
from support.tables import measures, tickets
from support.waiting import wait_until

COMMAND = [sys.executable, "-m", "ml_core.cli"]
WITHIN_S = 120.0


@pytest.fixture
def training_api(registry: DatabaseConnection) -> Iterator[str]:
    """The address of a control API, with a dispatcher that trains in processes."""
    with running_queue(registry), served(mounted(create_app(Services(registry)))) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def environment(mlcore: Callable, tenant: str, training_api: str, tmp_path: Path) -> dict[str, str]:
    """What the second machine knows."""
    key = mlcore("keys", "create", "-t", tenant, "--scope", "admin", "--json").json["key"]
    (tmp_path / "home").mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "MLCORE_HOME": str(tmp_path / "home" / "mlcore"),
        "MLCORE_URL": training_api,
        "MLCORE_API_KEY": key,
        "COLUMNS": "400",
    }


@pytest.fixture
def remote(environment: dict[str, str]) -> Callable[..., Any]:
    """Runs a command on the second machine; its standard output as JSON."""

    def call(*arguments: Any, code: int = 0) -> Any:
        command = [*COMMAND, *map(str, arguments), "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN_S)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout if code == 0 else done.stderr)

    return call


def test_a_model_is_trained_compared_and_promoted(
    remote: Callable[..., Any], tenant: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    """From an uploaded CSV to a pointer; nothing is made on this machine."""
    file = tmp_path / "tickets.csv"
    tickets().to_csv(file, index=False)
    common = ("-t", tenant, "-m", "tickets")
    for algorithm in ("logistic_regression", "decision_tree"):
        made = remote("train", file, *common, "--target", "category", "-p", f"algorithm={algorithm}")
        assert (made["algorithm"], made["dataset"]) == (algorithm, "tickets@1")
        assert made["columns"][0]["reason"] != ""
    compared = remote("versions", "compare", "1", "2", *common)
    assert compared["data"]["same"] is True
    assert "accuracy" in compared["metrics"]["validation"]
    promoted = remote("promote", *common, "-v", "1")
    assert (promoted["version"], promoted["generation"], promoted["replicas"]) == ("1", 1, [])
    (served_version,) = [row for row in remote("versions", "list", *common)["items"] if row["uses"]]
    assert served_version["version"] == "1"
    assert list(Path(environment["HOME"]).iterdir()) == []


def test_a_training_that_fails_far_away_says_what_helps(
    remote: Callable[..., Any], tenant: str, tmp_path: Path
) -> None:
    """With the class of the error, its column and the option, also after the training has begun."""
    frame = measures()
    frame.loc[:2, "outcome"] = ["a", "b", "b"]
    frame.to_csv(tmp_path / "m.csv", index=False)
    refused = remote("train", tmp_path / "m.csv", "-t", tenant, "-m", "m", "--target", "outcome", code=1)["error"]
    assert (refused["code"], refused["details"]["stage"]) == ("training_failed", "validate")
    assert "Here: --rare-classes drop." in refused["message"]
    (run,) = remote("runs", "list", "-t", tenant)["items"]
    assert run["status"] == "failed"


@pytest.mark.parametrize("is_remote", [True, False])
def test_an_interrupted_training_is_cancelled(
    request: pytest.FixtureRequest,
    registry: DatabaseConnection,
    cli_home: Path,
    tenant: str,
    tmp_path: Path,
    is_remote: bool,
) -> None:
    """Its job and its run, its process ends, and no version is registered; without a platform as well."""
    measures(2_000).to_csv(tmp_path / "m.csv", index=False)
    fit = ("--target", "outcome", "-p", "n_estimators=20000")
    command = [*COMMAND, "train", str(tmp_path / "m.csv"), "-t", tenant, "-m", "m", *fit]
    alone = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLCORE_HOME": str(cli_home), "COLUMNS": "400"}
    environment = request.getfixturevalue("environment") if is_remote else alone
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    runs, jobs = RunRepository(registry, tenant), JobRepository(registry, tenant)
    wait_until(lambda: [run.status for run in runs.search().items] == [RunStatus.RUNNING], WITHIN_S)
    (job,) = jobs.list().items
    assert len(workers(str(job.run_id))) == is_remote
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, "Interrupted" in err, "Traceback" in err) == (130, True, False), err
    assert f"The job {job.job_id} is cancel" in err
    wait_until(lambda: jobs.get(job.job_id).state is JobState.CANCELLED, WITHIN_S)
    assert [run.status for run in runs.search().items] == [RunStatus.CANCELLED]
    wait_until(lambda: workers(str(job.run_id)) == [], WITHIN_S)


def workers(run_id: str) -> list[int]:
    """The processes that execute a job's attempt."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if run_id.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found
