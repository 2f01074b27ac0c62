"""The outbox: what changed, delivered to other programs at least once, and pruned when it is old.

An event is numbered while its change is made and is seen once that is committed. So the events of two changes that were
made at the same time may be delivered in either order, and one may come with a lower ``outbox_id`` than one before it.
Changes that wait for each other, as all do that move the same pointer, register a version of the same model or move the
same run, are delivered in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import outbox
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.registry.pages import check_limit

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow

_PRUNED_AT_ONCE = 10_000
"""Rows removed by one transaction: some tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change: what happened (``topic``, such as ``version.registered``), to what (``payload``) and when (UTC)."""

    outbox_id: int
    topic: str
    payload: Mapping[str, Any]
    created_at: datetime


class OutboxReader:
    """Delivers and prunes the events of one tenant."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def deliver(self, handler: Callable[[Event], object], *, limit: int = 100) -> int:
        """Hand undelivered events to a handler, oldest first, and mark them as delivered.

        Each event is delivered at least once: a process that is killed before the end delivers the batch again, so a
        handler remembers the ``outbox_id`` of those that it has done; the highest alone does not tell. Several
        consumers share the work and never hold the same event at the same time. For the order of changes that the
        module describes run one consumer for a tenant.

        An event that the handler refuses stays the first of the next delivery, so those after it wait. A handler that
        can never take an event notes it somewhere and returns.

        Args:
            handler: Called with one event after the other while the batch's rows are locked, so it must be quick: a
                transaction may be idle for a minute. What it returns is not looked at.
            limit: At most so many, 1 to 1000.

        Returns:
            How many were delivered.

        Raises:
            InvalidRequestError: The limit can't be used.
            Exception: What the handler raised. Its event and those after it stay undelivered; those before it do not.
        """
        self._db.principal.require(Scope.ADMIN)
        delivered: list[int] = []
        failure: Exception | None = None
        with self._db.tenant(self._tenant_id) as connection:
            for row in self._take(connection, check_limit(limit)):
                try:
                    handler(Event(row.outbox_id, row.topic, row.payload, row.created_at))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again below
                    failure = error
                    break
                delivered.append(row.outbox_id)
            if delivered:
                done = outbox.update().where(self._mine, outbox.c.outbox_id.in_(delivered))
                connection.execute(done.values(delivered_at=sa.func.now()))
        if failure is not None:
            raise failure
        return len(delivered)

    def _take(self, connection: Connection, limit: int) -> list[AnyRow]:
        of = outbox.c
        statement = (
            sa.select(of.outbox_id, of.topic, of.payload, of.created_at)
            .where(self._mine, of.delivered_at.is_(None))
            .order_by(of.outbox_id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return list(connection.execute(statement))

    def prune(self, age: timedelta) -> int:
        """Remove events that were delivered longer ago; undelivered ones stay whatever their age.

        Returns:
            How many were removed.
        """
        self._db.principal.require(Scope.ADMIN)
        total = 0
        while True:
            with self._db.tenant(self._tenant_id) as connection:
                removed = connection.scalar(sa.select(sa.func.mlcore.prune_outbox(age, _PRUNED_AT_ONCE)))
            total += int(removed or 0)
            if not removed or removed < _PRUNED_AT_ONCE:
                return total

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return outbox.c.tenant_id == self._tenant_id
