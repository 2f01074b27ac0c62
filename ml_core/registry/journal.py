"""The journal: each change leaves an audit row, for people, and an event in the outbox, for programs.

Both are written by the transaction that makes the change, in one statement, so there is neither without the change nor
a change without them. Who did it, and for which request, comes from the connection (``DatabaseConnection.acting_as``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import audit, outbox
from ml_core.ids import TenantId


def record(
    connection: Connection,
    tenant_id: TenantId,
    action: str,
    subject: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
    *,
    actor: str | None = None,
) -> None:
    """Note a change in the transaction that makes it.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        action: What happened: a noun and a verb in the past, such as ``version.registered``; the outbox row's topic.
        subject: What it happened to: the names that select it, JSON-compatible.
        details: What else a reader needs; JSON-compatible.
        actor: Who did it, where a caller said so; otherwise the connection's principal.
    """
    noted: dict[str, Any] = {"action": action, "subject": dict(subject), "details": dict(details or {})}
    if actor is not None:
        noted["principal"] = actor
    written = sa.insert(audit).values(tenant_id=tenant_id, **noted).returning(audit.c.audit_id).cte("audited")
    event = sa.insert(outbox).values(tenant_id=tenant_id, topic=action, payload={**subject, **(details or {})})
    connection.execute(event.add_cte(written))
