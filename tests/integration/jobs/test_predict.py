"""Jobs that predict a dataset: pinned and checked at submission, one dataset for each job, whatever is killed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import jobs
from ml_core.domain.api_key import Scope
from ml_core.domain.job import Attempt, Job, JobState
from ml_core.domain.run import RunStatus
from ml_core.exceptions import (
    DatasetNotFoundError,
    InvalidNameError,
    InvalidRequestError,
    JobStateError,
    ModelNotFoundError,
    PermissionDeniedError,
    RunStateError,
    SignatureMismatchError,
)
from ml_core.ids import TenantId
from ml_core.inference.batch import BatchPredictor
from ml_core.jobs import execution
from ml_core.jobs.work import Progress
from ml_core.registry.datasets import DatasetRepository, intake
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.runs import RunRepository
from ml_core.system import MLSystem
from support.job_queue import empty_queue
from support.tables import split_target, tickets


class Died(BaseException):
    """The end of the process."""


@pytest.fixture
def system(db: DatabaseConnection, tenant_id: TenantId) -> MLSystem:
    """A tenant with two versions of a model, of which the older is in production, and a dataset."""
    empty_queue(db)
    system = MLSystem(db, tenant_id=tenant_id)
    for rows in (120, 150):
        data = split_target(tickets(rows), "category")
        system.train_model("tickets", None, data, hyperparameters={"algorithm": "logistic_regression"})
    system.promote("tickets", "1")
    system.datasets.create("inbox", tickets(60, seed=5).assign(key=range(60)))
    return system


def claimed(db: DatabaseConnection) -> Attempt:
    """The next attempt, without its pause."""
    with db.platform() as connection:
        connection.execute(jobs.update().where(jobs.c.state == "queued").values(not_before=sa.func.now()))
    attempt = JobQueue(db).claim("d1", 2, 60)
    assert attempt is not None
    return attempt


def done(db: DatabaseConnection, system: MLSystem, job: Job) -> Job:
    """A job after an attempt in this process."""
    execution.execute(db, claimed(db))
    return system.jobs.get(job.job_id)


@pytest.mark.parametrize(
    ("kind", "cpus", "held"), [("train", 4, 0), ("train", 1.5, 1.5), ("predict", 1, 1), ("predict", 2, 0)]
)
def test_the_cores_of_tasks_are_not_held_twice(db, tenant_id, kind: str, cpus: float, held: float) -> None:
    """A job with several cores starts tasks or actors that hold them; with one it works by itself."""
    empty_queue(db)
    JobRepository(db, tenant_id).submit(kind, {}, cpus=cpus)
    attempt = JobQueue(db).claim("d1", 4, 60)
    assert attempt is not None
    assert attempt.process_cpus == held


def left_behind(job: Job) -> list[Path]:
    """The temporary folders of a job."""
    return list(Path(tempfile.gettempdir()).glob(f"mlcore-dataset-{job.job_id}*"))


def test_a_dataset_is_predicted_into_another(db, system: MLSystem, monkeypatch) -> None:
    """By the version of the submission; the result names its rows, version and run, and the run its speed."""
    job = system.jobs.predict("tickets", "inbox", "answers", proba=True, keep=["key"])
    said: list[tuple] = []
    monkeypatch.setattr(Progress, "advance", lambda self, *what: said.append(what))
    pinned = {"dataset": "inbox@1", "version": "1", "environment": None, "output": "answers"}
    assert {name: job.spec[name] for name in pinned} == pinned
    system.promote("tickets", "2")
    system.datasets.create("inbox", tickets(5))
    job = done(db, system, job)
    assert (job.state, job.result) == (JobState.SUCCEEDED, {"dataset": "answers@1", "run_id": job.run_id}), job.error
    made = system.datasets.get("answers@1")
    origin = {"kind": "prediction", "dataset": "inbox@1", "model_id": "tickets", "version": "1", "run_id": job.run_id}
    assert made.source == origin
    rows = system.datasets.read("inbox@1")
    found = system.datasets.read("answers")
    assert found["key"].tolist() == list(range(60))
    assert found["prediction"].tolist() == list(system.predict("tickets", rows, version="1"))
    expected = pd.DataFrame(system.predict_proba("tickets", rows, version="1")).add_prefix("probability_")
    pd.testing.assert_frame_equal(found[expected.columns], expected)
    run = system.runs.get(job.run_id)
    assert (run.kind, run.status, run.metrics["rows"].last_value) == ("predict", RunStatus.FINISHED, 60)
    assert run.metrics["rows_per_s"].last_value > 0
    assert run.tags == {"predicted_by": "the job's own process"}
    assert said[-1][:3] == (60, 60, "rows")
    assert said[-1][3]["rows_per_s"] > 0


@pytest.mark.parametrize(
    ("options", "version"), [({}, "1"), ({"environment": "staging"}, "2"), ({"version": "2"}, "2")]
)
def test_the_version_that_would_answer_predicts(system: MLSystem, options: dict, version: str) -> None:
    """Production's, that of an environment, or the one that is named; the newest where production serves nothing."""
    system.promote("tickets", "2", "staging")
    assert system.jobs.predict("tickets", "inbox", "out", **options).spec["version"] == version
    system.withdraw("tickets")
    assert system.jobs.predict("tickets", "inbox", "out", **options).spec["version"] == "2"


