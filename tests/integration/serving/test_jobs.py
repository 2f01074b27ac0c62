"""Jobs on the Ray cluster of a running platform."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from ml_core.client import MLClient
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.job import ENDED, JobState
from ml_core.domain.train_spec import TrainSpec
from ml_core.exceptions import PlatformError
from ml_core.ids import TenantId
from ml_core.jobs.ray_jobs import RayJobRunner
from ml_core.jobs.submission import Jobs
from ml_core.platform.ports import free_ports
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.training.trainer import Trainer
from support.job_queue import running_queue
from support.running_platform import RunningPlatform
from support.tables import measures
from support.waiting import wait_until

WITHIN_S = 180.0
ROWS = 3_000
TRAINING = {"target": "outcome", "hyperparameters": {"algorithm": "gradient_boosting", "max_iter": 5}}
SLOW = {"target": "outcome", "hyperparameters": {"algorithm": "random_forest", "n_estimators": 20_000}}


@pytest.fixture(scope="module")
def client(platform: RunningPlatform) -> Iterator[MLClient]:
    """A client of a tenant with a dataset."""
    tenant = platform.tenant("jobs")
    DatasetRepository(platform.db, tenant.tenant_id).create("m", measures(ROWS))
    key = platform.key(tenant.tenant_id, Scope.ADMIN)
    with MLClient(platform.url, api_key=key, tenant_id=tenant.tenant_id) as asks:
        yield asks


def process_of(platform: RunningPlatform, run_id: str) -> psutil.Process:
    """The process of a run."""

    def look() -> psutil.Process | None:
        for process, words in platform.processes():
            if "ml_core.jobs.worker" in words and run_id in words and "sh" not in words[1]:
                return process
        return None

    return wait_until(look, WITHIN_S)


def running(client: MLClient, job_id: str) -> str:
    """The run of a job that has reached the fit."""
    job = wait_until(lambda: (found := client.jobs.get(job_id)).progress.get("stage") == "fit" and found, WITHIN_S)
    return str(job.run_id)


def test_one_specification_makes_one_digest_at_each_door(
    platform: RunningPlatform, client: MLClient, db: DatabaseConnection, tenant_id: TenantId
) -> None:
    """In process, from the queue, by ``deployments.train_job``, and as a Ray job of the platform, which serves it.

    Boosting adds up floats in an order that depends on the number of threads, of which each door has another.
    """
    job = client.jobs.train("m", "m", training=TRAINING, promote_to="production")
    DatasetRepository(db, tenant_id).create("m", measures(ROWS))
    training = {**TRAINING, "dataset": "m@1"}
    here = Trainer(db, tenant_id).train_spec("here", TrainSpec.from_json(training))
    with running_queue(db):
        jobs = Jobs(db, tenant_id)
        queued = jobs.wait(jobs.train("queued", training).job_id, timeout_s=WITHIN_S)
    command = [sys.executable, "-m", "deployments.train_job", "--spec", "-", "--tenant", tenant_id]
    spec = json.dumps({"model_id": "spec", "training": training})
    environment = {
        **os.environ,
        **db.environment,
        "MLCORE_HOME": str(db.settings.platform.home),
        "OMP_NUM_THREADS": "2",
    }
    done = subprocess.run(command, input=spec, env=environment, capture_output=True, text=True, timeout=WITHIN_S)
    assert done.returncode == 0, done.stderr
    of_ray = wait_until(lambda: (found := client.jobs.get(job.job_id, wait_s=20)).state in ENDED and found, WITHIN_S)
    assert of_ray.state is JobState.SUCCEEDED, of_ray.error
    assert of_ray.spec["training"]["dataset"] == "m@1"
    own = VersionRepository(db, tenant_id)
    digests = [
        own.get("here", here.version).digest,
        own.get("queued", queued.result["version"]).digest,
        own.get("spec", json.loads(done.stdout)["version"]).digest,
        VersionRepository(platform.db, platform.tenant("jobs").tenant_id).get("m", of_ray.result["version"]).digest,
    ]
    assert len(set(digests)) == 1, digests
    row = measures(1).drop(columns="outcome").iloc[0].to_dict()
    wait_until(lambda: platform.tenant("jobs").predict("m", [row]).status_code == 200)


def test_tasks_make_the_version_that_one_process_makes(platform: RunningPlatform, client: MLClient) -> None:
    """A job of two cores leaves them to its tasks."""
    training = {"target": "outcome", "hyperparameters": {"n_estimators": 8}}
    job = client.jobs.train("forest", "m", training=training, cpus=2)
    done = wait_until(lambda: (found := client.jobs.get(job.job_id, wait_s=20)).state in ENDED and found, WITHIN_S)
    assert done.state is JobState.SUCCEEDED, done.error
    assert client.runs.get(str(done.run_id)).parameters["strategy"] == "forest_by_trees"
    tenant_id = platform.tenant("jobs").tenant_id
    spec = TrainSpec.from_json({**training, "dataset": "m@1"})
    here = Trainer(platform.db, tenant_id).train_spec("here", spec)
    versions = VersionRepository(platform.db, tenant_id)
    assert versions.get("forest", done.result["version"]).digest == versions.get("here", here.version).digest


def test_a_plug_in_is_trained_by_a_job_and_served(platform: RunningPlatform, client: MLClient) -> None:
    """Of a module that is installed and trusted in the platform's processes, and not in this one."""
    training = {"target": "outcome", "model_type": "acme_scorer", "hyperparameters": {"power": 1.5}}
    job = client.jobs.train("own", "m", training=training, promote_to="production")
    done = wait_until(lambda: (found := client.jobs.get(job.job_id, wait_s=20)).state in ENDED and found, WITHIN_S)
    assert done.state is JobState.SUCCEEDED, done.error
    (needed,) = client.versions.get("own", done.result["version"]).modules
    assert (needed.module, needed.distribution, needed.version) == ("acme_models", "acme-models", "1.2")
    rows = measures(20).drop(columns="outcome").to_dict("records")
    tenant = platform.tenant("jobs")
    answer = wait_until(lambda: (found := tenant.predict("own", rows)).status_code == 200 and found.json())
    assert len(answer["predictions"]) == 20


