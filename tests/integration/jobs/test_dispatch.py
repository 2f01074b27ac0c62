"""Jobs in processes: each ends in one version, whatever is killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from psycopg.types.json import Jsonb

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import jobs
from ml_core.domain.api_key import Scope
from ml_core.domain.job import ENDED, Job, JobState
from ml_core.domain.principal import Principal
from ml_core.domain.run import RunStatus
from ml_core.exceptions import (
    DeadlineExceededError,
    JobStateError,
    ModelNotFoundError,
    PermissionDeniedError,
    PlatformError,
    TrainingError,
)
from ml_core.ids import TenantId
from ml_core.jobs import execution
from ml_core.jobs.dispatcher import Dispatcher
from ml_core.jobs.processes import ProcessRunner
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.system import MLSystem
from support.job_queue import dispatching, empty_queue
from support.registry import superuser
from support.tables import measures
from support.waiting import wait_until

WITHIN_S = 60.0
FAST = {"algorithm": "logistic_regression"}
SLOW = {"algorithm": "random_forest", "n_estimators": 20_000}


@pytest.fixture
def runner(db: DatabaseConnection) -> Iterator[ProcessRunner]:
    """Processes that end with the test."""
    empty_queue(db)
    found = ProcessRunner(db)
    yield found
    found.close()


@pytest.fixture
def another_runner(db: DatabaseConnection) -> Iterator[ProcessRunner]:
    """That of another dispatcher."""
    found = ProcessRunner(db)
    yield found
    found.close()


@pytest.fixture
def dispatcher(db: DatabaseConnection, runner: ProcessRunner) -> Dispatcher:
    """A dispatcher that takes a turn when it is told to."""
    return Dispatcher(db, runner, cpus=2, name="d1")


@pytest.fixture
def own(db: DatabaseConnection, tenant_id: TenantId) -> JobRepository:
    """The jobs of a tenant that has a dataset."""
    DatasetRepository(db, tenant_id).create("m", measures(400))
    return JobRepository(db, tenant_id)


def holder(db: DatabaseConnection, tenant_id: TenantId, *scopes: Scope) -> Principal:
    """Who holds a new key."""
    keys = KeyRepository(db, tenant_id)
    return keys.authenticate(str(keys.create("test", scopes)))


def spec(hyperparameters: dict[str, object] = FAST, **fields: object) -> dict[str, object]:
    """A training on the dataset."""
    training = {"dataset": "m@1", "target": "outcome", "hyperparameters": hyperparameters}
    return {"model_id": "m", "training": training, **fields}


def ended(dispatcher: Dispatcher, own: JobRepository, job: Job) -> Job:
    """A job once it has ended, while the dispatcher takes turns."""

    def look() -> Job | None:
        dispatcher.turn()
        found = own.get(job.job_id)
        return found if found.state in ENDED else None

    return wait_until(look, WITHIN_S)


def done_here(db: DatabaseConnection, own: JobRepository, job: Job) -> Job:
    """A job after its execution in this process."""
    attempt = JobQueue(db).claim("d1", 2, 60)
    assert attempt is not None
    assert attempt.job_id == job.job_id
    execution.execute(db, attempt)
    return own.get(job.job_id)


def running(dispatcher: Dispatcher, own: JobRepository, job: Job) -> Job:
    """A job once its process has reached the fit."""

    def look() -> Job | None:
        dispatcher.turn()
        found = own.get(job.job_id)
        assert found.state not in ENDED, found.error
        return found if found.progress.get("stage") == "fit" else None

    return wait_until(look, WITHIN_S)


def process_of(job: Job) -> int:
    """The process that executes a job."""

    def look() -> int | None:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if str(job.run_id).encode() in (folder / "cmdline").read_bytes():
                    return int(folder.name)
            except OSError:
                continue
        return None

    return wait_until(look, WITHIN_S)


def test_a_job_trains_registers_and_promotes(db, dispatcher, own, tenant_id) -> None:
    """In the submitter's name, with what it may do."""
    submitter = holder(db, tenant_id, Scope.TRAIN, Scope.PROMOTE)
    submitted = JobRepository(db.acting_as(submitter), tenant_id).submit("train", spec(promote_to="staging"))
    job = ended(dispatcher, own, submitted)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1), job.error
    assert job.result == {"model_id": "m", "version": "1", "run_id": job.run_id, "promoted_to": "staging"}
    version = VersionRepository(db, tenant_id).get("m", "1")
    assert (version.created_by, version.lineage.run_id) == (submitter.name, job.run_id)
    assert RunRepository(db, tenant_id).get(job.run_id).status == RunStatus.FINISHED
    assert EnvironmentRepository(db, tenant_id).get("m", "staging").version == "1"


