"""``JobBatchRepository``: batches, by which an operator submits a job for each tenant that has a dataset.

A batch is a row of the platform, and its jobs are ordinary jobs, each in its tenant: quotas, turns, retries and the
audit are those of jobs. Whatever writes here locks the tenants first, as in ``ml_core.registry.journal``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import acting
from ml_core.database.tables import audit, job_batches, jobs
from ml_core.domain.api_key import Grant, Scope
from ml_core.domain.dataset import parse_reference
from ml_core.domain.job import MOVES, JobState, JobTrigger, sources
from ml_core.domain.job_batch import Failures, JobBatch, Refused
from ml_core.domain.job_spec import TrainJobSpec
from ml_core.domain.permissions import require
from ml_core.exceptions import Action, IdempotencyConflictError, JobNotFoundError, QuotaExceededError
from ml_core.ids import BatchId, JobId, TenantId
from ml_core.registry.jobs.quotas import check_share, shares
from ml_core.registry.jobs.repository import check_key, check_options
from ml_core.registry.limits import check_document
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import OfPlatform, value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

_AT_ONCE: Final = 300
"""Rows of one statement."""
_CHANGES_LOCK: Final = 1835167602
"""Key of the advisory lock that makes changes of batches one at a time: two would hold the turns of the same tenants,
each in an order of its own."""

# Each tenant with the number that each dataset has in it, or null; archived ones only by number.
_TENANTS = sa.text("""
SELECT t.tenant_id, ARRAY(
  SELECT (SELECT d.number FROM mlcore.dataset_versions d
          WHERE d.tenant_id = t.tenant_id AND d.dataset_id = w.dataset_id
            AND CASE WHEN w.number IS NULL THEN d.archived_at IS NULL ELSE d.number = w.number END
          ORDER BY d.number DESC LIMIT 1)
  FROM unnest(CAST(:datasets AS text[]), CAST(:numbers AS bigint[])) WITH ORDINALITY w (dataset_id, number, place)
  ORDER BY w.place) AS numbers
FROM mlcore.tenants t WHERE t.deleted_at IS NULL ORDER BY t.tenant_id FOR KEY SHARE OF t
""")
_LOCK = sa.text("""
SELECT t.tenant_id FROM mlcore.tenants t WHERE t.deleted_at IS NULL AND t.tenant_id IN (
  SELECT j.tenant_id FROM mlcore.jobs j WHERE j.batch_id = :batch AND j.state = ANY(CAST(:states AS text[])))
ORDER BY t.tenant_id FOR KEY SHARE OF t
""")
_COUNTS = sa.text("""
SELECT batch_id, state, count(*) AS jobs,
       count(*) FILTER (WHERE finished_at > now() - interval '60 seconds') AS lately,
       extract(epoch FROM now() - min(started_at)) AS since_s,
       extract(epoch FROM now() - max(finished_at)) AS ended_s
