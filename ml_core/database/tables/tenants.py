"""Tenants, the feed's clock, keys, the audit, and answers to requests that may be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from ml_core.database.tables.base import document, grammar, keys, metadata, moment, number, text
from ml_core.domain.placement import MAX_REPLICAS, MAX_TARGET_ONGOING
from ml_core.ids import TenantId

# One row, which only the owner reads: see ``ml_core.database.binding``.
tenant_key = sa.Table("tenant_key", metadata, sa.Column("tenant_key", sa.LargeBinary, primary_key=True))

# One row. Its lock, held to the end of a transaction, makes the order of generations that of commits. The epoch changes
# when the registry is restored: generations of two epochs can not be compared.
feed_clock = sa.Table(
    "feed_clock",
    metadata,
    sa.Column("epoch", sa.Uuid, primary_key=True, server_default=sa.text("gen_random_uuid()")),
    sa.Column("generation", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)

# The row of a deleted tenant stays, so that its name is never another customer's.
tenants = sa.Table(
    "tenants",
    metadata,
    *keys("tenant_id"),
    moment("created_at"),
    moment("deleted_at", nullable=True),
    number("feed_generation"),
    text("deleted_by", nullable=True),
    sa.Column("prediction_policy", sa.Text, nullable=False, server_default=sa.text("'digest'")),
    sa.Column("self_test_rows", sa.Text, nullable=False, server_default=sa.text("'training'")),
    grammar("tenant_id", TenantId),
    sa.CheckConstraint("prediction_policy IN ('nothing', 'digest', 'inputs')", name="prediction_policy"),
    sa.CheckConstraint("self_test_rows IN ('training', 'synthetic')", name="self_test_rows"),
    sa.Index(None, "feed_generation"),
)


def of_tenant(*names: str) -> Iterator[sa.Column[str]]:
    """The primary key of what a tenant has: the tenant, and text columns."""
    yield sa.Column("tenant_id", sa.Text, sa.ForeignKey(tenants.c.tenant_id), primary_key=True)
    yield from keys(*names)


# What a tenant may ask of its cell. A tenant without a row has the defaults; a rate that is null is the platform's.
prediction_quotas = sa.Table(
    "prediction_quotas",
    metadata,
    *of_tenant(),
    sa.Column("weight", sa.Double, nullable=False, server_default=sa.text("1")),
    sa.Column("requests_per_s", sa.Double),
    sa.Column("rows_per_s", sa.Double),
    sa.Column("burst_s", sa.Double, nullable=False, server_default=sa.text("1")),
    sa.CheckConstraint(
        "weight BETWEEN 0.01 AND 100 AND requests_per_s BETWEEN 0.001 AND 1000000"
        " AND rows_per_s BETWEEN 0.001 AND 1000000 AND burst_s BETWEEN 0.001 AND 3600",
        name="bounds",
    ),
)

# Which cell serves a tenant, with the bounds of its dedicated cell. The row of ``PLATFORM`` has those of the shared
# cell, so there is no foreign key. Once ``has_moved`` is true the shared cell no longer follows the tenant.
placements = sa.Table(
    "placements",
    metadata,
    *keys("tenant_id"),
    sa.Column("is_dedicated", sa.Boolean, nullable=False),
    sa.Column("has_moved", sa.Boolean, nullable=False, server_default=sa.false()),
    number("min_replicas"),
    number("max_replicas"),
    number("target_ongoing"),
    moment("requested_at"),
    moment("updated_at"),
    text("updated_by"),
    sa.CheckConstraint(
        f"max_replicas BETWEEN 1 AND {MAX_REPLICAS} AND target_ongoing BETWEEN 1 AND {MAX_TARGET_ONGOING}"
        " AND min_replicas <= max_replicas AND (min_replicas >= 1 OR min_replicas = 0 AND is_dedicated)",
        name="bounds",
    ),
)


def _key_columns() -> Iterator[sa.Column[Any]]:
    """What is stored of any key, except when it was revoked."""
    yield from keys("key_id")
    yield from (sa.Column(name, sa.LargeBinary, nullable=False) for name in ("salt", "hash"))
    yield sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False)
    yield text("name")
    yield moment("created_at")


def _key_rules() -> Iterator[sa.CheckConstraint]:
    yield sa.CheckConstraint("key_id ~ '^[0-9a-f]{16}$'", name="key_id")
    yield sa.CheckConstraint("octet_length(hash) = 32", name="hash")
    yield sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name="name")


# Which scopes there are is not checked: a later release has more, and replicas of this one ignore those.
api_keys = sa.Table(
    "api_keys",
    metadata,
    *of_tenant(),
    *_key_columns(),
    moment("revoked_at", nullable=True),
    number("feed_generation"),
    *_key_rules(),
    sa.CheckConstraint("cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL", name="scopes"),
    sa.Index(None, "feed_generation"),
    sa.Index(None, "key_id"),  # a request is authenticated before its tenant is known to be the key's
)

# One row, which only the owner reads: what ``mlcore.audit_position`` adds to the id of a transaction.
audit_clock = sa.Table("audit_clock", metadata, number("base", key=True))

# Who changed what, in an order in which no change comes before one that was read (``ml_core.registry.audit``). The
# principal, the request and the time are the transaction's own, also for raw SQL: the trigger ``stamp`` fills them in,
# here and wherever a row says who wrote it or when.
audit = sa.Table(
    "audit",
    metadata,
    *of_tenant(),
    sa.Column(
        "position",
        sa.BigInteger,
        primary_key=True,
        autoincrement=False,
        server_default=sa.text("mlcore.audit_position(pg_current_xact_id())"),
    ),
    sa.Column("audit_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    moment("at"),
    sa.Column("principal", sa.Text, nullable=False, server_default=sa.text("SESSION_USER")),
    sa.Column("request_id", sa.Text, nullable=False, server_default=sa.text("''")),
    text("action"),
    document("subject"),
    document("details"),
    sa.Index(None, "tenant_id", "action", "position", "audit_id"),
    sa.Index(None, "tenant_id", "at"),
    sa.Index(None, "position"),
    sa.Index(
        "ix_audit_request",
        *("tenant_id", "request_id", "position", "audit_id"),
        postgresql_where=sa.text("request_id <> ''"),
    ),
)

# Keys that belong to no tenant.
platform_keys = sa.Table(
    "platform_keys",
    metadata,
    *_key_columns(),
    text("created_by"),
    moment("revoked_at", nullable=True),
    text("revoked_by", nullable=True),
    *_key_rules(),
    sa.CheckConstraint("cardinality(scopes) > 0 AND scopes <@ ARRAY['admin', 'read']", name="scopes"),
)

# Answers to requests that a client may repeat; ``status`` is null while the first request runs, which renews
# ``alive_at``. The ``tenant_id`` of requests of the platform's own is ``PLATFORM``.
idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    *keys("tenant_id", "principal", "key"),
    text("request_digest"),
    sa.Column("status", sa.Integer),
    sa.Column("response", sa.LargeBinary),
    document("headers"),
    moment("created_at"),
    moment("alive_at"),
    sa.CheckConstraint("char_length(key) BETWEEN 1 AND 200", name="key"),
    sa.CheckConstraint("octet_length(response) <= 1048576", name="response"),
    sa.Index(None, "tenant_id", "created_at"),
)
