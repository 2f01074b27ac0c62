"""What replicas report: a row for each replica, and a row for each version that it should serve and has not loaded."""

from __future__ import annotations

import sqlalchemy as sa

from ml_core.database.tables.base import grammar, metadata, moment, number, text
from ml_core.database.tables.environments import environments
from ml_core.database.tables.tenants import feed_clock
from ml_core.domain.replica_report import MAX_PENDING, MAX_REASON
from ml_core.ids import EnvironmentName, VersionId

_COUNTS = ("pointers", "resident", "deferred", "loading", "failed", "unlisted")

# Nothing of a tenant is in it but its share of the counts. A replica is alive until ``expires_at``.
replica_reports = sa.Table(
    "replica_reports",
    metadata,
    sa.Column("cell", sa.Text, sa.ForeignKey(feed_clock.c.cell), primary_key=True),
    text("replica_id", key=True),
    moment("started_at"),
    moment("reported_at"),
    sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("epoch", sa.Uuid, nullable=False),
    number("generation"),
    sa.Column("is_current", sa.Boolean, nullable=False),
    *(number(name) for name in _COUNTS),
    sa.CheckConstraint("replica_id ~ '^[A-Za-z0-9_-]{1,64}$'", name="replica_id"),
    sa.CheckConstraint("expires_at <= reported_at + interval '10 minutes'", name="expires_at"),
    sa.CheckConstraint(f"LEAST({', '.join(_COUNTS)}) >= 0", name="counts"),
)

# ``position`` bounds how many rows a replica may have. They go with the report that they belong to.
replica_pending = sa.Table(
    "replica_pending",
    metadata,
    *(text(name, key=True) for name in ("tenant_id", "model_id", "environment", "version", "cell", "replica_id")),
    sa.Column("position", sa.SmallInteger, nullable=False),
    text("state"),
    text("serves", nullable=True),
    text("code", nullable=True),
    text("reason", nullable=True),
    text("cause", nullable=True),
    grammar("environment", EnvironmentName),
    grammar("version", VersionId),
    grammar("serves", VersionId),
    sa.CheckConstraint(f"position BETWEEN 0 AND {MAX_PENDING - 1}", name="position"),
    sa.CheckConstraint("state IN ('deferred', 'loading', 'failed')", name="state"),
    sa.CheckConstraint(
        f"char_length(code) <= 64 AND char_length(reason) <= {MAX_REASON} AND char_length(cause) <= {MAX_REASON}",
        name="reason",
    ),
    sa.ForeignKeyConstraint(
        ["tenant_id", "model_id", "environment"],
        [environments.c.tenant_id, environments.c.model_id, environments.c.environment],
        ondelete="CASCADE",
    ),
    sa.ForeignKeyConstraint(
        ["cell", "replica_id"], [replica_reports.c.cell, replica_reports.c.replica_id], ondelete="CASCADE"
    ),
    sa.UniqueConstraint("cell", "replica_id", "position"),
)