def test_what_is_wrong_with_it_is_its_error(db, runner, own, tenant_id) -> None:
    """At once: it would come again."""
    for wrong, message in (
        (spec({"algorithm": "no_such"}), "no_such"),
        ({**spec(), "training": {"dataset": "gone@1", "target": "x"}}, "gone"),
        ({**spec(), "model": "m"}, "no field 'model'"),
    ):
        job = done_here(db, own, own.submit("train", wrong))
        assert (job.state, job.attempt) == (JobState.FAILED, 1)
        assert message in str(job.error["message"])
    narrow = holder(db, tenant_id, Scope.TRAIN)
    submitted = JobRepository(db.acting_as(narrow), tenant_id).submit("train", spec(promote_to="production"))
    job = done_here(db, own, submitted)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "permission_denied")
    assert job.result == {"model_id": "m", "version": "1", "run_id": job.run_id}, "the version was registered"
    own.retry(job.job_id)
    again = done_here(db, own, job)
    assert (again.state, again.result["version"]) == (JobState.FAILED, "1"), "it is not trained again"


@pytest.mark.parametrize("kind", ["train", "tune"])
def test_a_job_that_may_not_promote_is_refused_before_it_trains(db, own, tenant_id, kind) -> None:
    """As it would be after the training, for the version that it had made."""
    narrow = MLSystem(db.acting_as(holder(db, tenant_id, Scope.TRAIN)), tenant_id=tenant_id).jobs
    submit = getattr(narrow, kind)
    with pytest.raises(PermissionDeniedError, match="lacks the scope 'promote'"):
        submit("m", spec()["training"], promote_to="staging")
    EnvironmentRepository(db, tenant_id).protect("staging")
    wider = MLSystem(db.acting_as(holder(db, tenant_id, Scope.TRAIN, Scope.PROMOTE)), tenant_id=tenant_id).jobs
    with pytest.raises(PermissionDeniedError, match="lacks the scope 'promote:staging'"):
        getattr(wider, kind)("m", spec()["training"], promote_to="staging")
    assert list(own.list().items) == []


def test_the_library_submits_and_waits(db, runner, own, tenant_id) -> None:
    """``MLSystem.jobs``: progress while it waits, the result, and the error of a job as an exception."""
    waits = MLSystem(db, tenant_id=tenant_id).jobs
    job = waits.train("m", spec()["training"], idempotency_key="once")
    assert waits.train("m", spec()["training"], idempotency_key="once").job_id == job.job_id
    with pytest.raises(DeadlineExceededError, match="is queued after 0 s"):
        waits.wait(job.job_id, timeout_s=0)
    states = []
    with dispatching(db, runner):
        done = waits.wait(job.job_id, timeout_s=WITHIN_S, on_progress=lambda each: states.append(each.state))
    assert done.result["version"] == "1"
    assert states[-1] is JobState.SUCCEEDED
    cancelled = waits.cancel(waits.train("m", spec()["training"]).job_id)
    with pytest.raises(TrainingError, match=f"The job {cancelled.job_id} was cancelled. Retry it."):
        waits.wait(cancelled.job_id)
    failed = waits.submit("train", spec({"algorithm": "no_such"}))
    done_here(db, own, failed)
    with pytest.raises(TrainingError, match="no_such"):
        waits.wait(failed.job_id)


@pytest.mark.parametrize("of_platform", [False, True])
def test_a_key_that_was_revoked_meanwhile_trains_nothing(db, runner, own, tenant_id, of_platform: bool) -> None:
    """The job acts with the rights of its submitter, who has none any more."""
    keys = PlatformKeyRepository(db) if of_platform else KeyRepository(db, tenant_id)
    submitter = keys.authenticate(str(keys.create("test", [Scope.ADMIN])))
    submitting = JobRepository(db.acting_as(submitter), tenant_id)
    assert done_here(db, own, submitting.submit("train", spec())).state is JobState.SUCCEEDED
    job = submitting.submit("train", spec())
    keys.revoke(submitter.name.partition(":")[2])
    done = done_here(db, own, job)
    assert (done.state, done.error["code"]) == (JobState.FAILED, "unauthenticated")


@pytest.mark.parametrize("of_platform", [False, True])
def test_a_dispatcher_starts_no_process_for_a_key_that_was_revoked(
    db, dispatcher, runner, own, tenant_id, of_platform: bool
) -> None:
    """Of the platform's keys a job's process sees none."""
    keys = PlatformKeyRepository(db) if of_platform else KeyRepository(db, tenant_id)
    submitter = keys.authenticate(str(keys.create("test", [Scope.ADMIN])))
    job = JobRepository(db.acting_as(submitter), tenant_id).submit("train", spec())
    keys.revoke(submitter.name.partition(":")[2])
    dispatcher.turn()
    done = own.get(job.job_id)
    assert (done.state, done.error["code"]) == (JobState.FAILED, "unauthenticated")
    assert runner.seen() == {}


