"""The prediction log: what was answered, the labels that came later, and how many answers are missing."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ml_core.database.tables.base import metadata, moment, number, text

PARTITION_SCHEMA = "mlcore_predictions"

# One partition a day, in a schema of their own into which no runtime role may look: the policies of the parent do not
# hold for a partition that is named directly. No foreign keys: checking them would halve the rate of ingest.
predictions = sa.Table(
    "predictions",
    metadata,
    text("tenant_id", key=True),
    text("request_id", key=True),
    sa.Column("row_number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.TIMESTAMP(timezone=True), primary_key=True),
    text("model_id"),
    text("version"),
    text("environment", nullable=True),
    text("rollout"),
    sa.Column("input_digest", sa.LargeBinary, nullable=False),
    sa.Column("inputs", JSONB),
    sa.Column("prediction", JSONB),
    sa.Column("probabilities", JSONB),
    sa.Column("latency_ms", sa.REAL, nullable=False),
    sa.Index(None, "tenant_id", "at"),
    # The version comes last: rows of other versions are skipped inside the index.
    sa.Index(None, "tenant_id", "model_id", "at", "version"),
    postgresql_partition_by="RANGE (at)",
)

# Labels. One may arrive before its prediction, which waits in a replica for half a second, or without one.
feedback = sa.Table(
    "feedback",
    metadata,
    text("tenant_id", key=True),
    text("model_id", key=True),
    text("request_id", key=True),
    sa.Column("row_number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("label", JSONB, nullable=False),
    moment("at"),
    moment("updated_at"),
    sa.ForeignKeyConstraint(["tenant_id", "model_id"], ["mlcore.models.tenant_id", "mlcore.models.model_id"]),
    sa.CheckConstraint("row_number >= 0", name="row_number"),
    sa.CheckConstraint("jsonb_typeof(label) IN ('string', 'number', 'boolean')", name="label"),
    sa.Index(None, "tenant_id", "at"),
)

# Predictions that were answered and are not in the log. ``loss_id`` is that of the batch which carried the count,
# so that one which is sent again counts once.
prediction_losses = sa.Table(
    "prediction_losses",
    metadata,
    text("tenant_id", key=True),
    sa.Column("day", sa.Date, primary_key=True),
    text("model_id", key=True),
    text("reason", key=True),
    text("loss_id", key=True),
    number("row_count"),
    sa.CheckConstraint("row_count > 0", name="row_count"),
)
