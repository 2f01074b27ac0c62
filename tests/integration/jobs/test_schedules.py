"""Schedules: what is due is submitted once, on behalf of whoever created the schedule."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import schedules
from ml_core.domain.api_key import Scope
from ml_core.domain.job import JobQuota, JobState
from ml_core.domain.job_spec import TrainJobSpec
from ml_core.domain.principal import Principal
from ml_core.domain.schedule import ScheduleState
from ml_core.exceptions import (
    InvalidNameError,
    InvalidRequestError,
    PermissionDeniedError,
    QuotaExceededError,
    ScheduleExistsError,
    ScheduleNotFoundError,
    TrainingError,
)
from ml_core.ids import TenantId
from ml_core.jobs.schedules import Schedules, submit_due
from ml_core.registry.audit import AuditRepository
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.schedules import MAX_SCHEDULES, ScheduleRepository, due_schedules
from support.job_queue import empty_queue
from support.tables import measures

HOURLY = "0 * * * *"


@pytest.fixture
def own(db: DatabaseConnection, tenant_id: TenantId) -> Schedules:
    """The schedules of a tenant that has a dataset; those of other tests wait."""
    empty_queue(db)
    DatasetRepository(db, tenant_id).create("d", measures(50))
    return Schedules(db, tenant_id)


def spec(**training: object) -> TrainJobSpec:
    return TrainJobSpec.from_json({"model_id": "m", "training": {"dataset": "d", "target": "outcome", **training}})


def pass_time(db: DatabaseConnection, tenant: TenantId, hours: float = 0) -> datetime:
    """Let the schedules of a tenant be due since so many hours; since when."""
    moment = datetime.now(UTC) - timedelta(hours=hours, seconds=1)
    with db.tenant(tenant) as connection:
        connection.execute(schedules.update().values(next_at=moment))
    return moment


def jobs_of(db: DatabaseConnection, tenant: TenantId) -> list:
    return list(JobRepository(db, tenant).list().items)


def end(db: DatabaseConnection, tenant: TenantId) -> None:
    """End the tenant's jobs."""
    jobs = JobRepository(db, tenant)
    for job in jobs.list(state="queued").items:
        jobs.cancel(job.job_id)


def test_what_is_due_is_submitted_once_with_the_creators_rights(db, own, tenant_id) -> None:
    """On the newest version of the dataset each time; what was missed meanwhile is one time."""
    keys = KeyRepository(db, tenant_id)
    creator = keys.authenticate(str(keys.create("test", [Scope.TRAIN, "promote:production"])))
    made = Schedules(db.acting_as(creator), tenant_id).create(
        "hourly", HOURLY, spec(), options={"cpus": 0.5, "priority": 3}
    )
    assert (made.state, made.created_by, made.last_job_id) == (ScheduleState.ACTIVE, creator.name, None)
    submit_due(db)
    assert jobs_of(db, tenant_id) == [], "it is not due"
    due = pass_time(db, tenant_id, hours=5)
    for _ in range(3):
        submit_due(db)
    (job,) = jobs_of(db, tenant_id)
    assert (job.submitted_by, job.cpus, job.priority) == (creator.name, 0.5, 3)
    assert job.spec["training"]["dataset"] == "d@1"
    assert JobQueue(db).claim("d1", 1, 60).principal == creator
    now = own.get("hourly")
    assert (now.last_job_id, now.last_at, now.note) == (job.job_id, due, None)
    assert datetime.now(UTC) < now.next_at <= datetime.now(UTC) + timedelta(hours=1)
    empty_queue(db)
    DatasetRepository(db, tenant_id).create("d", measures(60, seed=1))
    pass_time(db, tenant_id)
    submit_due(db)
    assert [each.spec["training"]["dataset"] for each in jobs_of(db, tenant_id)] == ["d@2", "d@1"]


