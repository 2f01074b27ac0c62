"""Batches: a job for each tenant that has a dataset, submitted as one by an operator."""

from __future__ import annotations

import dataclasses
import random
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import jobs
from ml_core.domain.api_key import Scope
from ml_core.domain.job import Attempt, JobQuota, JobState
from ml_core.domain.job_spec import TrainJobSpec
from ml_core.domain.principal import Principal
from ml_core.exceptions import (
    IdempotencyConflictError,
    InvalidRequestError,
    JobNotFoundError,
    PermissionDeniedError,
    TrainingError,
)
from ml_core.ids import TenantId
from ml_core.jobs.submission import submit_batch
from ml_core.models.store import platform_store
from ml_core.registry.audit import AuditRepository
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobBatchRepository, JobQueue, JobRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from support.job_queue import empty_queue
from support.registry import new_tenant

LEASE_S = 60.0


@pytest.fixture
def batches(db: DatabaseConnection) -> JobBatchRepository:
    """The batches, and a queue in which nothing waits."""
    empty_queue(db)
    return JobBatchRepository(db)


@pytest.fixture
def dataset() -> str:
    """The name of a dataset that no other test has."""
    return f"d{uuid.uuid4().hex[:12]}"


@pytest.fixture
def tenants(db: DatabaseConnection, dataset: str) -> list[TenantId]:
    """Four tenants that have it."""
    made = [new_tenant(db) for _ in range(4)]
    for tenant in made:
        DatasetRepository(db, tenant).create(dataset, {"x": [1, 2], "y": ["a", "b"]})
    return made


def spec(dataset: str, **training: object) -> TrainJobSpec:
    return TrainJobSpec.from_json({"model_id": "m", "training": {"dataset": dataset, "target": "y", **training}})


def claimed(queue: JobQueue) -> Attempt:
    attempt = queue.claim("d1", 10, LEASE_S)
    assert attempt is not None
    return attempt


def job_of(db: DatabaseConnection, tenant: TenantId):
    (job,) = JobRepository(db, tenant).list().items
    return job


def test_each_tenant_with_the_dataset_gets_a_job(db, batches, dataset, tenants) -> None:
    """On its newest version that is not archived, in its own audit; others are counted, or listed with the quota."""
    older, archived, full, third = tenants
    DatasetRepository(db, older).create(dataset, {"x": [3], "y": ["a"]})
    DatasetRepository(db, archived).create(dataset, {"x": [3], "y": ["a"]})
    DatasetRepository(db, archived).archive(dataset, 2)
    DatasetRepository(db, third).create(f"{dataset}_2", {"x": [1]})
    deleted, without = new_tenant(db), new_tenant(db)
    DatasetRepository(db, deleted).create(dataset, {"x": [1]})
    TenantDeletion(db, platform_store(db.settings)).delete(deleted)
    JobQueue(db).set_quota(full, JobQuota(max_queued=0))
    keys = PlatformKeyRepository(db)
    operator = keys.authenticate(str(keys.create("test", [Scope.ADMIN])))
    batch = JobBatchRepository(db.acting_as(operator, "request")).submit(spec(dataset), cpus=2, priority=7)
    assert batch.states == {JobState.QUEUED: 3}
    assert batch.without_dataset >= 1
    assert [each.tenant_id for each in batch.refused] == [full]
    assert "max_queued is 0" in batch.refused[0].reason
    made = {tenant: job_of(db, tenant) for tenant in (older, archived, third)}
    pins = {tenant: job.spec["training"]["dataset"] for tenant, job in made.items()}
    assert pins == {older: f"{dataset}@2", archived: f"{dataset}@1", third: f"{dataset}@1"}
    for tenant, job in made.items():
        assert (job.cpus, job.priority, job.batch_id, job.submitted_by) == (2, 7, batch.batch_id, operator.name)
        event = AuditRepository(db, tenant).list(limit=1, descending=True).items[0]
        assert (event.action, event.principal, event.request_id) == ("job.submitted", operator.name, "request")
        assert event.details["batch_id"] == batch.batch_id
    for tenant in (full, deleted, without):
        assert JobRepository(db, tenant).list().items == []
    principal = claimed(JobQueue(db)).principal
    assert (principal.name, principal.is_operator, principal.tenant_id in made) == (operator.name, False, True)


