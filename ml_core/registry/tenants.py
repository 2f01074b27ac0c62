"""Tenants: created once, never renamed; the name of a deleted tenant is not given out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import SHARED_CELL, tenants
from ml_core.exceptions import TenantExistsError, TenantNotFoundError
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.clock import advance_feed

if TYPE_CHECKING:
    from ml_core.registry.rows import AnyRow


@dataclass(frozen=True, slots=True)
class TenantInfo:
    """A tenant as listed: the cell that serves it and when it was created, UTC."""

    tenant_id: TenantId
    cell: str
    created_at: datetime


class TenantRepository:
    """The tenants of the platform."""

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db

    def create(self, tenant_id: TenantId) -> TenantInfo:
        """Create a tenant in the shared cell.

        Raises:
            TenantExistsError: It exists already.
        """
        created = self._insert(tenant_id)
        if created is None:
            raise TenantExistsError(
                f"The tenant {tenant_id!s} exists already.",
                remedy="Choose another name, or use it.",
                tenant_id=tenant_id,
            )
        return created

    def ensure(self, tenant_id: TenantId) -> None:
        """Create the tenant unless it exists."""
        if not self.exists(tenant_id):
            self._insert(tenant_id)

    def _insert(self, tenant_id: TenantId) -> TenantInfo | None:
        statement = (
            insert(tenants)
            .values(tenant_id=tenant_id, cell=SHARED_CELL, feed_generation=advance_feed(SHARED_CELL))
            .on_conflict_do_nothing()
            .returning(tenants.c.tenant_id, tenants.c.cell, tenants.c.created_at)
        )
        with self._db.tenant(tenant_id) as connection:
            row = connection.execute(statement).one_or_none()
            if row is not None:
                journal.record(connection, tenant_id, "tenant.created", {"tenant_id": tenant_id})
        return None if row is None else _info(row)

    def exists(self, tenant_id: TenantId) -> bool:
        """Whether there is such a tenant."""
        found = sa.select(sa.true()).where(tenants.c.tenant_id == tenant_id, tenants.c.deleted_at.is_(None))
        with self._db.tenant(tenant_id) as connection:
            return bool(connection.scalar(found))

    def require(self, tenant_id: TenantId) -> None:
        """Refuse a tenant that does not exist.

        Raises:
            TenantNotFoundError: There is no such tenant.
        """
        if not self.exists(tenant_id):
            raise tenant_not_found(tenant_id)

    def list(self, *, limit: int | None = None, after: TenantId | None = None) -> Sequence[TenantInfo]:
        """Tenants by name, over all cells; read by the serving role.

        Args:
            limit: At most so many.
            after: Only names after this one: the last of the page before.
        """
        statement = (
            sa.select(tenants.c.tenant_id, tenants.c.cell, tenants.c.created_at)
            .where(tenants.c.deleted_at.is_(None))
            .order_by(tenants.c.tenant_id)
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(tenants.c.tenant_id > after)
        with self._db.serving() as connection:
            return [_info(row) for row in connection.execute(statement)]


def tenant_not_found(tenant_id: TenantId) -> TenantNotFoundError:
    """The error for a tenant that does not exist."""
    return TenantNotFoundError(
        f"There is no tenant {tenant_id!s}.",
        remedy=f"Create it: mlcore tenants create {tenant_id!s}.",
        tenant_id=tenant_id,
    )


def _info(row: AnyRow) -> TenantInfo:
    return TenantInfo(TenantId(row.tenant_id), row.cell, row.created_at)
