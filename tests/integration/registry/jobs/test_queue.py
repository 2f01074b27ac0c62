"""The queue of jobs: whose turn it is, leases, and what becomes of a lost attempt."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import jobs
from ml_core.domain.api_key import Scope
from ml_core.domain.job import HOLDS_CORES, MOVES, Attempt, JobKind, JobQuota, JobState, JobTrigger
from ml_core.domain.principal import Principal
from ml_core.domain.run import RunStatus
from ml_core.exceptions import (
    IdempotencyConflictError,
    InvalidRequestError,
    JobNotFoundError,
    JobStateError,
    PermissionDeniedError,
    QuotaExceededError,
    TenantNotFoundError,
)
from ml_core.ids import RunId, TenantId
from ml_core.registry import journal
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.runs import RunRepository
from support.job_queue import empty_queue
from support.registry import new_tenant

SPEC = {"model_id": "m", "dataset": "d@1"}
LEASE_S = 60.0


@pytest.fixture
def queue(db: DatabaseConnection) -> JobQueue:
    """The queue, in which nothing waits."""
    empty_queue(db)
    return JobQueue(db)


@pytest.fixture
def tenant_jobs(db: DatabaseConnection, tenant_id: TenantId, queue: JobQueue) -> JobRepository:
    """The jobs of a tenant."""
    return JobRepository(db, tenant_id)


@pytest.fixture(scope="module")
def shared_tenant(db: DatabaseConnection) -> TenantId:
    """A tenant for all examples of a property."""
    return new_tenant(db)


def add(db: DatabaseConnection, tenant_id: TenantId, count: int, **values: object) -> None:
    """Jobs that wait, made by one statement."""
    with journal.writing(db, tenant_id) as connection:
        row = {"tenant_id": tenant_id, "kind": "train", "cpus": 1, "scopes": ["train"], "max_attempts": 3, **values}
        serial = sa.func.generate_series(1, count).table_valued("n")
        made = sa.func.concat(
            "job_", sa.func.left(sa.func.replace(sa.cast(sa.func.gen_random_uuid(), sa.Text), "-", ""), 16)
        )
        columns = [*row, "job_id", "submitted_by", "request_id"]
        literals = [sa.literal(value, jobs.c[name].type) for name, value in row.items()]
        connection.execute(
            jobs.insert().from_select(
                columns, sa.select(*literals, made, sa.literal(""), sa.literal("")).select_from(serial)
            )
        )


def claimed(queue: JobQueue, dispatcher: str = "d1", free_cpus: float = 10.0) -> Attempt:
    """The next attempt; there is one."""
    attempt = queue.claim(dispatcher, free_cpus, LEASE_S)
    assert attempt is not None
    return attempt


def test_a_job_from_submission_to_success(queue: JobQueue, tenant_jobs: JobRepository, db, tenant_id) -> None:
    """Each step is a state, the audit has those that count, and the process has the submitter's rights and no more."""
    submitter = db.acting_as(Principal("key:1", frozenset({Scope.TRAIN}), tenant_id=tenant_id), "request-1")
    job = JobRepository(submitter, tenant_id).submit("train", SPEC, cpus=2)
    assert (job.state, job.submitted_by, job.attempt) == (JobState.QUEUED, "key:1", 0)
    attempt = claimed(queue)
    assert (attempt.job_id, attempt.number, attempt.cpus, attempt.spec) == (job.job_id, 1, 2, SPEC)
    assert attempt.principal == submitter.principal
    assert attempt.request_id == "request-1"
    tenant_jobs.begin(job.job_id, attempt.run_id, LEASE_S)
    assert tenant_jobs.beat(job.job_id, attempt.run_id, LEASE_S, {"stage": "fit"}) is JobState.RUNNING
    assert tenant_jobs.get(job.job_id).progress == {"stage": "fit"}
    done = tenant_jobs.succeed(job.job_id, attempt.run_id, {"version": "1"})
    assert (done.state, done.result, done.run_id) == (JobState.SUCCEEDED, {"version": "1"}, attempt.run_id)
    assert done.finished_at is not None
    assert tenant_jobs.list(state="succeeded").items[0] == done
    assert queue.claim("d1", 10, LEASE_S) is None