def test_a_clock_that_goes_back_repeats_nothing(db, own, tenant_id) -> None:
    """The next time is later than any that was done, so an earlier clock finds nothing due."""
    own.create("hourly", HOURLY, spec())
    pass_time(db, tenant_id)
    submit_due(db)
    end(db, tenant_id)
    with db.tenant(tenant_id) as connection:  # as if the clock had been put back by an hour
        later = schedules.c.next_at + sa.text("interval '1 hour'")
        connection.execute(schedules.update().values(next_at=later))
    submit_due(db)
    assert len(jobs_of(db, tenant_id)) == 1


def test_a_job_that_has_not_ended_is_not_joined_by_another(db, own, tenant_id) -> None:
    """The time is skipped, and the schedule says so; the next time is done."""
    own.create("hourly", HOURLY, spec())
    pass_time(db, tenant_id)
    submit_due(db)
    pass_time(db, tenant_id)
    submit_due(db)
    (job,) = jobs_of(db, tenant_id)
    skipped = own.get("hourly")
    assert skipped.note == f"Skipped, because the job {job.job_id} had not ended; it was queued."
    assert skipped.next_at > datetime.now(UTC)
    end(db, tenant_id)
    pass_time(db, tenant_id)
    submit_due(db)
    assert len(jobs_of(db, tenant_id)) == 2
    assert own.get("hourly").note is None


def test_several_control_loops_submit_one_job(db, own, tenant_id) -> None:
    """As while one is replaced by another."""
    own.create("hourly", HOURLY, spec())
    pass_time(db, tenant_id)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: submit_due(db), range(8)))
    (job,) = jobs_of(db, tenant_id)
    assert own.get("hourly").last_job_id == job.job_id


@pytest.mark.parametrize("is_newer", [False, True])
def test_a_loop_that_was_killed_after_the_submission_repeats_nothing(
    db, own, tenant_id, monkeypatch, is_newer: bool
) -> None:
    """The next loop finds the job by its key, also where the dataset has a newer version by then."""
    own.create("hourly", HOURLY, spec())
    pass_time(db, tenant_id)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ScheduleRepository, "advance", die)
        with pytest.raises(Killed):
            submit_due(db)
    if is_newer:
        DatasetRepository(db, tenant_id).create("d", measures(60, seed=1))
    submit_due(db)
    (job,) = jobs_of(db, tenant_id)
    assert (own.get("hourly").last_job_id, own.get("hourly").note) == (job.job_id, None)


def test_another_loop_that_is_faster_on_an_older_version_wins(db, own, tenant_id, monkeypatch) -> None:
    """The job of the time is one, whatever the slower loop would have submitted."""
    own.create("hourly", HOURLY, spec())
    pass_time(db, tenant_id)
    find = JobRepository.find

    def find_late(repository: JobRepository, key: str):
        monkeypatch.setattr(JobRepository, "find", find)
        found = find(repository, key)
        submit_due(db)
        DatasetRepository(db, tenant_id).create("d", measures(60, seed=1))
        return found

    monkeypatch.setattr(JobRepository, "find", find_late)
    submit_due(db)
    (job,) = jobs_of(db, tenant_id)
    assert own.get("hourly").last_job_id == job.job_id


@pytest.mark.parametrize("of_platform", [False, True])
def test_a_revoked_key_stops_its_schedules(db, own, tenant_id, of_platform: bool) -> None:
    """The schedule says why; those of others go on."""
    keys = PlatformKeyRepository(db) if of_platform else KeyRepository(db, tenant_id)
    creator = keys.authenticate(str(keys.create("test", [Scope.ADMIN])))
    Schedules(db.acting_as(creator), tenant_id).create("hourly", HOURLY, spec())
    own.create("other", HOURLY, spec())
    keys.revoke(creator.name.partition(":")[2])
    pass_time(db, tenant_id)
    submit_due(db)
    stopped = own.get("hourly")
    assert (stopped.state, stopped.next_at) == (ScheduleState.STOPPED, None)
    assert "was revoked" in stopped.note
    assert [job.submitted_by for job in jobs_of(db, tenant_id)] == [own.get("other").created_by]