def test_a_number_means_that_version_and_all_datasets_are_needed(db, batches, dataset, tenants) -> None:
    """Of the validation dataset as well."""
    first, second, *_ = tenants
    for tenant in (first, second):
        DatasetRepository(db, tenant).create(dataset, {"x": [3], "y": ["a"]})
    assert batches.submit(spec(f"{dataset}@2")).jobs == 2
    assert batches.submit(spec(f"{dataset}@3")).jobs == 0
    DatasetRepository(db, first).create(f"{dataset}_v", {"x": [3], "y": ["a"]})
    batch = batches.submit(spec(dataset, validation_dataset=f"{dataset}_v"))
    assert batch.jobs == 1
    training = job_of_batch(db, first, batch.batch_id).spec["training"]
    assert (training["dataset"], training["validation_dataset"]) == (f"{dataset}@2", f"{dataset}_v@1")


def job_of_batch(db: DatabaseConnection, tenant: TenantId, batch_id: str):
    (job,) = [job for job in JobRepository(db, tenant).list().items if job.batch_id == batch_id]
    return job


def test_the_same_key_is_the_same_batch(db, batches, dataset, tenants) -> None:
    """Also for those who submit it at the same time; with another spec it is a conflict, for another submitter not."""
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: batches.submit(spec(dataset), idempotency_key=dataset).batch_id, range(8)))
    assert len(made) == 1
    assert len(JobRepository(db, tenants[0]).list().items) == 1
    with pytest.raises(IdempotencyConflictError, match="another specification"):
        batches.submit(spec(f"{dataset}@1"), idempotency_key=dataset)
    other = db.acting_as(Principal("another", frozenset({Scope.ADMIN})))
    assert JobBatchRepository(other).submit(spec(dataset), idempotency_key=dataset).batch_id not in made
    assert made <= {batch.batch_id for batch in batches.list().items}


def test_its_state_is_that_of_its_jobs(db, batches, dataset, tenants) -> None:
    """Counts, percent, and the reasons of failures, of which those count as one that differ in names and numbers."""
    batch_id = batches.submit(spec(dataset)).batch_id
    queue = JobQueue(db)
    attempts = [claimed(queue) for _ in tenants]
    for attempt, message in zip(attempts, ["'a' has 1 row.", "'b' has 2 rows.", "'c' has 30 rows."], strict=False):
        own = JobRepository(db, attempt.tenant_id)
        own.begin(attempt.job_id, attempt.run_id, LEASE_S)
        own.fail(attempt.job_id, attempt.run_id, {"message": message.replace("row.", "rows.")})
    batch = batches.get(batch_id)
    assert batch.states == {JobState.FAILED: 3, JobState.STARTING: 1}
    assert (batch.percent, batch.is_final) == (75.0, False)
    assert batch.rate_per_s > 0
    assert batch.eta_s > 0
    (failures,) = batch.failures
    assert (failures.reason, failures.count) == ("'a' has 1 rows.", 3)
    assert set(failures.tenants) == {attempt.tenant_id for attempt in attempts[:3]}
    last = attempts[3]
    JobRepository(db, last.tenant_id).succeed(last.job_id, last.run_id, {})
    done = batches.get(batch_id)
    assert (done.percent, done.is_final, done.eta_s) == (100.0, True, None)
    assert done.elapsed_s >= 0
    assert batches.list(limit=1).items[0].states == done.states