def test_an_operators_job_is_done_as_one_of_the_tenant(queue: JobQueue, tenant_jobs: JobRepository, tenant_id) -> None:
    """Whatever a row says, its process acts in the row's tenant only."""
    tenant_jobs.submit("train", SPEC)
    principal = claimed(queue).principal
    assert (principal.tenant_id, principal.is_operator) == (tenant_id, False)


def test_every_pair_of_state_and_trigger_is_as_the_table_says(tenant_jobs: JobRepository, db, tenant_id, queue) -> None:
    """Over the real rows: what the table permits ends in its state, everything else is refused and changes nothing."""
    run_id = RunId.new()
    calls = {
        JobTrigger.BEGIN: lambda job: tenant_jobs.begin(job, run_id, LEASE_S),
        JobTrigger.BEAT: lambda job: tenant_jobs.beat(job, run_id, LEASE_S),
        JobTrigger.SUCCEED: lambda job: tenant_jobs.succeed(job, run_id, {}),
        JobTrigger.FAIL: lambda job: tenant_jobs.fail(job, run_id, {"message": "no"}),
        JobTrigger.CANCEL: tenant_jobs.cancel,
        JobTrigger.RETRY: tenant_jobs.retry,
    }
    for trigger, call in calls.items():
        for state in JobState:
            job_id = tenant_jobs.submit("train", SPEC).job_id
            with db.tenant(tenant_id) as connection:
                changed = {"state": state.value, "started_at": sa.func.now(), "run_id": run_id, "process": run_id}
                connection.execute(jobs.update().where(jobs.c.job_id == job_id).values(**changed))
            target = MOVES.get((state, trigger))
            if target is None:
                with pytest.raises(JobStateError, match=f"{state} and can't {trigger}"):
                    call(job_id)
            else:
                call(job_id)
            assert tenant_jobs.get(job_id).state is (target or state)


def test_who_queues_a_thousand_does_not_hold_up_the_others(db, queue: JobQueue) -> None:
    """Turns are by weight, and one who comes later begins where the others are."""
    crowd, twice, late = (new_tenant(db) for _ in range(3))
    queue.set_quota(twice, JobQuota(weight=2))
    add(db, crowd, 1_000)
    add(db, twice, 40)
    first = [claimed(queue).tenant_id for _ in range(30)]
    assert Counter(first) == {twice: 20, crowd: 10}
    add(db, late, 10)
    assert claimed(queue).tenant_id == late
    then = Counter(claimed(queue).tenant_id for _ in range(23))
    assert then[late] in (5, 6)
    assert then[twice] in (11, 12)
    for _ in range(40):
        claimed(queue)
    assert {claimed(queue).tenant_id for _ in range(5)} == {crowd}


def test_within_a_tenant_the_higher_priority_goes_first(queue: JobQueue, tenant_jobs: JobRepository) -> None:
    """Then the older."""
    wanted = [tenant_jobs.submit("train", SPEC, priority=priority).job_id for priority in (0, 5, -1, 5)]
    assert [claimed(queue).job_id for _ in wanted] == [wanted[1], wanted[3], wanted[0], wanted[2]]


def test_a_large_job_is_not_overtaken_for_ever(queue: JobQueue, tenant_jobs: JobRepository) -> None:
    """Where the next needs more cores than are free, nobody is claimed until they are."""
    large = tenant_jobs.submit("train", SPEC, cpus=4, priority=1)
    tenant_jobs.submit("train", SPEC)
    assert queue.claim("d1", 3, LEASE_S) is None
    assert claimed(queue, free_cpus=4).job_id == large.job_id


