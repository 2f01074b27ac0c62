"""The audit: who changed what, when and for which request; written by ``journal``, only read here.

It is read in one of two orders. Newest first is for people. Oldest first is the feed of what changed, for programs: a
reader that asks again and again for what is ``after`` the last change that it has misses none.

Changes are numbered before they are committed, so a number alone is no such order: a transaction that takes longer
commits a lower number after a higher one was read. Therefore the feed orders changes by the position of their
transaction, which rises with its id, and shows those only that no running transaction can precede: all below
``pg_snapshot_xmin``. That is held back by the oldest transaction that has written anything, in any database of the
same server. The platform's own take milliseconds; a ``pg_dump`` writes nothing and holds nothing back. While a
foreign one stays open, or one that is prepared for two-phase commit, the feed shows nothing newer than its beginning.
It shows all of it, in order, once that transaction ends.

Positions go on rising across a restore into another server (``renew_positions``), so a reader's cursor stays valid.
What was lost, because it was made after the backup, stays with the reader; it is not taken back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import audit, audit_clock
from ml_core.domain.permissions import MOVES, NEEDED
from ml_core.exceptions import InvalidRequestError, did_you_mean, shown
from ml_core.registry.limits import check_range
from ml_core.registry.pages import Page, encode_cursor, read_page
from ml_core.registry.records import OfTenant, value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

_ORDER = (audit.c.position, audit.c.audit_id)
_XMIN = sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot())


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: ``action`` (such as ``version.registered``) done to ``subject`` (the names that select it).

    ``request_id`` is None where no request asked for it. ``at`` is when its transaction began, UTC. ``cursor``
    continues a list after this change, in either order.
    """

    audit_id: int
    at: datetime
    principal: str
    request_id: str | None
    action: str
    subject: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    cursor: str = ""


class AuditRepository(OfTenant):
    """The audit of one tenant."""

    def list(
        self,
        *,
        after: str | None = None,
        limit: int = 100,
        descending: bool = False,
        action: str | None = None,
        principal: str | None = None,
        request_id: str | None = None,
        subject: Mapping[str, Any] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[AuditEntry]:
        """Changes, oldest first and in an order in which nothing is missed; see the module. Or newest first.

        A program that follows the changes keeps the ``cursor`` of the last one that it has handled, and asks for what
        is after it; an empty page means that there is nothing new yet. What is None does not restrict.

        Args:
            after: The cursor of a change, or ``next_cursor`` of the page before.
            limit: At most so many, 1 to 1000.
            descending: Newest first, the latest changes included whatever transactions are running.
            action: An action, or with a dot at its end all of its noun: ``version.`` for every change of a version.
            principal: Who did it.
            request_id: For which request; an empty one finds nothing.
            subject: Names that the change's subject has, such as ``{"model_id": "tickets"}``.
            since: Only at or after this moment, with its time zone.
            until: Only before this moment, with its time zone.

        Raises:
            InvalidRequestError: The limit or the cursor can't be used, a moment has no time zone, the range of time
                holds no moment, or nothing was found and no change has such an action.
        """
        statement = sa.select(audit).where(
            audit.c.tenant_id == self._tenant_id, *_conditions(action, principal, request_id, subject, since, until)
        )
        if not descending:
            statement = statement.where(audit.c.position < sa.func.mlcore.audit_position(_XMIN))
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, _ORDER, limit=limit, cursor=after, descending=descending)
        if not page.items and action is not None:
            _check_action(action)
        return page.map(_entry)


def _entry(row: AnyRow) -> AuditEntry:
    cursor = encode_cursor([row.position, row.audit_id])
    return value_of(AuditEntry, row, request_id=row.request_id or None, cursor=cursor)


def renew_positions(connection: Connection) -> None:
    """Let positions go on from the present: after a restore the server counts its transactions from another number.

    Args:
        connection: In a transaction of a superuser, which sees the changes of all tenants.
    """
    now = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.BigInteger) * 1_000_000
    last = sa.select(sa.func.max(audit.c.position) + 1).scalar_subquery()
    transaction = sa.cast(sa.cast(sa.func.pg_current_xact_id(), sa.Text), sa.BigInteger)
    connection.execute(audit_clock.update().values(base=sa.func.greatest(now, last) - transaction))


def _check_action(action: str) -> None:
    """Refuse an action that no change of this release has: an empty page would hide the typo.

    Raises:
        InvalidRequestError: Names the nearest, or all actions.
    """
    known = sorted({*NEEDED, *MOVES})
    nouns = sorted({f"{name.split('.')[0]}." for name in known})
    if action not in known and action not in nouns:
        raise InvalidRequestError(
            f"There is no action {shown(action)}.",
            remedy=f"{did_you_mean(action, [*known, *nouns])}Actions are: {', '.join(known)}. "
            "A noun with a dot, such as version., selects all of its actions.",
            field="action",
        )


def _conditions(
    action: str | None,
    principal: str | None,
    request_id: str | None,
    subject: Mapping[str, Any] | None,
    since: datetime | None,
    until: datetime | None,
) -> list[sa.ColumnElement[bool]]:
    of = audit.c
    conditions: list[sa.ColumnElement[bool]] = []
    if action is not None:
        # A range instead of LIKE: an index serves it whatever the collation's rules for patterns.
        is_noun = action.endswith(".")
        conditions.append(
            sa.and_(of.action >= action, of.action < action[:-1] + "/") if is_noun else of.action == action
        )
    if principal is not None:
        conditions.append(of.principal == principal)
    if request_id is not None:
        # The second condition is what lets the index of rows with a request be used, whatever the parameter.
        conditions += [of.request_id == request_id, of.request_id != sa.text("''")]
    if subject:
        conditions.append(of.subject.contains(dict(subject)))
    since, until = check_range(since, until)
    if since is not None:
        conditions.append(of.at >= since)
    if until is not None:
        conditions.append(of.at < until)
    return conditions
