"""Why a job waits."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Job, JobState
from ml_core.ids import TenantId

_AT_ONCE_S: Final = 3.0
"""Seconds that every job waits: a dispatcher looks into the queue twice a second."""
_SOON_S: Final = 20.0
"""Seconds that the start of a process takes on a busy machine."""

_FACTS = sa.text("""
SELECT extract(epoch FROM now() - j.not_before) AS waited_s, extract(epoch FROM now() - j.started_at) AS starting_s,
  (SELECT count(*) FROM mlcore.jobs o WHERE o.tenant_id = j.tenant_id AND o.state = 'queued'
     AND (o.priority, j.submitted_at) > (j.priority, o.submitted_at)) AS ahead,
  coalesce(held.cpus, 0) AS cpus, coalesce(held.own_jobs, 0) AS own_jobs, coalesce(held.own_cpus, 0) AS own_cpus,
  q.max_running, q.max_cpus
FROM mlcore.jobs j
LEFT JOIN mlcore.job_quotas q ON q.tenant_id = j.tenant_id
CROSS JOIN (
  SELECT sum(cpus) FILTER (WHERE lease_until >= now()) AS cpus, count(*) FILTER (WHERE tenant_id = :tenant) AS own_jobs,
    sum(cpus) FILTER (WHERE tenant_id = :tenant) AS own_cpus
  FROM mlcore.jobs WHERE state IN ('starting', 'running', 'cancelling')
) held
WHERE j.tenant_id = :tenant AND j.job_id = :job
""")


def why_waiting(db: DatabaseConnection, tenant_id: TenantId, job: Job) -> str | None:
    """Why a job has no process yet, for people.

    Args:
        db: The registry; its principal belongs to no tenant.
        tenant_id: The tenant.
        job: The job.

    Returns:
        None: it has one, had one, or has waited no longer than every job does.
    """
    if job.state not in (JobState.QUEUED, JobState.STARTING):
        return None
    with db.platform() as connection:
        facts = connection.execute(_FACTS, {"tenant": tenant_id, "job": job.job_id}).one_or_none()
    if facts is None:
        return None
    if job.state is JobState.STARTING:
        missing = (
            f"Its process has not begun after {facts.starting_s:.0f} s: the cluster may lack {job.cpus:g} free cores."
        )
        return missing if facts.starting_s > _SOON_S else None
    if facts.waited_s < 0:
        return f"Its process was lost; the next attempt begins in {-facts.waited_s:.0f} s."
    if facts.waited_s < _AT_ONCE_S:
        return None
    if facts.max_running is not None and facts.own_jobs >= facts.max_running:
        return f"{facts.own_jobs} jobs of the tenant are in progress, as many as its quota max_running permits."
    if facts.max_cpus is not None and facts.own_cpus + job.cpus > facts.max_cpus:
        return f"Jobs of the tenant hold {facts.own_cpus:g} cores, and its quota max_cpus is {facts.max_cpus:g}."
    if not facts.cpus:
        return (
            "No job is in progress: the platform's control loop does not run, or MLCORE_JOB_CPUS gives it no cores. "
            "The operator sees it with `mlcore status`, and starts or repairs it with `mlcore up`."
        )
    return f"Jobs in progress hold {facts.cpus:g} cores, and {facts.ahead} waiting jobs of the tenant go first."