def test_bounds_of_a_tenant(db, queue: JobQueue, tenant_jobs: JobRepository, tenant_id, other_tenant_id) -> None:
    """More jobs or cores than it may have at once wait, while others go on."""
    queue.set_quota(tenant_id, JobQuota(max_running=2, max_cpus=3))
    ids = [tenant_jobs.submit("train", SPEC).job_id for _ in range(3)]
    other = JobRepository(db, other_tenant_id).submit("train", SPEC)
    first = {attempt.job_id: attempt.run_id for attempt in (claimed(queue) for _ in range(3))}
    assert first.keys() == {*ids[:2], other.job_id}
    assert queue.claim("d1", 10, LEASE_S) is None
    tenant_jobs.fail(ids[0], first[ids[0]], {"message": "no"})
    third = claimed(queue)
    assert third.job_id == ids[2]
    large = tenant_jobs.submit("train", SPEC, cpus=3)
    tenant_jobs.fail(ids[1], first[ids[1]], {"message": "no"})
    assert queue.claim("d1", 10, LEASE_S) is None, "one core is in use, and three of three are needed"
    tenant_jobs.fail(ids[2], third.run_id, {"message": "no"})
    assert claimed(queue).job_id == large.job_id


def test_what_exceeds_a_quota_is_refused(db, queue: JobQueue, tenant_jobs: JobRepository, tenant_id) -> None:
    """At submission, with what is left."""
    queue.set_quota(tenant_id, JobQuota(max_queued=1, max_cpus=2, cpu_seconds_per_day=100))
    with pytest.raises(QuotaExceededError, match="needs 3 cores; the tenant's quota max_cpus is 2, of which 2 is left"):
        tenant_jobs.submit("train", SPEC, cpus=3)
    job_id = tenant_jobs.submit("train", SPEC).job_id
    with pytest.raises(QuotaExceededError, match="1 jobs wait") as full:
        tenant_jobs.submit("train", SPEC)
    assert (full.value.quota, full.value.left) == ("max_queued", 0)
    attempt = claimed(queue)
    with db.tenant(tenant_id) as connection:
        began = sa.func.now() - sa.text("interval '101 seconds'")
        connection.execute(jobs.update().where(jobs.c.job_id == job_id).values(started_at=began))
    with pytest.raises(QuotaExceededError, match="101 core-seconds"):
        tenant_jobs.submit("train", SPEC)
    tenant_jobs.fail(job_id, attempt.run_id, {"message": "no"})
    assert tenant_jobs.share()[1].cpu_seconds == pytest.approx(101, abs=5)
    with pytest.raises(QuotaExceededError):
        tenant_jobs.retry(job_id)
    assert tenant_jobs.get(job_id).state is JobState.FAILED


def test_the_same_key_is_the_same_job(tenant_jobs: JobRepository) -> None:
    """Also for those who submit it at the same time; with another spec it is a conflict."""
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: tenant_jobs.submit("train", SPEC, idempotency_key="k").job_id, range(16)))
    assert len(made) == 1
    with pytest.raises(IdempotencyConflictError, match="another specification"):
        tenant_jobs.submit("train", {**SPEC, "dataset": "d@2"}, idempotency_key="k")


def test_each_job_is_claimed_once(db, queue: JobQueue, tenant_id, other_tenant_id) -> None:
    """By dispatchers that claim at the same time."""
    add(db, tenant_id, 20)
    add(db, other_tenant_id, 20)

    def work(name: str) -> list[str]:
        own = JobQueue(db)
        return [attempt.job_id for _ in range(15) if (attempt := own.claim(name, 10, LEASE_S)) is not None]

    with ThreadPoolExecutor(4) as pool:
        found = [job_id for part in pool.map(work, "abcd") for job_id in part]
    assert len(found) == len(set(found)) == 40