def test_processes_train_and_predict_with_the_seal_alone(db, dispatcher, own, tenant_id, other_tenant_id) -> None:
    """In the name of a key of the platform; what another tenant has does not exist for them."""
    keys = PlatformKeyRepository(db)
    submitting = JobRepository(db.acting_as(keys.authenticate(str(keys.create("test", [Scope.ADMIN])))), tenant_id)
    trained = ended(dispatcher, own, submitting.submit("train", spec(promote_to="staging")))
    assert trained.result["promoted_to"] == "staging", trained.error
    request = {"model_id": "m", "version": trained.result["version"], "dataset": "m@1", "output": "predicted"}
    predicted = ended(dispatcher, own, submitting.submit("predict", request))
    assert predicted.result["dataset"] == "predicted@1", predicted.error
    DatasetRepository(db, other_tenant_id).create("theirs", measures(400))
    training = {**spec()["training"], "dataset": "theirs@1"}
    refused = ended(dispatcher, own, submitting.submit("train", {"model_id": "m", "training": training}))
    assert "The dataset theirs does not exist" in refused.error["message"]


def test_another_tenants_dataset_is_not_there(db, runner, own, other_tenant_id) -> None:
    """A job sees its tenant's rows only."""
    other = JobRepository(db, other_tenant_id)
    job = done_here(db, other, other.submit("train", spec()))
    assert (job.state, job.error["code"]) == (JobState.FAILED, "invalid_request")
    assert "The dataset m does not exist" in job.error["message"]


def test_a_killed_process_is_followed_by_another(db, dispatcher, own, tenant_id) -> None:
    """Its run fails with the reason, and the job ends in one version."""
    first = running(dispatcher, own, own.submit("train", spec(SLOW)))
    os.kill(process_of(first), signal.SIGKILL)
    queued = wait_until(lambda: dispatcher.turn() or _in(own, first, JobState.QUEUED), WITHIN_S)
    assert queued.not_before > queued.started_at
    run = RunRepository(db, tenant_id).get(first.run_id)
    assert (run.status, "signal 9" in run.error) == (RunStatus.FAILED, True)
    _make_fast(db, first)
    job = ended(dispatcher, own, first)
    assert (job.state, job.attempt, job.result["version"]) == (JobState.SUCCEEDED, 2, "1"), job.error
    assert job.run_id != first.run_id


def test_a_killed_dispatcher_loses_nothing(db, dispatcher, own, another_runner) -> None:
    """The process goes on and reports; the next dispatcher of the name knows its jobs again."""
    job = own.submit("train", spec({"algorithm": "random_forest", "n_estimators": 300}))
    dispatcher.turn()
    following = Dispatcher(db, another_runner, cpus=1, name="d1")
    second = own.submit("train", spec())
    following.turn()
    assert own.get(second.job_id).state is JobState.QUEUED, "its core is in use"
    assert ended(following, own, job).state is JobState.SUCCEEDED


def test_two_dispatchers_of_one_name_stop_no_process_of_each_other(db, dispatcher, own, runner, monkeypatch) -> None:
    """As while Serve replaces the control loop: what the other starts in the middle of a turn goes on."""
    seen = runner.seen
    other = Dispatcher(db, runner, cpus=1, name="d1")

    def other_first() -> dict:
        monkeypatch.setattr(runner, "seen", seen)
        other.turn()
        return seen()

    job = own.submit("train", spec())
    monkeypatch.setattr(runner, "seen", other_first)
    dispatcher.turn()
    done = ended(dispatcher, own, job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1)


def test_a_job_that_was_claimed_and_never_started_is_not_kept(db, dispatcher, own) -> None:
    """Its dispatcher was killed in between; the next of the name does not renew a lease that nobody uses."""
    job = own.submit("train", spec())
    attempt = JobQueue(db).claim("d1", 1, 60)
    assert attempt is not None
    lease = sa.select(jobs.c.lease_until).where(jobs.c.job_id == job.job_id)
    with db.platform() as connection:
        before = connection.scalar(lease)
    dispatcher.turn()
    with db.platform() as connection:
        assert connection.scalar(lease) == before
        lapsed = sa.func.now() - sa.text("interval '1 second'")
        connection.execute(jobs.update().where(jobs.c.job_id == job.job_id).values(lease_until=lapsed))
    dispatcher.turn()
    assert own.get(job.job_id).state is JobState.QUEUED


