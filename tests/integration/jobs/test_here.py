"""Jobs in this process, as a command without a platform and ``deployments.train_job`` execute them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Job, JobState
from ml_core.domain.run import RunStatus
from ml_core.exceptions import ModelNotFoundError, StorageFullError, TrainingError
from ml_core.ids import TenantId
from ml_core.jobs import execution
from ml_core.jobs.here import executing
from ml_core.jobs.kinds import train
from ml_core.jobs.submission import Jobs
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobQueue
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from support.job_queue import empty_queue
from support.tables import measures
from support.waiting import wait_until

WITHIN_S = 60.0
TRAINING = {"dataset": "m", "target": "outcome", "hyperparameters": {"algorithm": "logistic_regression"}}


@pytest.fixture
def own(db: DatabaseConnection, tenant_id: TenantId) -> Jobs:
    """The jobs of a tenant that has a dataset."""
    empty_queue(db)
    DatasetRepository(db, tenant_id).create("m", measures(400))
    return Jobs(db, tenant_id)


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Trainings wait in the middle until the event is set; the thread has ended when the test has."""
    go_on, ended, execute = threading.Event(), threading.Event(), train.execute
    ended.set()

    def slow(work):
        ended.clear()
        try:
            with RunRepository(work.db, work.tenant_id).record("m", run_id=work.run_id):
                work.progress.enter("fit")
                assert go_on.wait(WITHIN_S)
                VersionRepository(work.db, work.tenant_id).get("m")
        finally:
            ended.set()
        return execute(work)

    monkeypatch.setattr(train, "execute", slow)
    monkeypatch.setattr(execution, "_BEAT_EVERY_S", 0.05)
    yield go_on
    go_on.set()
    assert ended.wait(WITHIN_S)


def fitting(own: Jobs, job: Job) -> Job:
    """A job that has reached the fit."""
    return wait_until(lambda: (found := own.get(job.job_id)).progress.get("stage") == "fit" and found, WITHIN_S)


def test_only_that_job_is_executed(db, own, tenant_id, other_tenant_id) -> None:
    """Whatever waits before it stays in the queue, of this tenant and of others."""
    DatasetRepository(db, other_tenant_id).create("m", measures(50))
    waiting = [(jobs, jobs.train("m", TRAINING, priority=9)) for jobs in (own, Jobs(db, other_tenant_id))]
    job = own.train("m", TRAINING)
    with executing(db, tenant_id, job.job_id):
        assert own.wait(job.job_id, timeout_s=WITHIN_S).result["version"] == "1"
    for jobs, before in waiting:
        assert jobs.cancel(before.job_id).attempt == 0


@pytest.mark.parametrize("how", ["job", "run"])
def test_what_is_cancelled_elsewhere_ends_the_wait(db, own, tenant_id, held_up, how: str) -> None:
    """And not the process, as it does where a job has one of its own."""
    job = own.train("m", TRAINING, max_attempts=1)
    with executing(db, tenant_id, job.job_id):
        run_id = str(fitting(own, job).run_id)
        if how == "job":
            own.cancel(job.job_id)
        else:
            RunRepository(db, tenant_id).cancel(run_id, "no")
        with pytest.raises(TrainingError, match="was cancelled"):
            own.wait(job.job_id, timeout_s=WITHIN_S)
    assert RunRepository(db, tenant_id).get(run_id).status is RunStatus.CANCELLED


def test_whoever_leaves_cancels_it(db, own, tenant_id, held_up) -> None:
    """At once, with its run; the thread that goes on registers nothing."""
    job = own.train("m", TRAINING)

    def leave() -> None:
        with executing(db, tenant_id, job.job_id):
            fitting(own, job)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    left = own.get(job.job_id)
    assert (left.state, left.attempt) == (JobState.CANCELLED, 1)
    assert RunRepository(db, tenant_id).get(str(left.run_id)).status is RunStatus.CANCELLED
    with pytest.raises(ModelNotFoundError):
        VersionRepository(db, tenant_id).get("m")


def test_where_a_dispatcher_was_faster_its_attempt_is_waited_for(db, own, tenant_id) -> None:
    """The job is done once, and leaving the block early cancels nothing of the dispatcher's."""
    job = own.train("m", TRAINING)
    attempt = JobQueue(db).claim("another", 1, 60)
    assert attempt is not None
    with executing(db, tenant_id, job.job_id):
        assert own.get(job.job_id).state is JobState.STARTING
    assert execution.execute(db, attempt) is JobState.SUCCEEDED
    assert own.get(job.job_id).attempt == 1


def test_what_a_killed_command_left_is_settled_by_the_next(db, own, tenant_id) -> None:
    """There may be no dispatcher that would."""
    killed = own.train("m", TRAINING, max_attempts=1)
    assert JobQueue(db).claim_one(tenant_id, killed.job_id, "here", -1) is not None
    job = own.train("m", TRAINING)
    with executing(db, tenant_id, job.job_id):
        own.wait(job.job_id, timeout_s=WITHIN_S)
    found = own.get(killed.job_id)
    assert (found.state, "did not report" in str(found.error)) == (JobState.FAILED, True)


def test_the_last_attempt_fails_with_what_kept_it_from_its_end(db, own, tenant_id, monkeypatch) -> None:
    """Such as a full disk, with its class and remedy."""

    def full(work):
        raise StorageFullError("The disk is full.", remedy="Free some space.")

    monkeypatch.setattr(train, "execute", full)
    job = own.train("m", TRAINING, max_attempts=1)
    with executing(db, tenant_id, job.job_id), pytest.raises(StorageFullError, match=r"The disk is full. Free some"):
        own.wait(job.job_id, timeout_s=WITHIN_S)


def test_a_specification_is_done_as_a_process(db, own, tenant_id) -> None:
    """``deployments.train_job`` prints the result; a refusal is one line that says what to do, and no traceback."""

    def run(**members: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deployments.train_job", "--spec", "-", "--tenant", tenant_id]
        environment = {**os.environ, **db.environment, "MLCORE_HOME": str(db.settings.platform.home)}
        spec = json.dumps({"model_id": "m", "training": TRAINING, **members})
        return subprocess.run(command, input=spec, env=environment, capture_output=True, text=True, timeout=120)

    done = run(promote_to="staging")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["version"], result["promoted_to"]) == ("1", "staging")
    assert own.get(result["job_id"]).state is JobState.SUCCEEDED
    refused = run(training={**TRAINING, "target": "outcom"})
    assert (refused.returncode, refused.stdout, "Traceback" in refused.stderr) == (1, "", False)
    assert "Did you mean outcome" in refused.stderr
