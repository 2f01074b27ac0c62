"""Jobs over HTTP: submitted, waited for, cancelled and retried, with quotas."""

from __future__ import annotations

import httpx
import pytest

from ml_core.api.schemas.jobs import JobQuota
from ml_core.cli.train import trained
from ml_core.client import MLClient
from ml_core.domain.job import JobKind, JobState
from ml_core.domain.job_spec import OnError
from ml_core.domain.train_spec import TrainSpec
from ml_core.exceptions import (
    InvalidRequestError,
    JobNotFoundError,
    JobStateError,
    PermissionDeniedError,
    QuotaExceededError,
    SignatureMismatchError,
    TrainingError,
)
from ml_core.jobs import execution
from ml_core.jobs.kinds import train
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.training.trainer import Trainer
from support.job_queue import empty_queue
from support.tables import measures

TRAINING = {"target": "outcome", "hyperparameters": {"algorithm": "logistic_regression"}}


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


def test_a_search_is_queued_with_what_was_asked_for(client: MLClient, dataset: str) -> None:
    """Its spec has the dataset's number, and each dimension in the one form."""
    search = {"algorithm": "random_forest", "space": {"max_depth": "2..9"}, "trials": 5, "sampler": "random"}
    job = client.jobs.tune("m", "m", training={"target": "outcome"}, search=search, cpus=2)
    assert (job.kind, job.cpus, job.spec["training"]["dataset"]) == ("tune", 2, dataset)
    assert job.spec["search"]["space"] == {"max_depth": {"low": 2, "high": 9}}
    assert job.spec["search"]["folds"] == 5
    client.jobs.cancel(job.job_id)


def test_what_is_wrong_with_a_search_is_refused_at_once(client: MLClient, db, tenant_id, dataset: str) -> None:
    """Names, spaces and metrics, and tables that are too small for the folds."""
    few = DatasetRepository(db, tenant_id).create("few", measures(3)).reference
    rare = measures(100).assign(outcome=["yes"] * 97 + ["no"] * 3)
    uneven = DatasetRepository(db, tenant_id).create("uneven", rare).reference
    training = {"target": "outcome", "model_type": "classification"}
    for table, search, said in (
        (dataset, {"algorithm": "random_forst"}, "Did you mean random_forest"),
        (dataset, {"algorithm": "ridge", "space": {"alpha": "-1..1"}}, "The space of 'alpha' holds -1"),
        (dataset, {"metric": "rmse"}, "does not fit classification"),
        (dataset, {"folds": 1}, "from 2 to 20"),
        (few, {}, "There are 3 rows to train on, fewer than 10"),
        (uneven, {}, "The class no has 3 rows, equal ones counted once, fewer than 5 folds"),
    ):
        with pytest.raises((InvalidRequestError, TrainingError)) as refused:
            client.jobs.tune("m", table, training=training, search=search)
        assert said in str(refused.value)
    with pytest.raises(InvalidRequestError, match="Extra inputs"):
        client.jobs.tune("m", dataset, training=training, search={"trails": 3})
    assert list(client.jobs.list()) == []


def test_a_dataset_is_predicted(db, client: MLClient, tenant_id, dataset: str, dispatched: None) -> None:
    """Submitted with the fields of the library; the result is a dataset that names its run."""
    training = {**TRAINING, "target": "outcome", "dataset": dataset}
    Trainer(db, tenant_id).train_spec("m", TrainSpec.from_json(training))
    job = client.jobs.predict("m", "m", "answers", proba=True, keep=["m0"], on_error=OnError.NULL)
    assert (job.kind, job.spec["version"], job.spec["dataset"]) == (JobKind.PREDICT, "1", dataset)
    for _ in range(5):
        job = client.jobs.get(job.job_id, wait_s=20)
        if job.state is JobState.SUCCEEDED:
            break
    assert job.result == {"dataset": "answers@1", "run_id": job.run_id}, job.error
    made = client.datasets.get("answers", 1)
    assert [name for name, _ in made.columns] == ["m0", "prediction", "probability_no", "probability_yes", "error"]
    assert made.source["run_id"] == job.run_id
    with pytest.raises(SignatureMismatchError, match="answers@1 has no column 'm1', which m@1 reads as a number"):
        client.jobs.predict("m", "answers", "again", version="1", keep=["prediction"])


