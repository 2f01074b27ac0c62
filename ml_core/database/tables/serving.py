"""What the serving plane writes: the prediction log, labels and losses, and the reports of replicas; and verdicts."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ml_core.database.tables.base import grammar, keys, metadata, moment, number, refers, text
from ml_core.database.tables.environments import environments
from ml_core.database.tables.models import models
from ml_core.domain.quality import Verdict
from ml_core.domain.replica_report import MAX_PENDING, MAX_REASON
from ml_core.domain.traffic import BUCKETS
from ml_core.ids import EnvironmentName, VersionId

PARTITION_SCHEMA = "mlcore_predictions"

# One partition a day, in a schema of their own into which no runtime role may look: the policies of the parent do not
# hold for a partition that is named directly. No foreign keys: checking them would halve the rate of ingest.
predictions = sa.Table(
    "predictions",
    metadata,
    *keys("tenant_id", "request_id"),
    sa.Column("row_number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.TIMESTAMP(timezone=True), primary_key=True),
    text("model_id"),
    text("version"),
    text("environment", nullable=True),
    text("rollout"),
    sa.Column("input_digest", sa.LargeBinary, nullable=False),
    # Not JSONB, which is parsed when it is written: twice the time of a row, and no statement looks into it.
    sa.Column("inputs", sa.JSON),
    sa.Column("prediction", JSONB),
    sa.Column("probabilities", JSONB),
    sa.Column("latency_ms", sa.REAL, nullable=False),
    sa.Index(None, "tenant_id", "at"),
    # The version comes last: rows of other versions are skipped inside the index.
    sa.Index(None, "tenant_id", "model_id", "at", "version"),
    postgresql_partition_by="RANGE (at)",
)

# Labels. One may arrive before its prediction, which waits in a replica for about a second, or without one.
feedback = sa.Table(
    "feedback",
    metadata,
    *keys("tenant_id", "model_id", "request_id"),
    sa.Column("row_number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("label", JSONB, nullable=False),
    moment("at"),
    moment("updated_at"),
    refers(models),
    sa.CheckConstraint("row_number >= 0", name="row_number"),
    sa.CheckConstraint("jsonb_typeof(label) IN ('string', 'number', 'boolean')", name="label"),
    sa.Index(None, "tenant_id", "at"),
)

# Predictions that were answered and are not in the log. ``loss_id`` is that of the batch which carried the count,
# so that one which is sent again counts once.
prediction_losses = sa.Table(
    "prediction_losses",
    metadata,
    *keys("tenant_id"),
    sa.Column("day", sa.Date, primary_key=True),
    *keys("model_id", "reason", "loss_id"),
    number("row_count"),
    sa.CheckConstraint("row_count > 0", name="row_count"),
)

_COUNTS = ("pointers", "resident", "deferred", "loading", "failed", "unlisted")

# Nothing of a tenant is in it but its share of the counts. A replica is alive until ``expires_at``.
replica_reports = sa.Table(
    "replica_reports",
    metadata,
    *keys("cell", "replica_id"),
    moment("started_at"),
    moment("reported_at"),
    sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("epoch", sa.Uuid, nullable=False),
    number("generation"),
    sa.Column("is_current", sa.Boolean, nullable=False),
    *(number(name) for name in _COUNTS),
    sa.CheckConstraint("cell ~ '^[a-z][a-z0-9_-]{0,41}$'", name="cell"),
    sa.CheckConstraint("replica_id ~ '^[A-Za-z0-9_-]{1,64}$'", name="replica_id"),
    sa.CheckConstraint("expires_at <= reported_at + interval '10 minutes'", name="expires_at"),
    sa.CheckConstraint(f"LEAST({', '.join(_COUNTS)}) >= 0", name="counts"),
)

# Requests of an interval of a replica in which it had any, by outcome, and how long the answered ones took; kept for a
# quarter of an hour. ``latency``: requests in each bucket of ``ml_core.domain.traffic``.
replica_traffic = sa.Table(
    "replica_traffic",
    metadata,
    *keys("cell", "replica_id"),
    sa.Column("at", sa.TIMESTAMP(timezone=True), primary_key=True),
    *(number(name) for name in ("answered", "refused", "failed")),
    sa.Column("latency", sa.ARRAY(sa.BigInteger), nullable=False),
    sa.CheckConstraint("cell ~ '^[a-z][a-z0-9_-]{0,41}$'", name="cell"),
    sa.CheckConstraint("replica_id ~ '^[A-Za-z0-9_-]{1,64}$'", name="replica_id"),
    sa.CheckConstraint("LEAST(answered, refused, failed) >= 0", name="counts"),
    sa.CheckConstraint(f"cardinality(latency) = {BUCKETS}", name="latency"),
    sa.Index(None, "at"),
)

# ``position`` bounds how many rows a replica may have. They go with the report that they belong to.
replica_pending = sa.Table(
    "replica_pending",
    metadata,
    *keys("tenant_id", "model_id", "environment", "version", "cell", "replica_id"),
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
    refers(environments, ondelete="CASCADE"),
    refers(replica_reports, ondelete="CASCADE"),
    sa.UniqueConstraint("cell", "replica_id", "position"),
)

_VERDICTS = ", ".join(f"'{verdict}'" for verdict in Verdict)

# What the control loop last found of the stable version of a pointer (``ml_core.monitoring.watch``).
live_verdicts = sa.Table(
    "live_verdicts",
    metadata,
    *keys("tenant_id", "model_id", "environment"),
    text("version"),
    text("quality"),
    text("drift"),
    moment("measured_at"),
    grammar("environment", EnvironmentName),
    grammar("version", VersionId),
    sa.CheckConstraint(f"quality IN ({_VERDICTS}) AND drift IN ({_VERDICTS})", name="verdicts"),
    refers(environments, ondelete="CASCADE"),
    # The alerts of all tenants.
    sa.Index("ix_live_verdicts_alerts", "tenant_id", postgresql_where=sa.text("quality = 'alert' OR drift = 'alert'")),
)
