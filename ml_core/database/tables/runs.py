"""Runs: training executions with their metric series, tags and files."""

from __future__ import annotations

import sqlalchemy as sa

from ml_core.database.tables.base import document, grammar, metadata, moment, number, text
from ml_core.database.tables.tenants import tenants
from ml_core.ids import Digest

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("tenant_id", sa.Text, sa.ForeignKey(tenants.c.tenant_id), primary_key=True),
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    document("parameters"),
    moment("started_at"),
    moment("heartbeat_at"),
    moment("finished_at", nullable=True),
    sa.Column("error", sa.Text),
    text("parent_run_id", nullable=True),
    text("created_by", nullable=True),
    sa.ForeignKeyConstraint(["tenant_id", "parent_run_id"], ["mlcore.runs.tenant_id", "mlcore.runs.run_id"]),
    sa.Index(None, "tenant_id", "started_at", "run_id"),
    sa.Index(None, "tenant_id", "model_id", "started_at", "run_id"),
    sa.Index(None, "tenant_id", "status", "started_at", "run_id"),
    sa.Index(None, "tenant_id", "parent_run_id", "started_at", "run_id"),
)

run_tags = sa.Table(
    "run_tags",
    metadata,
    *(text(name, key=True) for name in ("tenant_id", "run_id", "key")),
    text("value"),
    sa.ForeignKeyConstraint(["tenant_id", "run_id"], [runs.c.tenant_id, runs.c.run_id]),
    sa.Index(None, "tenant_id", "key", "value", "run_id"),
)

run_metrics = sa.Table(
    "run_metrics",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    moment("at"),
    sa.ForeignKeyConstraint(["tenant_id", "run_id"], [runs.c.tenant_id, runs.c.run_id]),
)

# One line a series. Lists, comparisons and searches read these and never the points.
run_metric_summaries = sa.Table(
    "run_metric_summaries",
    metadata,
    *(text(name, key=True) for name in ("tenant_id", "run_id", "metric")),
    number("points"),
    number("not_finite"),
    number("last_step"),
    sa.Column("last_value", sa.Double, nullable=False),
    sa.Column("minimum", sa.Double),
    sa.Column("maximum", sa.Double),
    sa.ForeignKeyConstraint(["tenant_id", "run_id"], [runs.c.tenant_id, runs.c.run_id]),
    sa.Index(None, "tenant_id", "metric", "last_value"),
)

run_artifacts = sa.Table(
    "run_artifacts",
    metadata,
    *(text(name, key=True) for name in ("tenant_id", "run_id", "name")),
    text("digest"),
    number("size_bytes"),
    text("format"),
    moment("created_at"),
    grammar("digest", Digest),
    sa.ForeignKeyConstraint(["tenant_id", "run_id"], [runs.c.tenant_id, runs.c.run_id]),
    sa.Index(None, "tenant_id", "digest"),
)