def test_a_time_that_is_refused_says_why_and_the_next_comes(db, own, tenant_id) -> None:
    """A quota, or a dataset that is gone; other schedules and tenants are not held up."""
    own.create("hourly", HOURLY, spec())
    JobQueue(db).set_quota(tenant_id, JobQuota(max_queued=0))
    pass_time(db, tenant_id)
    submit_due(db)
    refused = own.get("hourly")
    assert "max_queued is 0" in refused.note
    assert (refused.state, refused.last_job_id) == (ScheduleState.ACTIVE, None)
    JobQueue(db).set_quota(tenant_id, JobQuota())
    DatasetRepository(db, tenant_id).archive("d", 1)
    pass_time(db, tenant_id)
    submit_due(db)
    assert "dataset d are archived" in own.get("hourly").note
    DatasetRepository(db, tenant_id).restore("d", 1)
    pass_time(db, tenant_id)
    submit_due(db)
    assert (own.get("hourly").note, len(jobs_of(db, tenant_id))) == (None, 1)


def test_pause_resume_run_now_and_delete(db, own, tenant_id) -> None:
    """A paused schedule is not due, one that is resumed goes on from now; jobs outlive their schedule."""
    own.create("hourly", HOURLY, spec())
    assert own.pause("hourly").state is ScheduleState.PAUSED
    assert own.pause("hourly").next_at is None
    submit_due(db)
    assert own.resume("hourly").next_at > datetime.now(UTC)
    caller = Principal("key:1", frozenset({Scope.TRAIN}), tenant_id=tenant_id)
    job = Schedules(db.acting_as(caller), tenant_id).run_now("hourly")
    assert (job.submitted_by, own.get("hourly").last_job_id) == (caller.name, job.job_id)
    pass_time(db, tenant_id)
    submit_due(db)
    assert "had not ended" in own.get("hourly").note
    own.delete("hourly")
    assert (own.list().items, len(jobs_of(db, tenant_id))) == ([], 1)
    with pytest.raises(ScheduleNotFoundError):
        own.delete("hourly")
    actions = [event.action for event in AuditRepository(db, tenant_id).list().items if "schedule" in event.action]
    assert actions == [f"schedule.{verb}" for verb in ("created", "paused", "paused", "resumed", "deleted")]
    end(db, tenant_id)
    own.create("hourly", HOURLY, spec())
    pass_time(db, tenant_id)
    submit_due(db)
    assert len(jobs_of(db, tenant_id)) == 2, "it is another schedule, though of the same name"


def test_the_jobs_of_a_schedule_are_listed(db, own, tenant_id) -> None:
    """Those of its times and those that were run between them, newest first; a name is no pattern, and no prefix."""
    own.create("hour_y", HOURLY, spec())
    own.create("hourly", HOURLY, spec())
    made = [own.run_now("hour_y").job_id]
    end(db, tenant_id)
    own.run_now("hourly")
    end(db, tenant_id)
    own.delete("hourly")
    pass_time(db, tenant_id)
    submit_due(db)
    made.append(own.get("hour_y").last_job_id)
    jobs = JobRepository(db, tenant_id)
    assert [job.job_id for job in jobs.list(schedule="hour_y").items] == made[::-1]
    assert [job.job_id for job in jobs.list(schedule="hour_y", state="queued").items] == made[1:]
    page = jobs.list(schedule="hour_y", limit=1)
    assert [job.job_id for job in jobs.list(schedule="hour_y", cursor=page.next_cursor).items] == made[:1]
    assert len(jobs.list(schedule="hourly").items) == 1
    assert list(jobs.list(schedule="hour").items) == []
    with pytest.raises(InvalidNameError):
        jobs.list(schedule="%")