def test_what_can_be_known_is_refused_at_submission(db, system: MLSystem, other_tenant_id) -> None:
    """Names, rights and columns; what another tenant has is not there."""
    predict = system.jobs.predict
    refused: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (DatasetNotFoundError, "Did you mean inbox", lambda: predict("tickets", "inbix", "out")),
        (DatasetNotFoundError, "no version 9", lambda: predict("tickets", "inbox@9", "out")),
        (ModelNotFoundError, "ticket", lambda: predict("ticket", "inbox", "out")),
        (ModelNotFoundError, "9", lambda: predict("tickets", "inbox", "out", version="9")),
        (ModelNotFoundError, "staging", lambda: predict("tickets", "inbox", "out", environment="staging")),
        (
            InvalidRequestError,
            "Give one of them",
            lambda: predict("tickets", "inbox", "o", version="1", environment="x"),
        ),
        (InvalidRequestError, "Use one of fail, null", lambda: predict("tickets", "inbox", "out", on_error="skip")),
        (InvalidRequestError, "keep is one text", lambda: predict("tickets", "inbox", "out", keep="key")),
        (SignatureMismatchError, "inbox@2 has no column", lambda: predict("tickets", "inbox", "out")),
    ]
    system.datasets.create("inbox", tickets(10)[["subject"]])
    for kind, words, call in refused:
        with pytest.raises(kind, match=words):
            call()
    with pytest.raises(InvalidNameError, match="dataset name"):
        predict("tickets", "inbox@1", "No Name")
    keys = KeyRepository(db, system.tenant_id)
    reader = keys.authenticate(str(keys.create("test", [Scope.READ, Scope.PREDICT])))
    with pytest.raises(PermissionDeniedError, match="train"):
        MLSystem(db.acting_as(reader), tenant_id=system.tenant_id).jobs.predict("tickets", "inbox@1", "out")
    other = MLSystem(db, tenant_id=other_tenant_id)
    other.datasets.create("mine", tickets(10))
    with pytest.raises(ModelNotFoundError):
        other.jobs.predict("tickets", "mine", "out")
    with pytest.raises(DatasetNotFoundError):
        predict("tickets", "mine", "out")
    assert system.jobs.list().items == other.jobs.list().items == []


def test_a_row_that_does_not_fit_fails_the_job_or_has_no_prediction(db, system: MLSystem) -> None:
    """As the submission says; a failed job leaves no dataset."""
    frame = tickets(50)
    frame.loc[41, "opened"] = "soon"
    system.datasets.create("late", frame)
    failed = done(db, system, system.jobs.predict("tickets", "late", "strict"))
    assert (failed.state, failed.error["code"]) == (JobState.FAILED, "signature_mismatch")
    assert failed.error["message"].startswith("Row 41 of late@1 does not fit: column 'opened' is 'soon'")
    assert "on_error null" in failed.error["message"]
    assert "does not fit" in str(system.runs.get(failed.run_id).error)
    with pytest.raises(DatasetNotFoundError):
        system.datasets.get("strict")
    assert left_behind(failed) == []
    job = done(db, system, system.jobs.predict("tickets", "late", "loose", on_error="null"))
    found = system.datasets.read("loose")
    assert (job.state, found["prediction"].isna().sum()) == (JobState.SUCCEEDED, 1)
    assert found["error"][41].startswith("column 'opened' is 'soon'")
    assert system.runs.get(job.run_id).metrics["rows_with_error"].last_value == 1


