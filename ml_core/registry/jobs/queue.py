"""``JobQueue``: the waiting jobs of all tenants, and whose turn it is.

Tenants take turns by start-time fair queueing (Goyal, Vin and Cheng, 1996): a turn is an interval of virtual time, as
long as the job's cores divided by the tenant's weight, and whoever's last turn ended first is next. A turn begins no
earlier than the newest turn of anybody, so who was idle has no credit. Within a tenant the higher priority goes first,
then the older job. A trigger of ``jobs`` keeps the turns (``06_jobs.sql``).

A claim is a lease. Whoever executes the job renews it; a job whose lease has ended is claimed again
(``JobRepository.lose``). All statements run in the platform's name, see the policies of the two tables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.tables import job_quotas, jobs
from ml_core.domain.api_key import Scope
from ml_core.domain.job import HOLDS_CORES, Attempt, JobKind, JobQuota, JobState
from ml_core.ids import JobId, RunId, TenantId
from ml_core.registry.jobs.lifecycle import attempt_from, in_seconds, is_job
from ml_core.registry.journal import lock_tenant
from ml_core.registry.records import OfPlatform, value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

_CLAIMS_LOCK = 1835167601
"""Key of the advisory lock that makes claims one at a time: each takes about a millisecond."""

# The tenants that wait, by the index in the order of their turns, up to the first that may have one.
_NEXT = sa.text("""
SELECT t.tenant_id, head.job_id, head.cpus, head.batch_id
FROM mlcore.job_turns t
LEFT JOIN mlcore.job_quotas q ON q.tenant_id = t.tenant_id
CROSS JOIN LATERAL (
  SELECT j.job_id, j.cpus, j.batch_id FROM mlcore.jobs j
  WHERE j.tenant_id = t.tenant_id AND j.state = 'queued' AND j.not_before <= now()
  ORDER BY j.priority DESC, j.submitted_at LIMIT 1
) head
CROSS JOIN LATERAL (
  SELECT count(*) AS jobs, coalesce(sum(cpus), 0) AS cpus FROM mlcore.jobs j
  WHERE j.tenant_id = t.tenant_id AND j.state IN ('starting', 'running', 'cancelling')
) held
WHERE t.waiting_since IS NOT NULL
  AND held.jobs < coalesce(q.max_running, 1000000000) AND held.cpus + head.cpus <= coalesce(q.max_cpus, 1e9)
