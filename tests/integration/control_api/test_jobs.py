"""Jobs over HTTP: submitted, waited for, cancelled and retried, with quotas."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from ml_core.api.schemas.jobs import JobQuota
from ml_core.client import MLClient
from ml_core.domain.job import JobState
from ml_core.exceptions import (
    InvalidRequestError,
    JobNotFoundError,
    JobStateError,
    PermissionDeniedError,
    QuotaExceededError,
    TrainingError,
)
from ml_core.registry.datasets import DatasetRepository
from support.job_queue import running_queue
from support.tables import measures

TRAINING = {"target": "outcome", "hyperparameters": {"algorithm": "logistic_regression"}}


@pytest.fixture
def dispatched(db) -> Iterator[None]:
    """A dispatcher runs."""
    with running_queue(db):
        yield


@pytest.fixture
def dataset(db, tenant_id) -> str:
    """A dataset of the tenant."""
    return DatasetRepository(db, tenant_id).create("m", measures(300)).reference


def test_a_job_is_waited_for(client: MLClient, dataset: str, dispatched: None) -> None:
    """Its spec names the number that the dataset had, its result the version."""
    job = client.jobs.train("m", "m", training=TRAINING, priority=3)
    assert (job.state, job.priority, job.spec["training"]["dataset"]) == (JobState.QUEUED, 3, dataset)
    for _ in range(5):
        job = client.jobs.get(job.job_id, wait_s=20)
        if job.state is JobState.SUCCEEDED:
            break
    assert job.result == {"model_id": "m", "version": "1", "run_id": job.run_id}
    assert client.versions.get("m", "1").lineage.run_id == job.run_id
    assert [each.job_id for each in client.jobs.list(state="succeeded")] == [job.job_id]
    actions = [event.action for event in client.audit.list() if event.action.startswith("job.")]
    assert sorted(actions) == ["job.submitted", "job.succeeded"]


def test_what_can_be_known_beforehand_is_refused_at_once(client: MLClient, dataset: str) -> None:
    """With the class, the field and the nearest name; nothing is queued."""
    with pytest.raises(InvalidRequestError, match="gone"):
        client.jobs.train("m", "gone", training=TRAINING)
    with pytest.raises(TrainingError, match="Did you mean outcome"):
        client.jobs.train("m", "m", training={**TRAINING, "target": "outcom"})
    wrong = {"target": "outcome", "model_type": "classification", "hyperparameters": {"algorithm": "logistic"}}
    with pytest.raises(TrainingError, match="logistic_regression"):
        client.jobs.train("m", "m", training=wrong)
    with pytest.raises(InvalidRequestError, match="nowhere"):
        client.jobs.train("m", "m", training=TRAINING, promote_to="nowhere")
    assert list(client.jobs.list()) == []


def test_a_plan_names_the_strategy_and_its_alternatives(client: MLClient, dataset: str) -> None:
    """Nothing is queued; what is missing is said, and what could not be submitted is refused in the same way."""
    training = {"target": "outcome", "hyperparameters": {"n_estimators": 50}}
    alone = client.jobs.plan("m", "m", training=training)
    assert (alone.strategy, alone.missing) == ("in_process", [])
    plan = client.jobs.plan("m", "m", training=training, cpus=4)
    assert (plan.strategy, plan.options[0].strategy) == ("forest_by_trees", "forest_by_trees")
    assert {each.strategy: each.seconds is None for each in plan.options}["exact_merge"]
    assert ["3 are missing" in sentence for sentence in plan.missing] == [True]
    with pytest.raises(TrainingError, match="Did you mean outcome"):
        client.jobs.plan("m", "m", training={"target": "outcom"})
    with pytest.raises(InvalidRequestError, match="cpus is 0"):
        client.jobs.plan("m", "m", training=training, cpus=0)
    assert list(client.jobs.list()) == []


def test_cancel_and_retry(client: MLClient, dataset: str) -> None:
    """A job that waits is cancelled at once; what has not ended is not retried."""
    job = client.jobs.train("m", "m", training=TRAINING)
    with pytest.raises(JobStateError, match="queued and can't retry"):
        client.jobs.retry(job.job_id)
    assert client.jobs.cancel(job.job_id, "enough").state is JobState.CANCELLED
    with pytest.raises(JobStateError):
        client.jobs.cancel(job.job_id)
    assert client.jobs.retry(job.job_id).state is JobState.QUEUED
    client.jobs.cancel(job.job_id)
    with pytest.raises(JobNotFoundError, match="no job 'job_0'"):
        client.jobs.get("job_0")


def test_the_platform_sets_quotas(client: MLClient, control: httpx.Client, tenant_id, dataset: str) -> None:
    """The tenant sees its own, and can't set it."""
    with pytest.raises(PermissionDeniedError, match="own tenants only"):
        client.jobs.set_quota(JobQuota(max_queued=5))
    answer = control.put(f"/api/v1/tenants/{tenant_id}/job-quota", json={"max_queued": 1})
    assert answer.is_success, answer.text
    job = client.jobs.train("m", "m", training=TRAINING)
    with pytest.raises(QuotaExceededError, match="1 jobs wait") as full:
        client.jobs.train("m", "m", training=TRAINING)
    assert full.value.quota == "max_queued"
    share = client.jobs.quota()
    assert (share.quota.max_queued, share.usage.queued) == (1, 1)
    client.jobs.cancel(job.job_id)


def test_a_repeated_submission_is_one_job(client: MLClient, address: str, admin_key: str, tenant_id, dataset) -> None:
    """By its Idempotency-Key."""
    headers = {"authorization": f"Bearer {admin_key}", "idempotency-key": "once"}
    body = {"model_id": "m", "training": {"dataset": "m", **TRAINING}}
    url = f"{address}/api/v1/tenants/{tenant_id}/jobs"
    answers = [httpx.post(url, json=body, headers=headers, trust_env=False).json()["job_id"] for _ in range(2)]
    assert answers == [each.job_id for each in client.jobs.list()] * 2
    client.jobs.cancel(answers[0])
