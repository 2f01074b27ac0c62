"""Tenants: created once, never renamed; the name of a deleted tenant is not given out again."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import SHARED_CELL, tenants
from ml_core.domain.tenant_policies import SelfTestRows
from ml_core.exceptions import MLFrameworkError, TenantExistsError, TenantNotFoundError
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.clock import advance_feed
from ml_core.registry.missing import tenant_deleted, tenant_not_found

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow

__all__ = ["TenantInfo", "TenantRepository", "tenant_ids", "tenant_not_found"]

_PAGE = 500
"""Tenants read in one query."""
_COMPARED = 1_000
"""Names that a new one is compared with at most: about 10 ms of one core."""
_NEAR = 0.85
"""How like two names are, of 1, that may be one with a typo: ``acmee`` and ``acme`` are by 0.89."""

_LISTED = tuple(tenants.c[name] for name in ("tenant_id", "cell", "created_at", "deleted_at", "self_test_rows"))

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TenantInfo:
    """A tenant as listed: the cell that serves it, when it was created and, if it was, when it was deleted; UTC.

    ``self_test_rows`` is which rows its versions keep as their self-test.
    """

    tenant_id: TenantId
    cell: str
    created_at: datetime
    deleted_at: datetime | None = None
    self_test_rows: SelfTestRows = SelfTestRows.TRAINING


class TenantRepository:
    """The tenants of the platform."""

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db

    def create(self, tenant_id: TenantId) -> TenantInfo:
        """Create a tenant in the shared cell.

        Raises:
            TenantExistsError: It exists already, or did: the name of a deleted tenant is not given out again.
        """
        created = self._insert(tenant_id)
        if created is None:
            raise self._taken(tenant_id)
        return created

    def require_new(self, tenant_id: TenantId) -> None:
        """Refuse a name that a tenant has or had, without creating one.

        Raises:
            TenantExistsError: As for ``create``.
        """
        with self._db.tenant(tenant_id) as connection:
            if connection.scalar(sa.select(sa.true()).where(tenants.c.tenant_id == tenant_id)):
                raise self._taken(tenant_id)

    def _taken(self, tenant_id: TenantId) -> TenantExistsError:
        is_there = self.exists(tenant_id)
        return TenantExistsError(
            f"The tenant {tenant_id!s} exists already."
            if is_there
            else f"A tenant {tenant_id!s} was deleted, and its name is never given out again.",
            remedy="Choose another name, or use it." if is_there else "Choose another name.",
            tenant_id=tenant_id,
        )

    def ensure(self, tenant_id: TenantId) -> None:
        """Refuse a tenant that does not exist, except on the embedded server: there it is created, and the log says so.

        Raises:
            TenantNotFoundError: It was deleted, or it does not exist on a database that others may share.
        """
        if self.exists(tenant_id):
            return
        if not self._db.is_embedded or self._insert(tenant_id) is None:
            try:
                self.require(tenant_id)
            except TenantNotFoundError as error:
                error.remedy = f"{self._hint(tenant_id)}{error.remedy}"
                raise
            return  # it was created meanwhile
        _log.warning("%s", f"The tenant {tenant_id} did not exist and was created. {self._hint(tenant_id)}".rstrip())

    def _hint(self, tenant_id: TenantId) -> str:
        near = self._near(tenant_id)
        return "" if near is None else f"Did you mean {near}? "

    def _near(self, tenant_id: TenantId) -> str | None:
        """The tenant whose name may have been meant; None without one, or if the principal may not know others."""
        if not self._db.principal.is_operator:  # whoever acts for one tenant does not learn the names of others
            return None
        statement = (
            sa.select(tenants.c.tenant_id)
            .where(
                tenants.c.deleted_at.is_(None),
                tenants.c.tenant_id != tenant_id,
                tenants.c.tenant_id.startswith(tenant_id[0], autoescape=True),
            )
            .order_by(tenants.c.tenant_id)
            .limit(_COMPARED)
        )
        try:
            with self._db.serving() as connection:
                names = connection.scalars(statement).all()
        except MLFrameworkError:  # a hint: a login that may not read other tenants gets none
            return None
        # ``acme-2`` after ``acme-1`` is the next of a series and no typo.
        others = [name for name in names if _without_digits(name) != _without_digits(tenant_id)]
        return next(iter(difflib.get_close_matches(tenant_id, others, n=1, cutoff=_NEAR)), None)

    def _insert(self, tenant_id: TenantId) -> TenantInfo | None:
        statement = (
            insert(tenants)
            .values(tenant_id=tenant_id, cell=SHARED_CELL, feed_generation=advance_feed(SHARED_CELL))
            .on_conflict_do_nothing()
            .returning(*_LISTED)
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

    def is_deleted(self, tenant_id: TenantId) -> bool:
        """Whether there was such a tenant, which was deleted."""
        found = sa.select(sa.true()).where(tenants.c.tenant_id == tenant_id, tenants.c.deleted_at.is_not(None))
        with self._db.tenant(tenant_id) as connection:
            return bool(connection.scalar(found))

    def require(self, tenant_id: TenantId) -> None:
        """Refuse a tenant that does not exist.

        Raises:
            TenantNotFoundError: There is no such tenant, or it was deleted.
        """
        if not self.exists(tenant_id):
            raise tenant_deleted(tenant_id) if self.is_deleted(tenant_id) else tenant_not_found(tenant_id)

    def self_test_rows(self, tenant_id: TenantId) -> SelfTestRows:
        """Which rows the self-tests of the tenant's versions consist of.

        Raises:
            TenantNotFoundError: There is no such tenant, or it was deleted.
        """
        self.require(tenant_id)
        statement = sa.select(tenants.c.self_test_rows).where(tenants.c.tenant_id == tenant_id)
        with self._db.tenant(tenant_id) as connection:
            return SelfTestRows(connection.scalars(statement).one())

    def set_self_test_rows(self, tenant_id: TenantId, rows: SelfTestRows) -> None:
        """Say it of the versions that are trained from now on; those that there are keep theirs.

        Raises:
            TenantNotFoundError: There is no such tenant, or it was deleted.
            PermissionDeniedError: The principal lacks the scope ``admin``.
        """
        with journal.writing(self._db, tenant_id) as connection:
            subject = {"tenant_id": tenant_id}
            journal.record(connection, tenant_id, "tenant.self_test_rows_set", subject, {"rows": rows.value})
            mine = tenants.c.tenant_id == tenant_id
            connection.execute(sa.update(tenants).where(mine).values(self_test_rows=rows.value))

    def list(
        self, *, limit: int | None = None, after: TenantId | None = None, deleted: bool = False
    ) -> Sequence[TenantInfo]:
        """Tenants by name, over all cells; read by the serving role.

        Args:
            limit: At most so many.
            after: Only names after this one: the last of the page before.
            deleted: Those that were deleted, instead of those that there are.
        """
        is_deleted = tenants.c.deleted_at.is_not(None) if deleted else tenants.c.deleted_at.is_(None)
        statement = sa.select(*_LISTED).where(is_deleted).order_by(tenants.c.tenant_id).limit(limit)
        if after is not None:
            statement = statement.where(tenants.c.tenant_id > after)
        with self._db.serving() as connection:
            return [_info(row) for row in connection.execute(statement)]


def tenant_ids(db: DatabaseConnection, *, deleted: bool = False) -> Iterator[TenantId]:
    """All tenants, or all that were deleted, by name; read a page at a time."""
    tenants_of, last = TenantRepository(db), None
    while page := tenants_of.list(limit=_PAGE, after=last, deleted=deleted):
        yield from (tenant.tenant_id for tenant in page)
        last = page[-1].tenant_id


def _info(row: AnyRow) -> TenantInfo:
    rows = SelfTestRows(row.self_test_rows)
    return TenantInfo(TenantId(row.tenant_id), row.cell, row.created_at, row.deleted_at, rows)


def _without_digits(name: str) -> str:
    return "".join(character for character in name if not character.isdigit())