def test_the_trials_of_a_search_have_its_cores(client: MLClient) -> None:
    """The process of the job holds none, on whatever Ray it is."""
    search = {"algorithm": "decision_tree", "sampler": "random", "trials": 4, "folds": 2}
    job = client.jobs.tune("searched", "m", training={"target": "outcome"}, search=search)
    done = wait_until(lambda: (found := client.jobs.get(job.job_id, wait_s=20)).state in ENDED and found, WITHIN_S)
    assert done.state is JobState.SUCCEEDED, done.error
    assert (done.result["search"]["trials"], done.result["search"]["failed"]) == (4, 0)
    trials = list(client.runs.list(parent_run_id=done.run_id))
    assert {(run.kind, run.status) for run in trials} == {("trial", "finished")}
    assert client.versions.get("searched", done.result["version"]).lineage.run_id == done.run_id


def test_a_killed_worker_and_a_killed_control_loop_lose_no_job(platform: RunningPlatform, client: MLClient) -> None:
    """Serve starts the control loop again, and the next attempt ends as cancelled because we ask for it."""
    job_id = client.jobs.train("m", "m", training=SLOW).job_id
    first = running(client, job_id)
    _kill_control_loop(platform)
    process = process_of(platform, first)
    os.kill(process.pid, signal.SIGKILL)
    second = wait_until(lambda: (found := client.jobs.get(job_id)).attempt == 2 and found, WITHIN_S)
    assert second.run_id != first
    assert "ended" in str(client.runs.get(first).error) or "failed" in str(client.runs.get(first).error)
    again = process_of(platform, running(client, job_id))
    _check_secrets(platform, again)
    client.jobs.cancel(job_id, "enough")
    wait_until(lambda: client.jobs.get(job_id).state is JobState.CANCELLED, WITHIN_S)
    wait_until(lambda: not again.is_running() or again.status() == psutil.STATUS_ZOMBIE, WITHIN_S)


def test_what_keeps_ray_from_a_job_is_said(platform: RunningPlatform) -> None:
    """Ray that is away, and a token that it refuses."""
    state = platform.local.state
    assert state is not None
    refused = RayJobRunner(f"http://127.0.0.1:{state.dashboard_port}", "wrong", "test")
    with pytest.raises(PlatformError, match=r"Ray refused the token .* MLCORE_RAY_TOKEN"):
        refused.seen()
    refused.close()
    away = RayJobRunner(f"http://127.0.0.1:{free_ports(1)[0]}", None, "test")
    with pytest.raises(PlatformError, match=r"does not answer \(ConnectError\)\. Start the platform"):
        away.seen()
    away.close()


def _check_secrets(platform: RunningPlatform, process: psutil.Process) -> None:
    """The node has the tenant key, and a job's process and its supervisor have the job's seal only."""
    supervisor = process.parent()
    while supervisor is not None and "JobSupervisor" not in " ".join(supervisor.cmdline()):
        supervisor = supervisor.parent()
    assert supervisor is not None
    node = supervisor.parent()
    assert node is not None
    key = platform.db.tenant_key
    assert key in node.environ().values()
    for started in (process, supervisor):
        environment = started.environ()
        assert not {key, platform.db.urls.ingest, platform.db.urls.owner} & set(environment.values())
        assert platform.tenant("jobs").tenant_id in environment["MLCORE_DATABASE_JOB_SEAL"]


def _kill_control_loop(platform: RunningPlatform) -> None:
    (actor,) = [
        process for process, words in platform.processes() if any("ServeReplica:control-loop" in word for word in words)
    ]
    actor.kill()
