"""The tables, as this release needs them. The migrations make them; a test compares the two.

``tenant_id`` leads every key and every unique index, so that neither a scan nor a duplicate-key error reaches over
tenants. Two exceptions, both on purpose: the feed's indexes lead with the cell, because the serving plane reads over
tenants; and ``api_keys.key_id`` is unique over all tenants, because replicas find a key by it, and 64 random bits tell
nothing when they collide.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ml_core.ids import Digest, EnvironmentName, ModelId, TenantId, VersionId

SCHEMA = "mlcore"
SCHEMA_REVISION = "0001"
SHARED_CELL = "shared"
FEED_CHANNEL = "mlcore_feed"

metadata = sa.MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    },
)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    default = None if nullable else sa.func.now()
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable, server_default=default)


def _document(name: str) -> sa.Column[object]:
    return sa.Column(name, JSONB, nullable=False, server_default=sa.text("'{}'::jsonb"))


def _grammar(column: str, name: type[Digest | EnvironmentName | ModelId | TenantId | VersionId]) -> sa.CheckConstraint:
    """Nothing but a parsed name gets into the column: replicas of every tenant read it."""
    return sa.CheckConstraint(f"{column} ~ '^{name.pattern.pattern}$'", name=column)


# One row a cell. Its row lock, held to the end of a transaction, makes the order of generations that of commits.
feed_clock = sa.Table(
    "feed_clock",
    metadata,
    sa.Column("cell", sa.Text, primary_key=True),
    sa.Column("generation", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column(
        "cell", sa.Text, sa.ForeignKey(feed_clock.c.cell), nullable=False, server_default=sa.text(f"'{SHARED_CELL}'")
    ),
    _moment("created_at"),
    _moment("deleted_at", nullable=True),
    sa.Column("feed_generation", sa.BigInteger, nullable=False),
    _grammar("tenant_id", TenantId),
    sa.Index(None, "cell", "feed_generation"),
)

# Kept when a model is deleted: numbers and generations go on, so that neither is ever used twice.
models = sa.Table(
    "models",
    metadata,
    sa.Column("tenant_id", sa.Text, sa.ForeignKey(tenants.c.tenant_id), primary_key=True),
    sa.Column("model_id", sa.Text, primary_key=True),
    sa.Column("model_type", sa.Text, nullable=False),
    sa.Column("next_number", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    _moment("created_at"),
    _moment("archived_at", nullable=True),
    _moment("deleted_at", nullable=True),
    _grammar("model_id", ModelId),
)

# ``outside_types``: types in the artifact that are not on the platform's list, so that no server loads it.
versions = sa.Table(
    "versions",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("model_id", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    _document("signature"),
    _document("self_test"),
    _document("metrics"),
    _document("hyperparameters"),
    _document("metadata"),
    sa.Column("run_id", sa.Text),
    sa.Column("dataset_digest", sa.Text),
    sa.Column("parent_version", sa.Text),
    sa.Column("code_commit", sa.Text),
    _document("libraries"),
    _moment("created_at"),
    sa.Column("created_by", sa.Text, nullable=False),
    _moment("archived_at", nullable=True),
    sa.Column("outside_types", sa.ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'::text[]")),
    _grammar("version", VersionId),
    _grammar("digest", Digest),
    sa.ForeignKeyConstraint(["tenant_id", "model_id"], [models.c.tenant_id, models.c.model_id]),
    sa.UniqueConstraint("tenant_id", "model_id", "number"),
    sa.Index(None, "tenant_id", "digest"),
    sa.Index(None, "tenant_id", "model_id", "parent_version"),
)

# What stays of a deleted version: its name is its bytes' for ever, as histories, caches and clients go by the name.
deleted_versions = sa.Table(
    "deleted_versions",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("model_id", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    _moment("deleted_at"),
    sa.ForeignKeyConstraint(["tenant_id", "model_id"], [models.c.tenant_id, models.c.model_id]),
)

# A pointer. ``version`` is null once it was withdrawn.
environments = sa.Table(
    "environments",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("model_id", sa.Text, primary_key=True),
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("version", sa.Text),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("feed_generation", sa.BigInteger, nullable=False),
    sa.Column("cell", sa.Text, sa.ForeignKey(feed_clock.c.cell), nullable=False),
    _moment("updated_at"),
    sa.Column("updated_by", sa.Text, nullable=False),
    _grammar("environment", EnvironmentName),
    sa.ForeignKeyConstraint(["tenant_id", "model_id"], [models.c.tenant_id, models.c.model_id]),
    sa.ForeignKeyConstraint(
        ["tenant_id", "model_id", "version"], [versions.c.tenant_id, versions.c.model_id, versions.c.version]
    ),
    sa.Index(None, "cell", "feed_generation"),
    sa.Index(None, "tenant_id", "model_id", "version"),
)

# ``restored_generation``: the generation whose state a rollback brought back; its own for every other move.
environment_history = sa.Table(
    "environment_history",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("model_id", sa.Text, primary_key=True),
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("generation", sa.BigInteger, primary_key=True),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("version", sa.Text),
    sa.Column("digest", sa.Text),
    sa.Column("restored_generation", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    _moment("at"),
    sa.ForeignKeyConstraint(["tenant_id", "model_id"], [models.c.tenant_id, models.c.model_id]),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("tenant_id", sa.Text, sa.ForeignKey(tenants.c.tenant_id), primary_key=True),
    sa.Column("outbox_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("topic", sa.Text, nullable=False),
    _document("payload"),
    _moment("created_at"),
)

# Which scopes there are is not checked: a later release has more, and replicas of this one pass over those.
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("tenant_id", sa.Text, sa.ForeignKey(tenants.c.tenant_id), primary_key=True),
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    _moment("created_at"),
    _moment("revoked_at", nullable=True),
    sa.Column("feed_generation", sa.BigInteger, nullable=False),
    sa.CheckConstraint("key_id ~ '^[0-9a-f]{16}$'", name="key_id"),
    sa.CheckConstraint("octet_length(hash) = 32", name="hash"),
    sa.CheckConstraint("cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL", name="scopes"),
    sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name="name"),
    sa.UniqueConstraint("key_id"),
    sa.Index(None, "feed_generation"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("tenant_id", sa.Text, sa.ForeignKey(tenants.c.tenant_id), primary_key=True),
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("model_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    _document("parameters"),
    _moment("started_at"),
    _moment("heartbeat_at"),
    _moment("finished_at", nullable=True),
    sa.Column("error", sa.Text),
    sa.Index(None, "tenant_id", "model_id", "started_at"),
)

run_metrics = sa.Table(
    "run_metrics",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    _moment("at"),
    sa.ForeignKeyConstraint(["tenant_id", "run_id"], [runs.c.tenant_id, runs.c.run_id]),
)
