"""The journal: each change is recorded in the audit by the transaction that makes it.

So there is no record without the change and no change without a record. The database fills in who did it, when and for
which request, from what the transaction entered with (``DatabaseConnection.acting_as``), whatever the statement says.

A change that its principal may not make is refused here (``ml_core.domain.permissions``), so that no caller can bypass
the rule.

Whoever writes for a tenant, journaled or not, does it in a transaction of ``writing``. It locks the tenant's row before
any other, so that a deletion waits for it while it holds nothing that the deletion needs, or is refused by it. Rows are
deleted with ``erase``; ``advance_feed`` is the last step of a transaction that replicas must notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection, acting
from ml_core.database.tables import audit, tenants
from ml_core.domain.permissions import require
from ml_core.ids import TenantId
from ml_core.registry.missing import tenant_deleted, tenant_not_found

# Holders of this lock do not keep each other waiting; the one that ``close_tenant`` takes waits for all of them.
_LOCK_TENANT = (
    sa.select(tenants.c.deleted_at)
    .where(tenants.c.tenant_id == sa.bindparam("tenant", type_=sa.Text))
    .with_for_update(read=True, key_share=True)
)

_RECORDED = ("action", "subject", "details")
_ROW = (
    sa.select(tenants.c.tenant_id, *(sa.bindparam(f"new_{name}", type_=audit.c[name].type) for name in _RECORDED))
    .where(tenants.c.tenant_id == sa.bindparam("tenant", type_=sa.Text), tenants.c.deleted_at.is_(None))
    .with_for_update(read=True, key_share=True)
)
# Made once, as are the other statements of a promotion that can be: making them takes longer than executing them.
_RECORD = (
    sa.insert(audit).from_select(["tenant_id", *_RECORDED], _ROW, include_defaults=False).returning(audit.c.audit_id)
)


@contextmanager
def writing(db: DatabaseConnection, tenant_id: TenantId) -> Iterator[Connection]:
    """One transaction that writes for a tenant, see ``DatabaseConnection.tenant``; the tenant is there until it ends.

    Raises:
        TenantNotFoundError: There is no such tenant, or it was deleted.
    """
    with db.tenant(tenant_id) as connection:
        lock_tenant(connection, tenant_id)
        yield connection


def lock_tenant(connection: Connection, tenant_id: TenantId) -> None:
    """Keep a tenant from being deleted until the transaction ends, where ``writing`` can't be used.

    Raises:
        TenantNotFoundError: There is no such tenant, or it was deleted.
    """
    row = connection.execute(_LOCK_TENANT, {"tenant": tenant_id}).one_or_none()
    if row is None:
        raise tenant_not_found(tenant_id)
    if row.deleted_at is not None:
        raise tenant_deleted(tenant_id)


def record(
    connection: Connection,
    tenant_id: TenantId,
    action: str,
    subject: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
) -> None:
    """Record a change in the transaction that makes it.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        action: What happened: a noun and a verb in the past, such as ``version.registered``.
        subject: What it happened to: the names that select it, JSON-compatible.
        details: What else a reader needs; JSON-compatible.

    Raises:
        PermissionDeniedError: The connection's principal may not make such a change.
        TenantNotFoundError: The tenant was deleted.
    """
    require(acting(connection), action)
    recorded = {"new_action": action, "new_subject": dict(subject), "new_details": dict(details or {})}
    if connection.scalar(_RECORD, {"tenant": tenant_id, **recorded}) is None:
        raise tenant_deleted(tenant_id)


def advance_feed() -> sa.ColumnElement[int]:
    """The feed's next generation, and the notification that wakes the replicas.

    The clock's row stays locked until the transaction ends, so use it as late as possible: whatever follows makes
    every other change wait.
    """
    return sa.func.mlcore.advance_feed(type_=sa.BigInteger)


def erase(connection: Connection, table: sa.Table, **key: Any) -> int:
    """Delete rows of the transaction's tenant, and count them; ``key``: column → its value, or a list of values.

    A function of the owner does it, because a role that may delete rows may also lock the whole table.

    Raises:
        sqlalchemy.exc.IntegrityError: Another row refers to one of them.
    """
    listed = {column: value if isinstance(value, list) else [value] for column, value in key.items()}
    return int(connection.scalar(sa.select(sa.func.mlcore.erase(table.name, sa.cast(listed, JSONB)))) or 0)
