"""Models and their versions: what is served, and what versions are found by."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ml_core.database.tables.base import document, grammar, keys, metadata, moment, number, refers, text
from ml_core.database.tables.tenants import of_tenant
from ml_core.ids import Digest, HoldName, ModelId, VersionId

# Kept when a model is deleted: numbers and generations go on, so that neither is ever used twice.
# ``metadata``: notes of the model as a whole. Each version has them in its own; this copy is for those to come.
models = sa.Table(
    "models",
    metadata,
    *of_tenant("model_id"),
    text("model_type"),
    sa.Column("next_number", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    moment("created_at"),
    moment("archived_at", nullable=True),
    moment("deleted_at", nullable=True),
    document("metadata"),
    grammar("model_id", ModelId),
)

# ``outside_types``: types in the artifact that are not on the platform's list. ``modules``: their modules with the
# distributions, which a server must trust to load it.
# ``dataset_digest``: of the registered dataset that it was trained on. ``data_digest``: of the rows as the model saw
# them, equal however the table came in.
# ``compilation``: which form of the estimator answers, and why. ``compiled_digest`` and ``compiled_size_bytes``: of the
# compiled form, whose bytes the version needs as it needs its own.
versions = sa.Table(
    "versions",
    metadata,
    *keys("tenant_id", "model_id", "version"),
    number("number"),
    text("digest"),
    number("size_bytes"),
    text("format"),
    document("signature"),
    document("self_test"),
    document("metrics"),
    document("hyperparameters"),
    document("metadata"),
    text("run_id", nullable=True),
    text("dataset_digest", nullable=True),
    text("parent_version", nullable=True),
    text("code_commit", nullable=True),
    document("libraries"),
    moment("created_at"),
    text("created_by"),
    moment("archived_at", nullable=True),
    sa.Column("outside_types", sa.ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'::text[]")),
    sa.Column("modules", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
    text("data_digest", nullable=True),
    document("compilation"),
    text("compiled_digest", nullable=True),
    number("compiled_size_bytes", nullable=True),
    grammar("version", VersionId),
    grammar("digest", Digest),
    grammar("compiled_digest", Digest),
    sa.CheckConstraint("(compiled_digest IS NULL) = (compiled_size_bytes IS NULL)", name="compiled"),
    refers(models),
    sa.UniqueConstraint("tenant_id", "model_id", "number"),
    sa.Index(None, "tenant_id", "digest"),
    sa.Index(
        "ix_versions_compiled",
        "tenant_id",
        "compiled_digest",
        postgresql_where=sa.text("compiled_digest IS NOT NULL"),
    ),
    sa.Index(None, "tenant_id", "created_at", "model_id", "version"),
    sa.Index("ix_versions_shown", "tenant_id", "model_id", "number", postgresql_where=sa.text("archived_at IS NULL")),
    sa.Index(None, "tenant_id", "dataset_digest"),
    sa.Index(None, "tenant_id", "run_id"),
    sa.Index(None, "tenant_id", "model_id", "parent_version"),
)

# The names of deleted versions: a name always means the same bytes, as histories, caches and clients rely on it.
deleted_versions = sa.Table(
    "deleted_versions",
    metadata,
    *keys("tenant_id", "model_id", "version"),
    text("digest"),
    moment("deleted_at"),
    refers(models),
)

# What versions are searched by, one row each, so that an index that leads with the tenant answers.
version_tags = sa.Table(
    "version_tags",
    metadata,
    *keys("tenant_id", "model_id", "version", "key"),
    text("value"),
    refers(versions, ondelete="CASCADE"),
    sa.Index("ix_version_tags_tenant_id_key_value", "tenant_id", "key", sa.text('"left"(value, 250)')),
)

version_metrics = sa.Table(
    "version_metrics",
    metadata,
    *keys("tenant_id", "model_id", "version", "split", "metric"),
    sa.Column("value", sa.Double, nullable=False),
    refers(versions, ondelete="CASCADE"),
    sa.Index("ix_version_metrics_sorted", "tenant_id", "split", "metric", "value", "model_id", "version"),
)

# Why a version may not be collected, whatever its age.
holds = sa.Table(
    "holds",
    metadata,
    *keys("tenant_id", "model_id", "version", "name"),
    text("reason"),
    moment("created_at"),
    text("created_by"),
    grammar("name", HoldName),
    refers(versions),
)
