"""What versions are trained on and by: datasets, experiments, and runs with all that is logged to them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ml_core.database.tables.base import document, grammar, keys, metadata, moment, number, refers, text
from ml_core.database.tables.tenants import of_tenant
from ml_core.ids import DatasetId, Digest, ModelId

datasets = sa.Table(
    "datasets",
    metadata,
    *of_tenant("dataset_id"),
    sa.Column("next_number", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    moment("created_at"),
    text("created_by"),
    grammar("dataset_id", DatasetId),
)

# ``columns``: name and Arrow type, in order. ``profile``: per column, for drift. ``source``: where it came from.
dataset_versions = sa.Table(
    "dataset_versions",
    metadata,
    *keys("tenant_id", "dataset_id"),
    number("number", key=True),
    text("digest"),
    number("size_bytes"),
    number("row_count"),
    sa.Column("columns", JSONB, nullable=False),
    document("profile"),
    document("source"),
    moment("created_at"),
    text("created_by"),
    moment("archived_at", nullable=True),
    grammar("digest", Digest),
    refers(datasets),
    sa.Index(None, "tenant_id", "digest"),
)

# What the runs of a model are called where that is not the model's name.
experiments = sa.Table(
    "experiments",
    metadata,
    *of_tenant("model_id"),
    text("name"),
    document("tags"),
    moment("created_at"),
    moment("updated_at"),
    moment("archived_at", nullable=True),
    grammar("model_id", ModelId),
    sa.Index(None, "tenant_id", "name", unique=True),
)

runs = sa.Table(
    "runs",
    metadata,
    *of_tenant("run_id"),
    text("model_id"),
    text("kind"),
    text("status"),
    document("parameters"),
    moment("started_at"),
    moment("heartbeat_at"),
    moment("finished_at", nullable=True),
    text("error", nullable=True),
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
    *keys("tenant_id", "run_id", "key"),
    text("value"),
    refers(runs),
    sa.Index("ix_run_tags_tenant_id_key_value_run_id", "tenant_id", "key", sa.text('"left"(value, 250)'), "run_id"),
)

run_metrics = sa.Table(
    "run_metrics",
    metadata,
    *keys("tenant_id", "run_id", "metric"),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    moment("at"),
    refers(runs),
)

# One line a series. Lists, comparisons and searches read these and never the points.
run_metric_summaries = sa.Table(
    "run_metric_summaries",
    metadata,
    *keys("tenant_id", "run_id", "metric"),
    number("points"),
    number("not_finite"),
    number("last_step"),
    sa.Column("last_value", sa.Double, nullable=False),
    sa.Column("minimum", sa.Double),
    sa.Column("maximum", sa.Double),
    refers(runs),
    sa.Index(None, "tenant_id", "metric", "last_value"),
)

run_artifacts = sa.Table(
    "run_artifacts",
    metadata,
    *keys("tenant_id", "run_id", "name"),
    text("digest"),
    number("size_bytes"),
    text("format"),
    moment("created_at"),
    grammar("digest", Digest),
    refers(runs),
    sa.Index(None, "tenant_id", "digest"),
)

# What a tracking client records beside the rest: ``dataset``s that a run read, ``model``s that it logged.
run_documents = sa.Table(
    "run_documents",
    metadata,
    *keys("tenant_id", "run_id", "kind", "name"),
    document("document"),
    moment("created_at"),
    refers(runs),
    sa.Index(None, "tenant_id", "kind", "created_at", "name"),
)
