"""Jobs, their batches and schedules, and the shares of tenants in their queue."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ml_core.database.tables.base import document, grammar, keys, metadata, moment, number, refers, text
from ml_core.database.tables.tenants import of_tenant
from ml_core.domain.job import MAX_PRIORITY, JobKind, JobState
from ml_core.domain.schedule import ScheduleState
from ml_core.ids import BatchId, JobId, RunId, ScheduleName

_STATES = ", ".join(f"'{state}'" for state in JobState)
_KINDS = ", ".join(f"'{kind}'" for kind in JobKind)
_WAITING = sa.text("state = 'queued'")
_HOLDING = sa.text("state IN ('starting', 'running', 'cancelling')")

# Jobs of several tenants that were submitted as one; they belong to no tenant. ``refused`` lists the tenants whose
# quota did not permit one.
job_batches = sa.Table(
    "job_batches",
    metadata,
    *keys("batch_id"),
    text("kind"),
    document("spec"),
    text("idempotency_key", nullable=True),
    moment("submitted_at"),
    text("submitted_by"),
    number("without_dataset"),
    sa.Column("refused", JSONB, nullable=False),
    grammar("batch_id", BatchId),
    sa.CheckConstraint(f"kind IN ({_KINDS})", name="kind"),
    sa.CheckConstraint("char_length(idempotency_key) BETWEEN 1 AND 200", name="idempotency_key"),
    sa.UniqueConstraint("submitted_by", "idempotency_key"),
    sa.Index(None, "submitted_at", "batch_id"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    *of_tenant("job_id"),
    text("kind"),
    document("spec"),
    sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'queued'")),
    sa.Column("priority", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("cpus", sa.Double, nullable=False),
    text("idempotency_key", nullable=True),
    # On whose behalf it is done; what it may do is never more than this, and never outside of the row's tenant.
    sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False),
    moment("submitted_at"),
    text("submitted_by"),
    text("request_id"),
    moment("not_before"),
    sa.Column("attempt", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    number("max_attempts"),
    text("run_id", nullable=True),
    text("dispatcher", nullable=True),
    # That of the last attempt, named after the first run that it had: it may execute several jobs of a batch.
    text("process", nullable=True),
    text("batch_id", nullable=True),
    moment("lease_until", nullable=True),
    moment("started_at", nullable=True),
    moment("finished_at", nullable=True),
    sa.Column("cpu_seconds", sa.Double, nullable=False, server_default=sa.text("0")),  # of the attempts that ended
    document("progress"),
    document("result"),
    sa.Column("error", JSONB),
    number("position"),  # of the transaction that changed it last, as in the audit; a trigger writes it
    grammar("job_id", JobId),
    refers(job_batches),
    # The queue reads rows of all tenants: what a tenant writes past the repository must not be what it can't read.
    sa.CheckConstraint(f"kind IN ({_KINDS})", name="kind"),
    grammar("run_id", RunId),
    grammar("process", RunId),
    sa.CheckConstraint(f"NOT ({_HOLDING}) OR (run_id IS NOT NULL AND process IS NOT NULL)", name="holding"),
    sa.CheckConstraint(f"state IN ({_STATES})", name="state"),
    sa.CheckConstraint(f"priority BETWEEN -{MAX_PRIORITY} AND {MAX_PRIORITY}", name="priority"),
    sa.CheckConstraint("cpus > 0 AND cpus <= 10000", name="cpus"),
    sa.CheckConstraint("char_length(idempotency_key) BETWEEN 1 AND 200", name="idempotency_key"),
    sa.UniqueConstraint("tenant_id", "idempotency_key"),
    sa.Index(None, "tenant_id", "submitted_at", "job_id"),
    sa.Index(None, "tenant_id", "state", "submitted_at", "job_id"),
    sa.Index(None, "tenant_id", "finished_at"),
    sa.Index(None, "position"),
    sa.Index("ix_jobs_batch_id", "batch_id", "state", postgresql_where=sa.text("batch_id IS NOT NULL")),
    # A tenant's jobs that wait, the next first, and those of all tenants that hold cores.
    sa.Index("ix_jobs_waiting", "tenant_id", sa.text("priority DESC"), "submitted_at", postgresql_where=_WAITING),
    sa.Index("ix_jobs_holding", "tenant_id", "lease_until", postgresql_where=_HOLDING),
)

# What the attempts of a job said, for its tenant; a line each.
job_logs = sa.Table(
    "job_logs",
    metadata,
    *keys("tenant_id", "job_id"),
    text("lines"),
    sa.ForeignKeyConstraint(["tenant_id", "job_id"], [jobs.c.tenant_id, jobs.c.job_id]),
)

# A tenant without a row has the defaults.
job_quotas = sa.Table(
    "job_quotas",
    metadata,
    *of_tenant(),
    sa.Column("weight", sa.Double, nullable=False, server_default=sa.text("1")),
    sa.Column("max_queued", sa.BigInteger, server_default=sa.text("1000")),
    number("max_running", nullable=True),
    sa.Column("max_cpus", sa.Double),
    sa.Column("cpu_seconds_per_day", sa.Double),
    sa.CheckConstraint("weight BETWEEN 0.01 AND 100", name="weight"),
)

# The last turn of a tenant that has submitted a job: an interval of virtual time as long as the job is large. Whoever's
# last turn ended first is next (``ml_core.registry.jobs.queue``). A trigger of ``jobs`` writes it.
job_turns = sa.Table(
    "job_turns",
    metadata,
    *of_tenant(),
    sa.Column("began", sa.Double, nullable=False, server_default=sa.text("0")),
    sa.Column("ended", sa.Double, nullable=False, server_default=sa.text("0")),
    moment("waiting_since", nullable=True),
    sa.Index(None, "began"),
    sa.Index("ix_job_turns_waiting", "ended", "waiting_since", postgresql_where=sa.text("waiting_since IS NOT NULL")),
)

_SCHEDULE_STATES = ", ".join(f"'{state}'" for state in ScheduleState)
# Jobs that are submitted by time. ``next_at`` is null unless the schedule is active.
schedules = sa.Table(
    "schedules",
    metadata,
    *of_tenant("name"),
    text("cron"),
    text("timezone"),
    text("kind"),
    document("spec"),
    document("options"),
    # As of jobs.
    sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False),
    moment("created_at"),
    text("created_by"),
    sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'active'")),
    moment("next_at", nullable=True),
    moment("last_at", nullable=True),
    text("last_job_id", nullable=True),
    text("note", nullable=True),
    # The rule of one that trains on an alert only, and how far a retraining has come.
    sa.Column("on_drift", JSONB),
    sa.Column("retraining", JSONB),
    grammar("name", ScheduleName),
    sa.CheckConstraint(f"kind IN ({_KINDS})", name="kind"),
    sa.CheckConstraint(f"state IN ({_SCHEDULE_STATES})", name="state"),
    # Those of all tenants that are due.
    sa.Index("ix_schedules_due", "next_at", postgresql_where=sa.text("state = 'active'")),
    sa.Index("ix_schedules_retraining", "tenant_id", "name", postgresql_where=sa.text("retraining IS NOT NULL")),
)