def test_cancel_and_retry(db, batches, dataset, tenants) -> None:
    """As of single jobs: what waits ends at once, what runs is stopped; a quota refuses a tenant and no other."""
    batch_id = batches.submit(spec(dataset)).batch_id
    attempt = claimed(JobQueue(db))
    own = JobRepository(db, attempt.tenant_id)
    own.begin(attempt.job_id, attempt.run_id, LEASE_S)
    assert batches.cancel(batch_id, "enough").states == {JobState.CANCELLED: 3, JobState.CANCELLING: 1}
    others = [tenant for tenant in tenants if tenant != attempt.tenant_id]
    assert own.get(attempt.job_id).finished_at is None
    assert all(job_of(db, tenant).finished_at is not None for tenant in others)
    event = AuditRepository(db, others[0]).list(limit=1, descending=True).items[0]
    assert (event.action, event.details["reason"]) == ("job.cancelled", "enough")
    own.lose(attempt.job_id, attempt.run_id, "stopped")
    JobQueue(db).set_quota(others[0], JobQuota(max_running=0))
    retried = batches.retry(batch_id)
    assert retried.states == {JobState.QUEUED: 3, JobState.CANCELLED: 1}
    assert [each.tenant_id for each in retried.refused] == [others[0]]
    job = own.get(attempt.job_id)
    assert (job.state, job.attempt, job.finished_at, job.error) == (JobState.QUEUED, 0, None, None)
    assert AuditRepository(db, others[1]).list(limit=1, descending=True).items[0].action == "job.retried"


def test_a_process_goes_on_only_where_the_turn_is_its_batchs(db, batches, dataset, tenants) -> None:
    """Not past another's turn; and what is no part of a batch is followed by nothing."""
    queue = JobQueue(db)
    other = JobRepository(db, new_tenant(db)).submit("train", {}, reserved_s=3_600)
    batch_id = batches.submit(spec(dataset)).batch_id
    first = claimed(queue)
    second = queue.claim_following(first, LEASE_S)
    assert (second.batch_id, second.process, second.dispatcher) == (batch_id, first.run_id, "d1")
    assert second.tenant_id != first.tenant_id
    assert {(held.run_id, held.process) for held in queue.held("d1")} == {
        (first.run_id, first.run_id),
        (second.run_id, first.run_id),
    }
    late = JobRepository(db, new_tenant(db)).submit("train", {})
    third = queue.claim_following(second, LEASE_S)
    assert third.batch_id == batch_id, "it was there before"
    with db.platform() as connection:
        connection.execute(jobs.update().where(jobs.c.job_id == other.job_id).values(not_before=sa.func.now()))
    assert queue.claim_following(third, LEASE_S) is None, "it is the turn of another job"
    assert claimed(queue).job_id == other.job_id
    assert queue.claim_following(third, LEASE_S).batch_id == batch_id
    rest = claimed(queue)
    assert rest.job_id == late.job_id
    assert queue.claim_following(rest, LEASE_S) is None


def test_batches_over_the_same_tenants_do_not_lock_each_other_out(db, batches, dataset) -> None:
    """Whatever is done to two of them at the same time, in whatever order their rows are."""
    for _ in range(40):
        DatasetRepository(db, new_tenant(db)).create(dataset, {"x": [1, 2], "y": ["a", "b"]})
    both = [batches.submit(spec(dataset)).batch_id for _ in range(2)]
    for batch_id in both:  # the rows of a batch are found by where they are
        with db.platform() as connection:
            found = connection.scalars(sa.select(jobs.c.job_id).where(jobs.c.batch_id == batch_id)).all()
            for job_id in random.Random(batch_id).sample(found, len(found)):
                connection.execute(jobs.update().where(jobs.c.job_id == job_id).values(not_before=sa.func.now()))

    def toggle(batch_id: str) -> None:
        for _ in range(6):
            batches.cancel(batch_id)
            batches.retry(batch_id)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(toggle, both))
    assert [batches.get(batch_id).states for batch_id in both] == [{JobState.QUEUED: 40}] * 2


