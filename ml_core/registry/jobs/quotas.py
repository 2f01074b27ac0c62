"""What tenants use of their quotas, and the refusal of a job that exceeds one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.domain.job import JobQuota
from ml_core.exceptions import QuotaExceededError
from ml_core.ids import TenantId
from ml_core.registry.records import value_of

_SHARES = sa.text("""
SELECT t.tenant_id, q.weight, q.max_queued, q.max_running, q.max_cpus, q.cpu_seconds_per_day,
       u.queued, u.running, u.cpus, u.cpu_seconds
FROM unnest(CAST(:tenants AS text[])) t (tenant_id)
LEFT JOIN mlcore.job_quotas q ON q.tenant_id = t.tenant_id
CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE j.state = 'queued') AS queued, count(*) FILTER (WHERE j.holds) AS running,
         coalesce(sum(j.cpus) FILTER (WHERE j.holds), 0) AS cpus,
         coalesce(sum(j.cpu_seconds
           + CASE WHEN j.holds THEN extract(epoch FROM now() - j.started_at) * j.cpus ELSE 0 END), 0) AS cpu_seconds
  FROM (SELECT *, state IN ('starting', 'running', 'cancelling') AS holds FROM mlcore.jobs) j
  WHERE j.tenant_id = t.tenant_id AND (j.finished_at IS NULL OR j.finished_at > now() - interval '24 hours')
) u
""")


@dataclass(frozen=True, slots=True)
class JobUsage:
    """What a tenant uses of its quota now."""

    queued: int
    running: int
    cpus: float
    cpu_seconds: float


def shares(connection: Connection, tenants: Sequence[str]) -> Mapping[TenantId, tuple[JobQuota, JobUsage]]:
    """The quota of each tenant, and what it uses of it."""
    return {
        TenantId(row.tenant_id): (
            JobQuota() if row.weight is None else value_of(JobQuota, row),
            JobUsage(row.queued, row.running, float(row.cpus), float(row.cpu_seconds)),
        )
        for row in connection.execute(_SHARES, {"tenants": list(tenants)})
    }


def check_share(
    tenant_id: TenantId, share: tuple[JobQuota, JobUsage], cpus: float, *, is_counted: bool = False
) -> None:
    """Refuse one job more than a quota permits.

    Args:
        tenant_id: The tenant.
        share: Its quota, and what it uses.
        cpus: The cores of the job.
        is_counted: Whether the job is in the queue already.

    Raises:
        QuotaExceededError: Names the quota and what is left of it.
    """
    quota, usage = share
    queued = usage.queued - is_counted

    def refuse(name: str, limit: float, left: float, what: str, remedy: str) -> QuotaExceededError:
        return QuotaExceededError(
            f"{what}; the tenant's quota {name} is {limit:,g}, of which {left:,g} is left.",
            remedy=remedy,
            tenant_id=tenant_id,
            quota=name,
            limit=limit,
            left=left,
            retry_after_s=60,
        )

    if quota.max_queued is not None and queued >= quota.max_queued:
        raise refuse("max_queued", quota.max_queued, 0, f"{queued:,} jobs wait", "Wait, or cancel some.")
    if quota.max_running == 0:
        raise refuse("max_running", 0, 0, "The tenant may run no jobs", "Ask the platform's operator.")
    if quota.max_cpus is not None and cpus > quota.max_cpus:
        what = f"The job needs {cpus:g} cores"
        raise refuse("max_cpus", quota.max_cpus, quota.max_cpus, what, f"Ask for {quota.max_cpus:g} or fewer.")
    per_day = quota.cpu_seconds_per_day
    if per_day is not None and usage.cpu_seconds >= per_day:
        what = f"{usage.cpu_seconds:,.0f} core-seconds were used within the last 24 hours"
        raise refuse("cpu_seconds_per_day", per_day, 0, what, "Try again later.")
