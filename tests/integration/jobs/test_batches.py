"""Batches in processes: several jobs to one, each on its own tenant's behalf, whatever is killed."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import pytest
from psycopg.types.json import Jsonb

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.job import Job, JobState
from ml_core.domain.job_batch import JobBatch
from ml_core.domain.job_spec import TrainJobSpec
from ml_core.domain.principal import Principal
from ml_core.domain.run import RunStatus
from ml_core.ids import TenantId
from ml_core.jobs import worker
from ml_core.jobs.dispatcher import Dispatcher
from ml_core.jobs.processes import ProcessRunner
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobBatchRepository, JobQueue, JobRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from support.job_queue import empty_queue
from support.registry import new_tenant, superuser
from support.tables import measures
from support.waiting import wait_until

WITHIN_S = 120.0


@pytest.fixture
def runner(db: DatabaseConnection) -> Iterator[ProcessRunner]:
    """Processes that end with the test."""
    empty_queue(db)
    found = ProcessRunner(db)
    yield found
    found.close()


@pytest.fixture
def dataset() -> str:
    """The name of a dataset that no other test has."""
    return f"d{uuid.uuid4().hex[:12]}"


@pytest.fixture
def tenants(db: DatabaseConnection, dataset: str) -> list[TenantId]:
    """Three tenants that have it."""
    made = [new_tenant(db) for _ in range(3)]
    for tenant in made:
        DatasetRepository(db, tenant).create(dataset, measures(100))
    return made


def submitted(db: DatabaseConnection, dataset: str) -> JobBatch:
    """A batch of an operator."""
    training = {"dataset": dataset, "target": "outcome", "hyperparameters": {"algorithm": "logistic_regression"}}
    operator = db.acting_as(Principal("operator", frozenset({Scope.ADMIN})))
    return JobBatchRepository(operator).submit(TrainJobSpec.from_json({"model_id": "m", "training": training}))


def job_of(db: DatabaseConnection, tenant: TenantId) -> Job:
    (job,) = JobRepository(db, tenant).list().items
    return job


def test_one_process_trains_for_each_tenant_and_a_failure_is_of_one(db, runner, dataset, tenants) -> None:
    """Versions and runs are in their tenants; a tenant whose table lacks the column fails alone, with the reason."""
    odd = new_tenant(db)
    DatasetRepository(db, odd).create(dataset, pd.DataFrame({"x": [1.0, 2.0]}))
    batch = submitted(db, dataset)
    dispatcher = Dispatcher(db, runner, cpus=1, name="d1")
    batches = JobBatchRepository(db)
    done = wait_until(lambda: dispatcher.turn() or ((b := batches.get(batch.batch_id)).is_final and b), WITHIN_S)
    assert done.states == {JobState.SUCCEEDED: 3, JobState.FAILED: 1}
    assert [(each.count, each.tenants) for each in done.failures] == [(1, (odd,))]
    assert "has no column 'outcome'" in done.failures[0].reason
    made = [job_of(db, tenant) for tenant in (*tenants, odd)]
    assert {job.process for job in made} == {runner_process(made)}
    assert [job.attempt for job in made] == [1] * 4
    for tenant in tenants:
        version, job = VersionRepository(db, tenant).get("m", "1"), job_of(db, tenant)
        assert (version.created_by, version.lineage.run_id) == ("operator", job.run_id)
        assert RunRepository(db, tenant).get(job.run_id).status is RunStatus.FINISHED
    assert wait_until(lambda: dispatcher.turn() or not runner.seen(), WITHIN_S), "the process has ended"


def runner_process(made: list[Job]) -> str:
    """The process of the job that began first."""
    return min(made, key=lambda job: job.started_at).run_id


def test_no_dispatcher_stops_a_process_between_two_jobs(db, dataset, tenants) -> None:
    """Whenever it takes its turn: after each transaction of the process, one does."""
    empty_queue(db)
    batch = submitted(db, dataset)
    first = JobQueue(db).claim("d1", 1, 60)
    stopped: list[str] = []

    class Runner:
        """Has one process, which is this one."""

        def start(self, attempt, variables) -> None:
            raise AssertionError(f"{attempt.job_id} is claimed by the process")

        def seen(self) -> dict:
            return {first.process: None}

        def stop(self, run_id) -> None:
            stopped.append(run_id)

    dispatcher = Dispatcher(db, Runner(), cpus=1, name="d1")
    batches, states = JobBatchRepository(db), []
    transaction = DatabaseConnection._transaction

    @contextmanager
    def with_turn(self, *given):
        with transaction(self, *given) as connection:
            yield connection
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DatabaseConnection, "_transaction", transaction)
            states.append(batches.get(batch.batch_id).states)
            if states[-1].keys() != {JobState.SUCCEEDED}:
                dispatcher.turn()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseConnection, "_transaction", with_turn)
        worker.work(db, first)
    assert stopped == []
    assert {found.get(JobState.SUCCEEDED, 0) for found in states} == set(range(len(tenants) + 1)), (
        "before and after each"
    )
    held = [found.get(JobState.STARTING, 0) + found.get(JobState.RUNNING, 0) for found in states]
    assert max(held) == 2, "the next job was claimed before the end of the last one, and a turn was taken then"
    assert {job_of(db, tenant).state for tenant in tenants} == {JobState.SUCCEEDED}
    dispatcher.turn()
    assert stopped == [first.process], "now it has no job"


def test_a_killed_process_costs_one_job_an_attempt(db, runner, dataset, tenants) -> None:
    """The other jobs of its batch go on in another process."""
    batch = submitted(db, dataset)
    dispatcher = Dispatcher(db, runner, cpus=1, name="d1")
    second = [job_of(db, tenant) for tenant in tenants]
    slow = {"algorithm": "random_forest", "n_estimators": 20_000}
    with superuser(db) as session:  # the job of one tenant takes long
        training = {**second[1].spec["training"], "hyperparameters": slow}
        change = "UPDATE mlcore.jobs SET spec = %s WHERE job_id = %s"
        session.execute(change, [Jsonb({**second[1].spec, "training": training}), second[1].job_id])

    def fits() -> Job | None:
        dispatcher.turn()
        job = job_of(db, tenants[1])
        return job if job.progress.get("stage") == "fit" else None

    job = wait_until(fits, WITHIN_S)
    os.kill(runner._processes[job.process].pid, signal.SIGKILL)
    wait_until(lambda: dispatcher.turn() or job_of(db, tenants[1]).state is JobState.QUEUED, WITHIN_S)
    with superuser(db) as session:
        again = "UPDATE mlcore.jobs SET spec = %s, not_before = now() WHERE job_id = %s"
        session.execute(again, [Jsonb(second[1].spec), job.job_id])
    batches = JobBatchRepository(db)
    done = wait_until(lambda: dispatcher.turn() or ((b := batches.get(batch.batch_id)).is_final and b), WITHIN_S)
    assert done.states == {JobState.SUCCEEDED: 3}
    assert [job_of(db, tenant).attempt for tenant in tenants] == [1, 2, 1]
    assert {len(VersionRepository(db, tenant).list("m").items) for tenant in tenants} == {1}


def test_a_cancelled_batch_frees_its_cores(db, runner, dataset, tenants) -> None:
    """The process ends with the job that it executes, and claims no other."""
    batch = submitted(db, dataset)
    dispatcher = Dispatcher(db, runner, cpus=1, name="d1")
    dispatcher.turn()
    batches = JobBatchRepository(db)
    batches.cancel(batch.batch_id)
    done = wait_until(lambda: dispatcher.turn() or ((b := batches.get(batch.batch_id)).is_final and b), WITHIN_S)
    assert done.states.keys() <= {JobState.CANCELLED, JobState.SUCCEEDED}
    assert done.states[JobState.CANCELLED] >= 2
    wait_until(lambda: dispatcher.turn() or not runner.seen(), WITHIN_S)