def test_what_can_be_known_is_refused_at_once(db, own, tenant_id) -> None:
    """And nothing is created."""
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: own.create("hourly", "61 * * * *", spec()), InvalidRequestError, "bad minute"),
        (lambda: own.create("hourly", HOURLY, spec(), timezone="Mars"), InvalidRequestError, "time zone 'Mars'"),
        (lambda: own.create("hourly", HOURLY, spec(target="outcom")), TrainingError, "Did you mean outcome"),
        (lambda: own.create("hourly", HOURLY, spec(dataset="gone")), InvalidRequestError, "gone"),
        (lambda: own.create("Hour ly", HOURLY, spec()), InvalidNameError, "not a valid schedule name"),
        (lambda: own.create("hourly", HOURLY, spec(), options={"cpus": 0}), InvalidRequestError, "cpus is 0"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()
    assert own.list().items == []
    own.create("hourly", HOURLY, spec())
    with pytest.raises(ScheduleExistsError, match="schedule hourly already"):
        own.create("hourly", HOURLY, spec())
    for call in (own.get, own.pause, own.resume, own.run_now):
        with pytest.raises(ScheduleNotFoundError, match="no schedule 'none'"):
            call("none")
    reader = Schedules(db.acting_as(Principal("key:1", frozenset({Scope.READ}), tenant_id=tenant_id)), tenant_id)
    for denied in (
        lambda: reader.create("mine", HOURLY, spec()),
        lambda: reader.run_now("hourly"),
        lambda: reader.delete("hourly"),
    ):
        with pytest.raises(PermissionDeniedError):
            denied()
    rows = [{"tenant_id": tenant_id, "name": f"s{n}", "cron": "", "timezone": "", "kind": "train"} for n in range(99)]
    with db.tenant(tenant_id) as connection:
        added = [{**row, "scopes": ["train"], "created_by": "x", "state": "paused"} for row in rows]
        connection.execute(schedules.insert().values(added))
    with pytest.raises(QuotaExceededError, match=f"{MAX_SCHEDULES} schedules"):
        own.create("one_more", HOURLY, spec())


def test_a_tenant_sees_its_own_schedules_and_none_are_due_to_it(db, own, tenant_id, other_tenant_id) -> None:
    """Neither by a repository nor as a control loop; and it can't make one act for somebody else."""
    own.create("hourly", HOURLY, spec())
    other = Schedules(db, other_tenant_id)
    assert other.list().items == []
    with pytest.raises(ScheduleNotFoundError):
        other.delete("hourly")
    key = Principal("key:1", frozenset({Scope.ADMIN}), tenant_id=tenant_id)
    with pytest.raises(PermissionDeniedError):
        due_schedules(db.acting_as(key))
    pass_time(db, tenant_id)
    (due,) = [each for each in due_schedules(db) if each.schedule.tenant_id == tenant_id]
    assert (due.principal.tenant_id, due.principal.is_operator) == (tenant_id, False)
    assert jobs_of(db, tenant_id) == []
    submit_due(db)
    assert jobs_of(db, tenant_id)[0].state is JobState.QUEUED


@pytest.mark.parametrize(
    "written",
    [
        {"cron": "x"},
        {"timezone": "Nowhere"},
        {"spec": {"model_id": 5}},
        {"spec": []},
        {"options": {"cpus": "many"}},
        {"options": {"colour": 1}},
        {"options": []},
        {"options": {"idempotency_key": "mine"}},
    ],
    ids=str,
)
def test_a_schedule_that_was_written_by_hand_stops_alone(db, own, tenant_id, other_tenant_id, written) -> None:
    """By SQL in the tenant's own name, past all checks: those of the others are submitted all the same."""
    DatasetRepository(db, other_tenant_id).create("d", measures(50))
    Schedules(db, other_tenant_id).create("theirs", HOURLY, spec())
    row = {
        "tenant_id": tenant_id,
        "name": "bad",
        "cron": HOURLY,
        "timezone": "UTC",
        "kind": "train",
        "spec": spec().to_json(),
        "options": {},
        "scopes": ["train"],
        "created_by": "",
    }
    with db.tenant(tenant_id) as connection:
        connection.execute(schedules.insert().values(**{**row, **written}))
    pass_time(db, tenant_id, hours=1)
    pass_time(db, other_tenant_id)
    submit_due(db)
    assert len(jobs_of(db, other_tenant_id)) == 1
    assert jobs_of(db, tenant_id) == []
    bad = own.get("bad")
    assert bad.note
    assert bad.state is ScheduleState.STOPPED or bad.next_at > datetime.now(UTC)
    end(db, other_tenant_id)