def test_a_silent_process_is_stopped_before_another_begins(db, dispatcher, own, runner) -> None:
    """It may hang, or have no connection."""
    job = running(dispatcher, own, own.submit("train", spec(SLOW)))
    process = process_of(job)
    os.kill(process, signal.SIGSTOP)
    with db.platform() as connection:
        lapsed = sa.func.now() - sa.text("interval '1 second'")
        connection.execute(jobs.update().where(jobs.c.job_id == job.job_id).values(lease_until=lapsed))
    dispatcher.turn()
    assert not Path(f"/proc/{process}").exists()
    assert own.get(job.job_id).state is JobState.QUEUED


def test_a_cancelled_job_frees_its_core(dispatcher, own) -> None:
    """Within seconds, and makes no version."""
    job = running(dispatcher, own, own.submit("train", spec(SLOW)))
    process = process_of(job)
    assert own.cancel(job.job_id).state is JobState.CANCELLING
    assert ended(dispatcher, own, job).state is JobState.CANCELLED
    wait_until(lambda: dispatcher.turn() or not Path(f"/proc/{process}").exists())
    assert own.share()[1].running == 0


def test_a_turn_that_fails_is_followed_by_another(db, own, runner, monkeypatch) -> None:
    """Whatever it is that fails: the jobs of all tenants wait for the next one."""
    monkeypatch.setattr("ml_core.jobs.dispatcher._LARGEST_PAUSE_S", 0.1)
    failures, seen = iter([ValueError("unforeseen"), PlatformError("Ray is away.", component="ray")]), runner.seen

    def look() -> object:
        if (failure := next(failures, None)) is not None:
            raise failure
        return seen()

    monkeypatch.setattr(runner, "seen", look)
    job = own.submit("train", spec({"algorithm": "no_such"}))
    with dispatching(db, runner):
        wait_until(lambda: own.get(job.job_id).state is JobState.FAILED, WITHIN_S)


def test_a_job_that_is_too_large_says_what_there_is(dispatcher, own) -> None:
    """It does not wait for ever, nor hold up the others."""
    large, small = own.submit("train", spec(), cpus=3, priority=1), own.submit("train", spec())
    job = ended(dispatcher, own, large)
    assert job.error["message"] == "The job needs 3 cores; the platform gives jobs 2."
    assert ended(dispatcher, own, small).state is JobState.SUCCEEDED


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_attempt_that_dies_around_its_registration_makes_one_version(
    db, own, tenant_id, monkeypatch, where: str
) -> None:
    """Before it, the next attempt registers; after it, the version is the result."""
    job = own.submit("train", spec())
    queue = JobQueue(db)

    class Died(BaseException):
        pass

    def die(repository, *args, **options):
        if where == "after":
            original(repository, *args, **options)
        raise Died

    original = VersionRepository.publish
    first = queue.claim("d1", 1, 60)
    with monkeypatch.context() as patch:
        patch.setattr(VersionRepository, "publish", die)
        with pytest.raises(Died):
            execution.execute(db, first)
    own.lose(job.job_id, first.run_id, "died")
    if where == "before":
        with db.platform() as connection:
            connection.execute(jobs.update().where(jobs.c.job_id == job.job_id).values(not_before=sa.func.now()))
        assert execution.execute(db, queue.claim("d1", 1, 60)) is JobState.SUCCEEDED
    assert own.get(job.job_id).state is JobState.SUCCEEDED
    assert [each.version for each in VersionRepository(db, tenant_id).list("m").items] == ["1"]


def test_an_attempt_that_was_given_up_registers_nothing(db, own, tenant_id) -> None:
    """Though its process lives: it is refused with the transaction that would have made the version."""
    job = own.submit("train", spec())
    attempt = JobQueue(db).claim("d1", 1, 60)
    reached, go_on = threading.Event(), threading.Event()

    original = VersionRepository.publish

    def wait(repository, *args, **options):
        reached.set()
        assert go_on.wait(WITHIN_S)
        return original(repository, *args, **options)

    outcome: list[BaseException] = []

    def work() -> None:
        try:
            execution.execute(db, attempt, stop=lambda: None)
        except BaseException as error:  # noqa: BLE001 - looked at below
            outcome.append(error)

    thread = threading.Thread(target=work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VersionRepository, "publish", wait)
        thread.start()
        assert reached.wait(WITHIN_S)
        own.lose(job.job_id, attempt.run_id, "given up")
        go_on.set()
        thread.join(WITHIN_S)
    assert isinstance(outcome[0], JobStateError)
    with pytest.raises(ModelNotFoundError):
        VersionRepository(db, tenant_id).get("m")


def _in(own: JobRepository, job: Job, state: JobState) -> Job | None:
    found = own.get(job.job_id)
    return found if found.state is state else None


def _make_fast(db: DatabaseConnection, job: Job) -> None:
    """The next attempt begins now and takes a moment."""
    change = "UPDATE mlcore.jobs SET not_before = now(), spec = %s WHERE job_id = %s"
    with superuser(db) as session:
        session.execute(change, [Jsonb(spec()), job.job_id])
