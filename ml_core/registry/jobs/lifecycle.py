"""The states of a job in the database: moves by the table of ``ml_core.domain.job``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import jobs
from ml_core.domain.api_key import Grant
from ml_core.domain.job import HOLDS_CORES, MOVES, Attempt, Job, JobState, JobTrigger, sources
from ml_core.domain.principal import Principal
from ml_core.exceptions import JobNotFoundError, JobStateError
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.missing import not_found
from ml_core.registry.records import value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

# Core-seconds of the attempt that ends now; an attempt that was only claimed counts, too: its cores were kept free.
_USED = jobs.c.cpus * sa.func.extract("epoch", sa.func.now() - jobs.c.started_at)

# Made once: making it takes longer than executing it.
_LOCK = (
    sa.select(jobs)
    .where(jobs.c.tenant_id == sa.bindparam("tenant"), jobs.c.job_id == sa.bindparam("job"))
    .with_for_update()
)


def is_job(tenant_id: TenantId, job_id: str) -> sa.ColumnElement[bool]:
    """The condition that a row is this job's."""
    return sa.and_(jobs.c.tenant_id == tenant_id, jobs.c.job_id == job_id)


def move(
    connection: Connection,
    tenant_id: TenantId,
    job_id: str,
    trigger: JobTrigger,
    *,
    run_id: str | None = None,
    **changes: Any,
) -> Job:
    """Move a job and keep its row locked until the transaction ends.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        job_id: The job.
        trigger: What happens to it.
        run_id: The run of the attempt that reports it; None: somebody else does.
        **changes: Columns to set.

    Returns:
        The job afterwards.

    Raises:
        JobStateError: Its state does not permit it, or another attempt goes on.
    """
    row = connection.execute(_LOCK, {"tenant": tenant_id, "job": job_id}).one_or_none()
    if row is None:
        raise job_not_found(tenant_id, job_id)
    state = JobState(row.state)
    if run_id not in (None, row.run_id):
        raise _refused(row, trigger, f"goes on without the run {run_id}, which was lost", "Stop its process.")
    target = MOVES.get((state, trigger))
    if target is None:
        permitted = " or ".join(sources(trigger))
        raise _refused(row, trigger, f"is {state} and can't {trigger}", f"Only a job that is {permitted} can.")
    if state in HOLDS_CORES and target not in HOLDS_CORES:
        changes |= {"cpu_seconds": jobs.c.cpu_seconds + _USED, "lease_until": None}
    changed = jobs.update().where(is_job(tenant_id, job_id)).values(state=target.value, **changes)
    return value_of(Job, connection.execute(changed.returning(jobs)).one())


def attempt_from(row: AnyRow) -> Attempt:
    """The attempt that a row of a claimed job is."""
    grant = Grant.read(row.scopes)
    # Never an operator, whatever the row says: it was written in the tenant's name.
    principal = Principal(row.submitted_by, grant.scopes, grant.promotes, TenantId(row.tenant_id))
    return value_of(Attempt, row, principal=principal, number=row.attempt)


def cancel_job_of(connection: Connection, tenant_id: TenantId, run_id: str) -> None:
    """Cancel the job whose attempt a run records, if there is one that has not ended."""
    of = (jobs.c.tenant_id == tenant_id, jobs.c.run_id == run_id)
    is_active = jobs.c.state.in_([state.value for state in sources(JobTrigger.CANCEL)])
    job_id = connection.scalar(sa.select(jobs.c.job_id).where(*of, is_active))
    if job_id is not None:
        move(connection, tenant_id, job_id, JobTrigger.CANCEL, run_id=run_id)
        journal.record(connection, tenant_id, "job.cancelled", {"job_id": job_id}, {"reason": f"run {run_id}"})


def in_seconds(seconds: float) -> sa.ColumnElement[Any]:
    """The moment so many seconds from now, by the database's clock."""
    return sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def job_not_found(tenant_id: TenantId, job_id: str) -> JobNotFoundError:
    """The error for a job that does not exist."""
    return not_found(JobNotFoundError, "job", job_id, tenant_id)


def _refused(row: AnyRow, trigger: JobTrigger, why: str, remedy: str) -> JobStateError:
    return JobStateError(
        f"The job {row.job_id} {why}.",
        remedy=remedy,
        tenant_id=row.tenant_id,
        job_id=row.job_id,
        state=row.state,
        trigger=trigger.value,
    )