FROM mlcore.jobs WHERE batch_id = ANY(CAST(:batches AS text[])) GROUP BY batch_id, state
""")
_FAILURES = sa.text("""
SELECT min(message) AS reason, count(*) AS jobs, (array_agg(tenant_id ORDER BY tenant_id))[1:5] AS tenants
FROM (SELECT tenant_id, error ->> 'message' AS message FROM mlcore.jobs WHERE batch_id = :batch AND state = 'failed') f
GROUP BY regexp_replace(message, '''[^'']*''|[0-9]+|(run|job)_[0-9a-f]+', '', 'g')
ORDER BY count(*) DESC, reason LIMIT 20
""")


class JobBatchRepository(OfPlatform):
    """The batches of the platform. One that does not exist is a ``JobNotFoundError``."""

    def submit(
        self,
        spec: TrainJobSpec,
        *,
        cpus: float = 1.0,
        priority: int = 0,
        max_attempts: int = 3,
        idempotency_key: str | None = None,
    ) -> JobBatch:
        """Submit a job for each tenant that has the datasets of a spec. The caller has checked the spec.

        A dataset without a number means each tenant's newest version now. A tenant whose quota does not permit a job is
        left out and listed. Arguments as ``JobRepository.submit``; all jobs are submitted, or none.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``admin``.
            InvalidRequestError: A number is out of range.
            RequestTooLargeError: The spec is too large.
            IdempotencyConflictError: The key belongs to a batch with another spec.
        """
        principal = self._db.principal
        principal.require(Scope.ADMIN)
        check_options(cpus, priority, max_attempts)
        check_key(idempotency_key)
        row: dict[str, Any] = {
            "batch_id": BatchId.new(),
            "kind": spec.kind.value,
            "spec": check_document(spec.to_json(), "spec"),
            "idempotency_key": idempotency_key,
            "submitted_by": principal.name,
        }
        with self._changing() as connection:
            specs, row["without_dataset"] = self._pinned(connection, spec)
            permitted, refused = _permitted(connection, [(tenant, cpus) for tenant in specs])
            row["refused"] = [each.to_json() for each in refused]
            adding = insert(job_batches).values(**row).on_conflict_do_nothing(constraint=_KEY)
            if connection.execute(adding.returning(job_batches.c.batch_id)).one_or_none() is None:
                return self._repeated(connection, row)
            options = {"cpus": cpus, "priority": priority, "max_attempts": max_attempts, "batch_id": row["batch_id"]}
            scopes = Grant(principal.scopes, principal.promotes).names
            added = [(tenant, JobId.new()) for tenant in permitted]
            new = {"kind": spec.kind.value, "scopes": scopes, "submitted_by": "", "request_id": "", **options}
            for part in _parts(added):
                values = [
                    {"tenant_id": tenant, "job_id": job_id, "spec": specs[tenant], **new} for tenant, job_id in part
                ]
                connection.execute(insert(jobs).values(values))
            details = {"kind": spec.kind.value, "priority": priority, "batch_id": row["batch_id"]}
            _record(connection, "job.submitted", added, details)
            return self._get(connection, row["batch_id"])

    def get(self, batch_id: str) -> JobBatch:
        """A batch, with the reasons of its failures."""
        with self._db.platform() as connection:
            return self._get(connection, batch_id)

    def list(self, *, limit: int = 50, cursor: str | None = None) -> Page[JobBatch]:
        """A page of batches, newest first."""
        order = (job_batches.c.submitted_at, job_batches.c.batch_id)
        with self._db.platform() as connection:
            page = read_page(connection, sa.select(job_batches), order, limit=limit, cursor=cursor, descending=True)
            counts = connection.execute(_COUNTS, {"batches": [row.batch_id for row in page.items]}).all()
        return page.map(lambda row: _batch_from(row, counts))

    def cancel(self, batch_id: str, reason: str = "") -> JobBatch:
        """Cancel the jobs that have not ended: at once those that wait, within seconds those that run."""
        self._db.principal.require(Scope.ADMIN)
        with self._changing() as connection:
            tenants = self._locked(connection, batch_id, JobTrigger.CANCEL)
            moved = self._move(connection, batch_id, tenants, JobTrigger.CANCEL)
            _record(connection, "job.cancelled", moved, {"reason": reason[:200], "batch_id": batch_id})
            return self._get(connection, batch_id)

    def retry(self, batch_id: str) -> JobBatch:
        """Queue the jobs again that failed or were cancelled; ``refused`` are those whose quota refuses."""
        self._db.principal.require(Scope.ADMIN)
        with self._changing() as connection:
            tenants = self._locked(connection, batch_id, JobTrigger.RETRY)
            again = sa.select(jobs.c.tenant_id, jobs.c.cpus).where(
                jobs.c.batch_id == batch_id, jobs.c.tenant_id.in_(tenants), jobs.c.state.in_(sources(JobTrigger.RETRY))
            )
            asked = connection.execute(again.with_for_update()).all()
            permitted, refused = _permitted(connection, [(TenantId(row.tenant_id), row.cpus) for row in asked])
            cleared = {"attempt": 0, "error": sa.null(), "finished_at": None, "not_before": sa.func.now()}
            moved = self._move(connection, batch_id, permitted, JobTrigger.RETRY, **cleared)
            _record(connection, "job.retried", moved, {"batch_id": batch_id})
            return replace(self._get(connection, batch_id), refused=tuple(refused))

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        with self._db.platform() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CHANGES_LOCK)))
            yield connection

    def _pinned(self, connection: Connection, spec: TrainJobSpec) -> tuple[dict[TenantId, dict[str, Any]], int]:
        """The spec of each tenant that has its datasets, with their numbers, and how many tenants do not."""
        named = {
            field: parse_reference(text)
            for field in ("dataset", "validation_dataset")
            if (text := getattr(spec.training, field)) is not None
        }
        given = {"datasets": [each[0] for each in named.values()], "numbers": [each[1] for each in named.values()]}
        rows = connection.execute(_TENANTS, given).all()
        specs = {}
        for row in rows:
            if None not in row.numbers:
                pairs = zip(named.items(), row.numbers, strict=True)
                pins: dict[str, Any] = {field: f"{name}@{number}" for (field, (name, _)), number in pairs}
                specs[TenantId(row.tenant_id)] = replace(spec, training=replace(spec.training, **pins)).to_json()
        return specs, len(rows) - len(specs)

    def _repeated(self, connection: Connection, row: dict[str, Any]) -> JobBatch:
        """The batch that was submitted with the key before."""
        of = (
            job_batches.c.submitted_by == row["submitted_by"],
            job_batches.c.idempotency_key == row["idempotency_key"],
        )
        known = connection.execute(sa.select(job_batches).where(*of)).one()
        if (known.kind, known.spec) != (row["kind"], row["spec"]):
            raise IdempotencyConflictError(
                f"The idempotency key belongs to the batch {known.batch_id}, which has another specification.",
                remedy="Use a new key for another batch.",
                action=Action.of("job_batches.list"),
                key=row["idempotency_key"],
            )
        return self._get(connection, known.batch_id)

    def _get(self, connection: Connection, batch_id: str) -> JobBatch:
        row = connection.execute(sa.select(job_batches).where(job_batches.c.batch_id == batch_id)).one_or_none()
        if row is None:
            raise JobNotFoundError(
                f"There is no batch {str(batch_id)[:40]!r}.",
                remedy="List the batches.",
                action=Action.of("job_batches.list"),
                job_id=str(batch_id)[:40],
            )
        failures = [
            Failures(each.reason, each.jobs, tuple(map(TenantId, each.tenants)))
            for each in connection.execute(_FAILURES, {"batch": batch_id})
        ]
        counts = connection.execute(_COUNTS, {"batches": [batch_id]}).all()
        return replace(_batch_from(row, counts), failures=tuple(failures))

    def _locked(self, connection: Connection, batch_id: str, trigger: JobTrigger) -> Sequence[TenantId]:
        """Lock the tenants that have jobs of a batch in a state that permits a trigger."""
        self._get(connection, batch_id)
        rows = connection.execute(_LOCK, {"batch": batch_id, "states": list(sources(trigger))})
        return [TenantId(row.tenant_id) for row in rows]

    def _move(
        self, connection: Connection, batch_id: str, tenants: Sequence[TenantId], trigger: JobTrigger, **changes: Any
    ) -> Sequence[tuple[TenantId, JobId]]:
        """Move the jobs of a batch that a trigger moves; the tenants and jobs that were."""
        ends = [state.value for state in sources(trigger) if MOVES[state, trigger] is JobState.CANCELLED]
        finished = sa.case((jobs.c.state.in_(ends), sa.func.now()), else_=jobs.c.finished_at)
        target = sa.case(*((jobs.c.state == state.value, MOVES[state, trigger].value) for state in sources(trigger)))
        moved = jobs.update().where(
            jobs.c.batch_id == batch_id, jobs.c.tenant_id.in_(tenants), jobs.c.state.in_(sources(trigger))
        )
        values = {"state": target, "finished_at": finished, **changes}
        found = connection.execute(moved.values(**values).returning(jobs.c.tenant_id, jobs.c.job_id))
        return [(TenantId(row.tenant_id), JobId(row.job_id)) for row in found]


_KEY: Final = "uq_job_batches_submitted_by_idempotency_key"


def _permitted(connection: Connection, asked: Sequence[tuple[TenantId, float]]) -> tuple[list[TenantId], list[Refused]]:
    """Of tenants with the cores of one job each, those whose quota permits it, and the others."""
    permitted, refused = [], []
    shared = shares(connection, [tenant for tenant, _ in asked])
    for tenant, cpus in asked:
        try:
            check_share(tenant, shared[tenant], cpus)
            permitted.append(tenant)
        except QuotaExceededError as error:
            refused.append(Refused(tenant, str(error)))
    return permitted, refused


def _record(
    connection: Connection, action: str, changed: Sequence[tuple[TenantId, JobId]], details: dict[str, Any]
) -> None:
    """Record a change of a job in each of several tenants, which are locked."""
    require(acting(connection), action)
    for part in _parts(changed):
        rows = [
            {"tenant_id": tenant, "action": action, "subject": {"job_id": job_id}, "details": details}
            for tenant, job_id in part
        ]
        connection.execute(insert(audit).values(rows))


def _parts(rows: Sequence[tuple[TenantId, JobId]]) -> Iterable[Sequence[tuple[TenantId, JobId]]]:
    return (rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE))


def _batch_from(row: AnyRow, counts: Sequence[AnyRow]) -> JobBatch:
    mine = [each for each in counts if each.batch_id == row.batch_id]
    began = max((float(each.since_s) for each in mine if each.since_s is not None), default=None)
    batch = value_of(
        JobBatch,
        row,
        states={JobState(each.state): each.jobs for each in mine},
        refused=tuple(Refused(**each) for each in row.refused),
    )
    if began is None:
        return batch
    ended = min((float(each.ended_s) for each in mine if each.ended_s is not None), default=0.0)
    lately = sum(each.lately for each in mine) / max(min(began, 60.0), 1.0)
    return replace(batch, elapsed_s=began - ended if batch.is_final else began, rate_per_s=lately)