def test_a_job_with_more_cores_than_the_process_has_is_left(db, batches, dataset, tenants) -> None:
    """As the process of one core can't give two."""
    batches.submit(spec(dataset))
    queue = JobQueue(db)
    first = claimed(queue)
    narrow = dataclasses.replace(first, cpus=0.5)
    assert queue.claim_following(narrow, LEASE_S) is None
    assert queue.claim_following(first, LEASE_S) is not None


def test_what_no_tenant_could_train_is_refused_at_once(db, batches, dataset, tenants) -> None:
    """Nothing is submitted."""
    for wrong, error, message in (
        (spec(dataset, model_type="classification", hyperparameters={"algorithm": "logistic"}), TrainingError, "logi"),
        (TrainJobSpec.from_json({**spec(dataset).to_json(), "promote_to": "nowhere"}), InvalidRequestError, "nowhere"),
    ):
        with pytest.raises(error, match=message):
            submit_batch(db, wrong)
    with pytest.raises(InvalidRequestError, match="cpus is 0"):
        submit_batch(db, spec(dataset), cpus=0)
    with pytest.raises(InvalidRequestError, match="1 to 200 characters"):
        submit_batch(db, spec(dataset), idempotency_key="")
    assert JobRepository(db, tenants[0]).list().items == []
    for call in (batches.get, batches.cancel, batches.retry):
        with pytest.raises(JobNotFoundError, match="There is no batch 'batch_0'"):
            call("batch_0")


def test_a_tenant_has_no_part_in_batches(db, batches, dataset, tenants) -> None:
    """It submits and sees none, and adds no job to one, not with raw SQL; nor does a platform's key that may read."""
    batch_id = batches.submit(spec(dataset)).batch_id
    admin = Principal("key:1", frozenset({Scope.ADMIN}), tenant_id=tenants[0])
    reader = Principal("platform-key:1", frozenset({Scope.READ}))
    for principal in (admin, reader):
        asking = JobBatchRepository(db.acting_as(principal))
        for call in (lambda of=asking: of.submit(spec(dataset)), lambda of=asking: of.cancel(batch_id)):
            with pytest.raises(PermissionDeniedError):
                call()
    with pytest.raises(PermissionDeniedError):
        JobBatchRepository(db.acting_as(admin)).get(batch_id)
    with db.tenant(tenants[0]) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.job_batches")) == 0
        counted = sa.text("SELECT count(*) FROM mlcore.jobs WHERE batch_id = :batch")
        assert connection.scalar(counted, {"batch": batch_id}) == 1, "its own"
    row = f"('{tenants[0]}', 'job_{uuid.uuid4().hex[:16]}', 'train', 1, '{{train}}', '', '', 3, '{batch_id}')"
    columns = "tenant_id, job_id, kind, cpus, scopes, submitted_by, request_id, max_attempts, batch_id"
    for statement in (
        f"INSERT INTO mlcore.jobs ({columns}) VALUES {row}",
        f"UPDATE mlcore.jobs SET batch_id = '{batch_id}'",
        "INSERT INTO mlcore.job_batches (batch_id, kind, submitted_by, without_dataset, refused)"
        " VALUES ('batch_0123456789abcdef', 'train', 'me', 0, '[]')",
    ):
        refused = r"permission denied|row-level security"
        with pytest.raises(ProgrammingError, match=refused), db.tenant(tenants[0]) as connection:
            connection.execute(sa.text(statement))


def test_the_platform_adds_what_a_policy_lets_it_add(db, batches, tenant_id) -> None:
    """Its transactions sign rows of any tenant; still they change none of a tenant, and read no versions."""
    with db.platform() as connection:
        for statement in (
            f"INSERT INTO mlcore.models (tenant_id, model_id, model_type) VALUES ('{tenant_id}', 'm', 'x')",
            "UPDATE mlcore.tenants SET self_test_rows = 'synthetic'",
        ):
            with pytest.raises(ProgrammingError, match="row-level security"), connection.begin_nested():
                connection.execute(sa.text(statement))
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.versions")) == 0
