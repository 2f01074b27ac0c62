"""Why a job waits, in words."""

from __future__ import annotations

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import JobQuota
from ml_core.ids import TenantId
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.jobs.waiting import why_waiting
from support.job_queue import empty_queue
from support.registry import superuser

OF_A_PROCESS = "run_id = 'run_0123456789abcdef', process = 'run_0123456789abcdef'"


@pytest.fixture
def own(db: DatabaseConnection, tenant_id: TenantId) -> JobRepository:
    """The jobs of a tenant, on an empty queue."""
    empty_queue(db)
    return JobRepository(db, tenant_id)


@pytest.mark.parametrize(
    ("held", "quota", "change", "why"),
    [
        (False, {}, "not_before = now()", None),
        (False, {}, "not_before = now() - interval '1 min'", "control loop does not run, or MLCORE_JOB_CPUS"),
        (False, {}, "not_before = now() + interval '30 s'", "the next attempt begins in 30 s"),
        (True, {}, "not_before = now() - interval '1 min'", "hold 1 cores, and 1 waiting jobs of the tenant go first"),
        (True, {"max_running": 1}, "not_before = now() - interval '1 min'", "1 jobs of the tenant are in progress"),
        (
            True,
            {"max_cpus": 1.5},
            "not_before = now() - interval '1 min'",
            "and its quota max_cpus is 1.5",
        ),
        (False, {}, f"state = 'starting', started_at = now(), {OF_A_PROCESS}", None),
        (
            False,
            {},
            f"state = 'starting', started_at = now() - interval '1 min', {OF_A_PROCESS}",
            "may lack 1 free cores",
        ),
        (False, {}, f"state = 'running', {OF_A_PROCESS}", None),
        (False, {}, "state = 'cancelled'", None),
    ],
)
def test_a_job_says_why_it_has_no_process(db, own, tenant_id, held: bool, quota, change: str, why: str | None) -> None:
    """Once it has waited for longer than every job does."""
    if held:
        own.submit("train", {}, priority=9)
        assert JobQueue(db).claim("d", 1, 60) is not None
    first, job = own.submit("train", {}, priority=1), own.submit("train", {})
    JobQueue(db).set_quota(tenant_id, JobQuota(**quota))
    with superuser(db) as session:
        session.execute(f"UPDATE mlcore.jobs SET {change} WHERE job_id = %s", (job.job_id,))
    said = why_waiting(db, tenant_id, own.get(job.job_id))
    assert (said is None) == (why is None), said
    assert why is None or why in str(said)
    own.cancel(first.job_id)


def test_a_lease_that_nobody_renews_is_nobodys(db, own, tenant_id) -> None:
    """The platform that claimed the job is gone."""
    own.submit("train", {}, priority=9)
    assert JobQueue(db).claim("d", 1, -1) is not None
    job = own.submit("train", {})
    with superuser(db) as session:
        session.execute("UPDATE mlcore.jobs SET not_before = now() - interval '1 min' WHERE job_id = %s", (job.job_id,))
    assert "control loop does not run" in str(why_waiting(db, tenant_id, own.get(job.job_id)))
