"""Tenants, their keys, and what is noted of every change: the feed's clock, the outbox and the audit."""

from __future__ import annotations

import sqlalchemy as sa

from ml_core.database.tables.base import SHARED_CELL, document, grammar, metadata, moment, text
from ml_core.ids import TenantId

# One row, which only the owner reads: see ``ml_core.database.binding``.
tenant_key = sa.Table("tenant_key", metadata, sa.Column("tenant_key", sa.LargeBinary, primary_key=True))

# One row a cell. Its row lock, held to the end of a transaction, makes the order of generations that of commits. The
# epoch changes when the registry is restored: generations of two epochs can not be compared.
feed_clock = sa.Table(
    "feed_clock",
    metadata,
    sa.Column("cell", sa.Text, primary_key=True),
    sa.Column("generation", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("epoch", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")),
)

# The row of a deleted tenant stays, so that its name is never another customer's.
tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column(
        "cell", sa.Text, sa.ForeignKey(feed_clock.c.cell), nullable=False, server_default=sa.text(f"'{SHARED_CELL}'")
    ),
    moment("created_at"),
    moment("deleted_at", nullable=True),
    sa.Column("feed_generation", sa.BigInteger, nullable=False),
    text("deleted_by", nullable=True),
    sa.Column("history_policy", sa.Text, nullable=False, server_default=sa.text("'digest'")),
    sa.Column("self_test_rows", sa.Text, nullable=False, server_default=sa.text("'training'")),
    grammar("tenant_id", TenantId),
    sa.CheckConstraint("history_policy IN ('nothing', 'digest', 'inputs')", name="history_policy"),
    sa.CheckConstraint("self_test_rows IN ('training', 'synthetic')", name="self_test_rows"),
    sa.Index(None, "cell", "feed_generation"),
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
    moment("created_at"),
    moment("revoked_at", nullable=True),
    sa.Column("feed_generation", sa.BigInteger, nullable=False),
    sa.CheckConstraint("key_id ~ '^[0-9a-f]{16}$'", name="key_id"),
    sa.CheckConstraint("octet_length(hash) = 32", name="hash"),
    sa.CheckConstraint("cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL", name="scopes"),
    sa.CheckConstraint("char_length(name) BETWEEN 1 AND 100", name="name"),
    sa.Index(None, "feed_generation"),
)

# Events for other programs, in the order in which they are delivered. ``delivered_at``: null until one took it.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("tenant_id", sa.Text, sa.ForeignKey(tenants.c.tenant_id), primary_key=True),
    sa.Column("outbox_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("topic", sa.Text, nullable=False),
    document("payload"),
    moment("created_at"),
    moment("delivered_at", nullable=True),
    sa.Index("ix_outbox_undelivered", "tenant_id", "outbox_id", postgresql_where=sa.text("delivered_at IS NULL")),
    sa.Index("ix_outbox_delivered", "tenant_id", "delivered_at", postgresql_where=sa.text("delivered_at IS NOT NULL")),
)

# Who changed what, for people. The principal, the request and the time are the transaction's own, also for raw SQL: the
# trigger ``stamp`` fills them in, here and wherever a row says who wrote it or when.
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("tenant_id", sa.Text, sa.ForeignKey(tenants.c.tenant_id), primary_key=True),
    sa.Column("audit_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    moment("at"),
    sa.Column(
        "principal",
        sa.Text,
        nullable=False,
        server_default=sa.text("SESSION_USER"),
    ),
    sa.Column(
        "request_id",
        sa.Text,
        nullable=False,
        server_default=sa.text("''"),
    ),
    text("action"),
    document("subject"),
    document("details"),
    sa.Index(None, "tenant_id", "action", "audit_id"),
    sa.Index(None, "tenant_id", "at"),
    sa.Index("ix_audit_request", "tenant_id", "request_id", "audit_id", postgresql_where=sa.text("request_id <> ''")),
)
