"""The audit: who changed what, when and for which request; written by ``journal``, only read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import audit
from ml_core.ids import TenantId
from ml_core.registry.history.labels import check_moment
from ml_core.registry.pages import Page, check_limit, decode_cursor, encode_cursor


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: ``action`` (such as ``version.registered``) done to ``subject`` (the names that select it).

    ``request_id`` is None where no request asked for it. ``at`` is UTC.
    """

    audit_id: int
    at: datetime
    principal: str
    request_id: str | None
    action: str
    subject: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which changes to show. What is None does not restrict.

    Attributes:
        action: An action, or with a dot at its end all of its noun: ``version.`` for every change of a version.
        principal: Who did it.
        request_id: For which request; an empty one finds nothing.
        subject: Names that the change's subject has, such as ``{"model_id": "tickets"}``.
        since: Only at or after this moment, with its time zone.
        until: Only before this moment, with its time zone.
    """

    action: str | None = None
    principal: str | None = None
    request_id: str | None = None
    subject: Mapping[str, Any] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None


class AuditRepository:
    """The audit of one tenant."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def query(
        self, query: AuditQuery | None = None, *, limit: int = 100, cursor: str | None = None
    ) -> Page[AuditEntry]:
        """Changes, newest first.

        Args:
            query: Which; None: all.
            limit: At most so many, 1 to 1000.
            cursor: ``next_cursor`` of the page before.

        Raises:
            InvalidRequestError: The limit or the cursor can't be used, or a moment has no time zone.
        """
        of = audit.c
        statement = sa.select(audit).where(of.tenant_id == self._tenant_id, *_conditions(query or AuditQuery()))
        if cursor is not None:
            (last,) = decode_cursor(cursor, int)
            statement = statement.where(of.audit_id < last)
        statement = statement.order_by(of.audit_id.desc()).limit(check_limit(limit) + 1)
        with self._db.tenant(self._tenant_id) as connection:
            rows = connection.execute(statement).all()
        entries = [
            AuditEntry(
                row.audit_id, row.at, row.principal, row.request_id or None, row.action, row.subject, row.details
            )
            for row in rows[:limit]
        ]
        return Page(entries, encode_cursor([entries[-1].audit_id]) if len(rows) > limit else None)


def _conditions(query: AuditQuery) -> list[sa.ColumnElement[bool]]:
    of = audit.c
    conditions: list[sa.ColumnElement[bool]] = []
    if query.action is not None:
        is_noun = query.action.endswith(".")
        # A range instead of LIKE: an index serves it whatever the collation's rules for patterns.
        conditions.append(
            sa.and_(of.action >= query.action, of.action < query.action[:-1] + "/")
            if is_noun
            else of.action == query.action
        )
    if query.principal is not None:
        conditions.append(of.principal == query.principal)
    if query.request_id is not None:
        # The second condition is what lets the index of rows with a request be used, whatever the parameter.
        conditions += [of.request_id == query.request_id, of.request_id != sa.text("''")]
    if query.subject:
        conditions.append(of.subject.contains(dict(query.subject)))
    since, until = check_moment("since", query.since), check_moment("until", query.until)
    if since is not None:
        conditions.append(of.at >= since)
    if until is not None:
        conditions.append(of.at < until)
    return conditions
