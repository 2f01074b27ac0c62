"""Datasets: a name, and immutable versions of a table under it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ml_core.database.tables.base import document, grammar, metadata, moment, number, text
from ml_core.database.tables.tenants import tenants
from ml_core.ids import DatasetId, Digest

datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("tenant_id", sa.Text, sa.ForeignKey(tenants.c.tenant_id), primary_key=True),
    text("dataset_id", key=True),
    sa.Column("next_number", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    moment("created_at"),
    text("created_by"),
    grammar("dataset_id", DatasetId),
)

# ``columns``: name and Arrow type, in order. ``profile``: per column, for drift. ``source``: where it came from.
dataset_versions = sa.Table(
    "dataset_versions",
    metadata,
    text("tenant_id", key=True),
    text("dataset_id", key=True),
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
    sa.ForeignKeyConstraint(["tenant_id", "dataset_id"], [datasets.c.tenant_id, datasets.c.dataset_id]),
    sa.Index(None, "tenant_id", "digest"),
)