def test_no_job_is_overlooked_that_is_submitted_while_the_last_one_is_claimed(
    db, queue: JobQueue, tenant_jobs, tenant_id
) -> None:
    """Each is claimed in the end, however submissions, claims and cancellations of one tenant meet.

    Then the tenant does not wait, so that claims need not look at its jobs.
    """

    def submit(_: int) -> str:
        return tenant_jobs.submit("train", SPEC).job_id

    def cancel(_: int) -> str:
        job_id = tenant_jobs.submit("train", SPEC).job_id
        with suppress(JobStateError):  # it was claimed before
            tenant_jobs.cancel(job_id)
        return job_id

    def claim(_: int) -> None:
        queue.claim("d1", 1e9, LEASE_S)

    with ThreadPoolExecutor(6) as pool:
        for each in [pool.submit(call, number) for number in range(60) for call in (submit, claim, cancel, claim)]:
            each.result()
    while queue.claim("d1", 1e9, LEASE_S) is not None:
        pass
    assert tenant_jobs.list(state="queued").items == []
    with db.tenant(tenant_id) as connection:
        assert connection.execute(sa.text("SELECT waiting_since FROM mlcore.job_turns")).all() == [(None,)]


def test_a_lost_attempt_is_done_again(db, queue: JobQueue, tenant_jobs: JobRepository) -> None:
    """After a pause; the process that comes back late is refused, and after the last attempt the job fails."""
    job_id = tenant_jobs.submit("train", SPEC, max_attempts=2).job_id
    lost = queue.claim("d1", 10, -1)
    assert lost is not None
    (held,) = JobQueue(db).held("another")
    assert (held.job_id, held.run_id, held.is_lapsed) == (job_id, lost.run_id, True)
    again = tenant_jobs.lose(job_id, lost.run_id, "killed by signal 9")
    assert again.state is JobState.QUEUED
    assert again.not_before > again.submitted_at
    assert queue.claim("d1", 10, LEASE_S) is None, "the pause has not ended"
    with pytest.raises(JobStateError):
        tenant_jobs.begin(job_id, lost.run_id, LEASE_S)
    _end_pause(db, tenant_jobs, job_id)
    second = claimed(queue)
    assert second.number == 2
    with pytest.raises(JobStateError, match=f"goes on without the run {lost.run_id}"):
        tenant_jobs.succeed(job_id, lost.run_id, {"version": "1"})
    failed = tenant_jobs.lose(job_id, second.run_id, "killed by signal 9")
    assert failed.state is JobState.FAILED
    assert failed.error == {
        "code": "job_lost",
        "message": "The process was lost 2 times; the last time: killed by signal 9",
    }
    assert tenant_jobs.retry(job_id).attempt == 0
    assert claimed(queue).number == 1


def test_the_run_of_a_lost_attempt_ends_with_it(db, queue: JobQueue, tenant_jobs: JobRepository, tenant_id) -> None:
    """So a process that still lives can't go on with it."""
    job_id = tenant_jobs.submit("train", SPEC).job_id
    attempt = claimed(queue)
    runs = RunRepository(db, tenant_id)
    runs.start("m", run_id=attempt.run_id)
    tenant_jobs.lose(job_id, attempt.run_id, "gone")
    assert (runs.get(attempt.run_id).status, runs.get(attempt.run_id).error) == (RunStatus.FAILED, "gone")


def test_the_parts_of_a_lost_attempt_end_with_it(db, queue: JobQueue, tenant_jobs: JobRepository, tenant_id) -> None:
    """A trial that ran is cancelled, so that another attempt repeats it; one that had ended is kept."""
    job_id, runs = tenant_jobs.submit(JobKind.TUNE, SPEC).job_id, RunRepository(db, tenant_id)
    attempt = claimed(queue)
    tenant_jobs.begin(job_id, attempt.run_id, LEASE_S)
    runs.start("m", kind="tune", run_id=attempt.run_id)
    ended, running = (runs.start("m", kind="trial", parent_run_id=attempt.run_id) for _ in range(2))
    runs.finish(ended)
    tenant_jobs.lose(job_id, attempt.run_id, "gone")
    found = [runs.get(run_id).status for run_id in (attempt.run_id, ended, running)]
    assert found == [RunStatus.FAILED, RunStatus.FINISHED, RunStatus.CANCELLED]