ORDER BY t.ended, t.waiting_since LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class Held:
    """A job that has, or may still have, a process, as a dispatcher sees it.

    Attributes:
        process: Names its process, which may execute other jobs of the same batch before and after it.
        is_own: Whether the dispatcher itself claimed it.
        is_lapsed: Whether nobody has renewed its lease.
    """

    tenant_id: TenantId
    job_id: JobId
    run_id: RunId
    process: RunId
    cpus: float
    is_own: bool
    is_lapsed: bool


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that runs or waits, as an operator sees it. Times are UTC."""

    tenant_id: TenantId
    job_id: JobId
    kind: JobKind
    state: JobState
    cpus: float
    progress: Mapping[str, Any]
    submitted_at: datetime
    started_at: datetime | None


class JobQueue(OfPlatform):
    """The queue of all tenants."""

    def claim(
        self, dispatcher: str, free_cpus: float, lease_s: float, *, all_cpus: float | None = None
    ) -> Attempt | None:
        """Claim the next job for a dispatcher.

        Args:
            dispatcher: Its name.
            free_cpus: Cores that it can give; a job that needs more waits until there are, and others behind it.
            lease_s: Seconds within which its process must begin, or the lease be renewed.
            all_cpus: Cores that it can give at most: a job that needs more is claimed, so that it can be refused.

        Returns:
            The attempt; None: nobody waits, all who wait are at their bounds, or the next needs more cores.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``admin``.
        """
        return self._claim(lambda head: not free_cpus < head.cpus <= (all_cpus or head.cpus), dispatcher, lease_s)

    def claim_following(self, attempt: Attempt, lease_s: float) -> Attempt | None:
        """Claim the next job for the process of an attempt that is about to end.

        The claim comes before the report of the attempt's end, so that the process never is without a job: a dispatcher
        stops one that is.

        Returns:
            The attempt; None: the next is not of the same batch or needs more cores, or as ``claim``.
        """
        if attempt.batch_id is None:
            return None

        def suits(head: AnyRow) -> bool:
            return bool(head.batch_id == attempt.batch_id and head.cpus <= attempt.cpus)

        return self._claim(suits, attempt.dispatcher, lease_s, attempt.process)

    def _claim(
        self, suits: Callable[[AnyRow], bool], dispatcher: str, lease_s: float, process: RunId | None = None
    ) -> Attempt | None:
        self._db.principal.require(Scope.ADMIN)
        with self._db.platform() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CLAIMS_LOCK)))
            head = connection.execute(_NEXT).one_or_none()
            if head is None or not suits(head):
                return None
            return _claim(connection, head.tenant_id, head.job_id, dispatcher, lease_s, process)

    def claim_one(self, tenant_id: str, job_id: str, dispatcher: str, lease_s: float) -> Attempt | None:
        """Claim a certain job before its turn, for a process that executes it on cores that no dispatcher gives.

        Args:
            tenant_id: The tenant.
            job_id: The job.
            dispatcher: Under which name.
            lease_s: As for ``claim``.

        Returns:
            The attempt; None: it does not wait, or somebody else was faster.
        """
        self._db.principal.require(Scope.ADMIN)
        with self._db.platform() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CLAIMS_LOCK)))
            return _claim(connection, TenantId(tenant_id), job_id, dispatcher, lease_s)

    def held(self, dispatcher: str) -> Sequence[Held]:
        """The jobs that hold cores: those of a dispatcher, and those of any whose lease has lapsed."""
        of = jobs.c
        is_own, is_lapsed = of.dispatcher == dispatcher, of.lease_until < sa.func.now()
        columns = (of.tenant_id, of.job_id, of.run_id, of.process, of.cpus)
        statement = sa.select(*columns, is_own.label("is_own"), is_lapsed.label("is_lapsed")).where(
            of.state.in_([state.value for state in HOLDS_CORES]), sa.or_(is_own, is_lapsed)
        )
        with self._db.platform() as connection:
            rows = connection.execute(statement.order_by(of.tenant_id, of.job_id)).all()
        return [value_of(Held, row) for row in rows]

    def active(self, limit: int) -> Sequence[ActiveJob]:
        """The first jobs of all tenants that hold cores, the longest waiting first; then those that are queued."""
        of = jobs.c
        columns = [of[field.name] for field in dataclasses.fields(ActiveJob)]
        is_waiting = of.state == JobState.QUEUED.value
        # Each has an index of its own, without the jobs that ended.
        is_active = sa.or_(is_waiting, of.state.in_([state.value for state in HOLDS_CORES]))
        statement = sa.select(*columns).where(is_active).limit(limit)
        order = (is_waiting, of.submitted_at, of.tenant_id, of.job_id)
        with self._db.platform() as connection:
            return [value_of(ActiveJob, row) for row in connection.execute(statement.order_by(*order))]

    def renew(self, processes: Sequence[RunId], lease_s: float) -> None:
        """Renew the leases of the attempts in these processes that have not begun: the processes are being started."""
        starting = (jobs.c.process.in_(processes), jobs.c.state == JobState.STARTING.value)
        with self._db.platform() as connection:
            connection.execute(jobs.update().where(*starting).values(lease_until=in_seconds(lease_s)))

    def set_quota(self, tenant_id: str, quota: JobQuota) -> None:
        """Set a tenant's share and bounds; jobs that run already go on.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``admin``.
        """
        self._db.principal.require(Scope.ADMIN)
        name, values = TenantId(tenant_id), asdict(quota)
        put = insert(job_quotas).values(tenant_id=name, **values)
        with self._db.platform() as connection:
            lock_tenant(connection, name)
            connection.execute(put.on_conflict_do_update(index_elements=["tenant_id"], set_=values))


def _claim(
    connection: Connection,
    tenant_id: TenantId,
    job_id: str,
    dispatcher: str,
    lease_s: float,
    process: RunId | None = None,
) -> Attempt | None:
    is_it = is_job(tenant_id, job_id)
    locked = sa.select(jobs.c.job_id).where(is_it, jobs.c.state == JobState.QUEUED.value)
    if connection.scalar(locked.with_for_update(skip_locked=True)) is None:  # it is being cancelled
        return None
    run_id = RunId.new()
    claimed = jobs.update().where(is_it).returning(jobs)
    claimed = claimed.values(
        state=JobState.STARTING.value,
        attempt=jobs.c.attempt + 1,
        run_id=run_id,
        process=process or run_id,
        dispatcher=dispatcher,
        lease_until=in_seconds(lease_s),
        started_at=sa.func.now(),
        finished_at=None,
        progress={},
    )
    return attempt_from(connection.execute(claimed).one())