def test_equal_predictions_of_two_jobs_are_two_versions(db, system: MLSystem) -> None:
    """Each names what it was made from."""
    jobs_done = [done(db, system, system.jobs.predict("tickets", "inbox", "out")) for _ in range(2)]
    assert [job.result["dataset"] for job in jobs_done] == ["out@1", "out@2"]
    first, second = (system.datasets.get("out", number) for number in (1, 2))
    assert first.digest == second.digest
    assert [each.source["run_id"] for each in (first, second)] == [job.run_id for job in jobs_done]


@pytest.mark.parametrize("where", ["in the middle", "before the row", "after the row"])
def test_an_attempt_that_dies_is_followed_by_one_dataset(db, system: MLSystem, monkeypatch, where: str) -> None:
    """What was registered is the result; else the next attempt predicts again, and clears what was left."""
    job = system.jobs.predict("tickets", "inbox", "out")
    original = intake.register

    def die(*args, **options):
        if where == "after the row":
            original(*args, **options)
        raise Died

    first, calls = claimed(db), []
    with monkeypatch.context() as patch:
        if where == "in the middle":
            patch.setattr(BatchPredictor, "predict", die)
        else:
            patch.setattr(intake, "register", die)
        # A process that is killed cleans nothing up.
        patch.setattr(tempfile.TemporaryDirectory, "cleanup", lambda folder: folder._finalizer.detach())
        with pytest.raises(Died):
            execution.execute(db, first)
    assert len(left_behind(job)) == 1
    lost = system.jobs.lose(job.job_id, first.run_id, "died")
    predict = BatchPredictor.predict
    monkeypatch.setattr(BatchPredictor, "predict", lambda self, group: calls.append(group) or predict(self, group))
    if where == "after the row":
        assert (lost.state, lost.result) == (JobState.SUCCEEDED, {"dataset": "out@1", "run_id": first.run_id})
        assert calls == []
        for folder in left_behind(job):
            (folder / "table.parquet").unlink()
            folder.rmdir()
    else:
        assert lost.state is JobState.QUEUED
        again = done(db, system, job)
        assert (again.state, again.result["dataset"], calls) == (JobState.SUCCEEDED, "out@1", [0])
        assert left_behind(job) == []
    assert [each.number for each in system.datasets.versions("out").items] == [1]


def test_a_retry_after_the_registration_does_not_predict_again(db, system: MLSystem, monkeypatch) -> None:
    """The process failed between the dataset and the end of the run."""
    job = system.jobs.predict("tickets", "inbox", "out")

    def fail(*_args, **_options):
        raise RuntimeError("no space on the whiteboard")

    with monkeypatch.context() as patch:
        patch.setattr(RunRepository, "finish", fail)
        failed = done(db, system, job)
    assert (failed.state, failed.result["dataset"]) == (JobState.FAILED, "out@1")
    system.jobs.retry(job.job_id)
    monkeypatch.setattr(BatchPredictor, "predict", fail)
    again = done(db, system, job)
    assert (again.state, again.result) == (JobState.SUCCEEDED, {"dataset": "out@1", "run_id": failed.run_id})


def test_an_attempt_that_was_given_up_registers_nothing(db, system: MLSystem, monkeypatch) -> None:
    """Though its process lives; the next attempt makes the first version."""
    job = system.jobs.predict("tickets", "inbox", "out")
    first, original = claimed(db), intake.register

    def late(*args, **options):
        system.jobs.lose(job.job_id, first.run_id, "given up")
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(intake, "register", late)
        with pytest.raises((RunStateError, JobStateError)):
            execution.execute(db, first, stop=lambda: None)
    with pytest.raises(DatasetNotFoundError):
        system.datasets.get("out")
    assert done(db, system, job).result["dataset"] == "out@1"
    assert DatasetRepository(db, system.tenant_id).get("out").number == 1