def test_a_lost_attempt_that_is_cancelled_ends(queue: JobQueue, tenant_jobs: JobRepository) -> None:
    """It is not done again."""
    job_id = tenant_jobs.submit("train", SPEC).job_id
    attempt = claimed(queue)
    assert tenant_jobs.cancel(job_id).state is JobState.CANCELLING
    assert tenant_jobs.beat(job_id, attempt.run_id, LEASE_S) is JobState.CANCELLING
    assert tenant_jobs.lose(job_id, attempt.run_id, "stopped").state is JobState.CANCELLED


def test_a_job_that_waits_is_cancelled_at_once(queue: JobQueue, tenant_jobs: JobRepository) -> None:
    """And claimed by nobody."""
    job = tenant_jobs.cancel(tenant_jobs.submit("train", SPEC).job_id)
    assert job.state is JobState.CANCELLED
    assert job.finished_at is not None
    assert queue.claim("d1", 10, LEASE_S) is None


def test_bad_input_says_what_to_give(tenant_jobs: JobRepository, queue: JobQueue) -> None:
    """Kinds, numbers, names."""
    for options, message in (
        ({"cpus": 0}, "cpus is 0"),
        ({"cpus": float("nan")}, "cpus is nan"),
        ({"priority": 101}, "from -100 to 100"),
        ({"max_attempts": 0}, "from 1 to 10"),
        ({"idempotency_key": "k" * 201}, "1 to 200 characters"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            tenant_jobs.submit("train", SPEC, **options)
    with pytest.raises(InvalidRequestError, match="Use one of train"):
        tenant_jobs.submit("dance", SPEC)
    with pytest.raises(JobNotFoundError, match="no job 'job_0'"):
        tenant_jobs.get("job_0")
    with pytest.raises(TenantNotFoundError):
        queue.set_quota("nobody", JobQuota())
    for quota in ({"weight": 0}, {"max_cpus": -1}, {"cpu_seconds_per_day": float("inf")}):
        with pytest.raises(InvalidRequestError):
            JobQuota(**quota)


def test_a_tenant_sees_its_own_jobs_and_no_queue(db, queue: JobQueue, tenant_jobs, tenant_id, other_tenant_id) -> None:
    """Neither by another repository, nor as a dispatcher, nor with raw SQL; and it can't set its quota."""
    job_id = tenant_jobs.submit("train", SPEC).job_id
    other = JobRepository(db, other_tenant_id)
    with pytest.raises(JobNotFoundError):
        other.cancel(job_id)
    assert other.list().items == []
    key = Principal("key:1", frozenset({Scope.ADMIN}), tenant_id=tenant_id)
    with pytest.raises(PermissionDeniedError):
        JobQueue(db.acting_as(key)).claim("d1", 10, LEASE_S)
    with pytest.raises(PermissionDeniedError):
        JobQueue(db.acting_as(key)).set_quota(tenant_id, JobQuota())
    queue.set_quota(tenant_id, JobQuota(max_running=1))
    with db.tenant(other_tenant_id) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.jobs")) == 0
        assert connection.execute(sa.text("UPDATE mlcore.jobs SET state = 'failed'")).rowcount == 0
    with db.tenant(tenant_id) as connection:
        assert connection.scalar(sa.text("SELECT max_running FROM mlcore.job_quotas")) == 1
        assert connection.execute(sa.text("UPDATE mlcore.job_quotas SET weight = 100")).rowcount == 0
    for statement in (
        f"INSERT INTO mlcore.job_quotas (tenant_id, weight) VALUES ('{tenant_id}', 100) ON CONFLICT DO NOTHING",
        "UPDATE mlcore.job_turns SET ended = 0",
        "UPDATE mlcore.jobs SET cpus = 100",
        "UPDATE mlcore.jobs SET scopes = '{admin}'",
        "DELETE FROM mlcore.jobs",
    ):
        with (
            pytest.raises(Exception, match=r"permission denied|row-level security") as refused,
            db.tenant(tenant_id) as connection,
        ):
            connection.execute(sa.text(statement))
        cause = refused.value.__cause__ or refused.value
        assert isinstance(getattr(cause, "orig", cause), psycopg.errors.InsufficientPrivilege), cause


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["claim", "begin", "succeed", "fail", "lose", "cancel", "retry", "end_pause"]), max_size=12
    )
)
def test_any_order_of_calls_keeps_a_job_whole(db, queue, shared_tenant, calls) -> None:
    """A job holds a lease exactly while it holds cores, and its attempts never exceed its bound."""
    tenant_jobs = JobRepository(db, shared_tenant)
    job_id = tenant_jobs.submit(JobKind.TRAIN, SPEC, max_attempts=2, priority=100).job_id
    for call in calls:
        before = tenant_jobs.get(job_id)
        run_id = before.run_id or RunId.new()
        do = {
            "claim": lambda: queue.claim("d1", 10, LEASE_S),
            "begin": lambda run_id=run_id: tenant_jobs.begin(job_id, run_id, LEASE_S),
            "succeed": lambda run_id=run_id: tenant_jobs.succeed(job_id, run_id, {}),
            "fail": lambda run_id=run_id: tenant_jobs.fail(job_id, run_id, {"message": "no"}),
            "lose": lambda run_id=run_id: tenant_jobs.lose(job_id, run_id, "gone"),
            "cancel": lambda: tenant_jobs.cancel(job_id),
            "retry": lambda: tenant_jobs.retry(job_id),
            "end_pause": lambda: _end_pause(db, tenant_jobs, job_id),
        }[call]
        try:
            do()
        except JobStateError:
            assert tenant_jobs.get(job_id) == before
        job = tenant_jobs.get(job_id)
        with db.platform() as connection:
            lease = connection.scalar(sa.select(jobs.c.lease_until).where(jobs.c.job_id == job_id))
        assert (lease is not None) == (job.state in HOLDS_CORES)
        assert job.attempt <= job.max_attempts
        assert (job.finished_at is not None) == (job.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED))