def test_a_kind_that_there_is_not_is_refused(control: httpx.Client, tenant_id) -> None:
    """With those that there are."""
    for body, words in (({"kind": "guess"}, "'train', 'tune', 'predict'"), ({}, "'kind'")):
        answer = control.post(f"/api/v1/tenants/{tenant_id}/jobs", json=body)
        assert (answer.status_code, words in answer.text) == (400, True), answer.text


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
    body = {"kind": "train", "model_id": "m", "training": {"dataset": "m", **TRAINING}}
    url = f"{address}/api/v1/tenants/{tenant_id}/jobs"
    answers = [httpx.post(url, json=body, headers=headers, trust_env=False).json()["job_id"] for _ in range(2)]
    assert answers == [each.job_id for each in client.jobs.list()] * 2
    client.jobs.cancel(answers[0])


def test_the_internal_part_of_an_error_is_the_operators(
    client: MLClient, control: httpx.Client, db, tenant_id, dataset: str, monkeypatch
) -> None:
    """A path of the platform, which an unknown exception named."""

    def fail(_work) -> None:
        raise OSError(28, "No space left on device", "/srv/hidden")

    empty_queue(db)
    monkeypatch.setattr(train, "execute", fail)
    job_id = client.jobs.train("m", "m", training=TRAINING).job_id
    attempt = JobQueue(db).claim("d", 1, 60)
    assert attempt is not None
    execution.execute(db, attempt)
    of_tenant = [client.jobs.get(job_id), *client.jobs.list()]
    assert all(job.error["message"].startswith("The job failed. Report the id") for job in of_tenant)
    assert not any("hidden" in job.model_dump_json() for job in of_tenant)
    assert "/srv/hidden" in control.get(f"/api/v1/tenants/{tenant_id}/jobs/{job_id}").json()["error"]["internal"]


@pytest.mark.parametrize("is_received", [True, False])
def test_an_interrupted_command_cancels_the_job_whose_submission_was_not_answered(
    client: MLClient, db, tenant_id, dataset: str, monkeypatch, capsys, is_received: bool
) -> None:
    """Whether the platform had received it or not: there is one job, and it is cancelled."""
    send, calls = client._connection.send, []

    def interrupt(call):
        calls.append(call)
        if len(calls) > 1:
            return send(call)
        if is_received:
            send(call)
        raise KeyboardInterrupt

    monkeypatch.setattr(client._connection, "send", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained(client, "m", "m", **TRAINING)
    (job,) = JobRepository(db, tenant_id).list().items
    assert job.state is JobState.CANCELLED
    assert f"The job {job.job_id} is cancelled." in capsys.readouterr().err


def test_a_command_that_waits_says_why(client: MLClient, db, tenant_id, dataset: str, monkeypatch) -> None:
    """Nothing takes jobs from the queue here."""
    empty_queue(db)
    said, jobs = [], JobRepository(db, tenant_id)

    def note(text: str, **_options: object) -> None:
        said.append(text)
        jobs.cancel(jobs.list().items[0].job_id)

    monkeypatch.setattr("ml_core.registry.jobs.waiting._AT_ONCE_S", 0.0)
    monkeypatch.setattr("ml_core.cli.jobs._WAIT_S", 0.1)
    monkeypatch.setattr("ml_core.cli.jobs.note", note)
    with pytest.raises(TrainingError, match="was cancelled"):
        trained(client, "m", "m", **TRAINING)
    (text,) = said
    assert "is queued. No job is in progress: the platform's control loop does not run" in text
    assert "`mlcore up`" in text