def _end_pause(db: DatabaseConnection, tenant_jobs: JobRepository, job_id: str) -> None:
    with db.platform() as connection:
        connection.execute(jobs.update().where(jobs.c.job_id == job_id).values(not_before=sa.func.now()))


@pytest.mark.parametrize(
    "written",
    [
        "INSERT INTO mlcore.jobs (tenant_id, job_id, kind, cpus, scopes, max_attempts, submitted_by, request_id)"
        " VALUES ('{tenant}', 'job_0123456789abcdef', 'evil', 1, ARRAY['train'], 1, '', '')",
        "UPDATE mlcore.jobs SET run_id = 'x'",
        "UPDATE mlcore.jobs SET process = 'x; rm'",
        "UPDATE mlcore.jobs SET run_id = NULL",
        "UPDATE mlcore.jobs SET process = NULL",
        "UPDATE mlcore.jobs SET state = 'running', run_id = NULL, process = NULL",
    ],
)
def test_no_row_that_a_tenant_can_write_stops_the_queue(
    db, queue: JobQueue, tenant_jobs: JobRepository, tenant_id, other_tenant_id, written: str
) -> None:
    """The queue reads the rows of all tenants, so what it could not read is refused where it is written."""
    tenant_jobs.submit("train", SPEC)
    claimed(queue)
    with (
        pytest.raises(sa.exc.IntegrityError, match="ck_jobs_"),
        db.tenant(tenant_id) as connection,
    ):
        connection.execute(sa.text(written.format(tenant=tenant_id)))
    JobRepository(db, other_tenant_id).submit("train", SPEC)
    assert claimed(queue).tenant_id == other_tenant_id
    assert len(queue.held("d1")) == 2
