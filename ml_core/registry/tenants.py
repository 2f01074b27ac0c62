"""Tenants: created once, never renamed; the name of a deleted tenant is never used again."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import placements, prediction_quotas, tenants
from ml_core.domain.placement import SHARED_CELL, dedicated_cell
from ml_core.domain.tenant_policies import PredictionPolicy, PredictionQuota, SelfTestRows
from ml_core.exceptions import MLFrameworkError, TenantExistsError, did_you_mean
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.journal import advance_feed
from ml_core.registry.limits import check_choice
from ml_core.registry.missing import tenant_deleted, tenant_not_found
from ml_core.registry.pages import Page, every, read_page
from ml_core.registry.records import value_of

_COMPARED = 10_000
"""Names that a typo is compared with at most: about 0.1 s of one core."""
_NEAR = 0.85
"""How like two names are, of 1, that may be one with a typo: ``acmee`` and ``acme`` are by 0.89."""

_HAS_MOVED = sa.exists().where(placements.c.tenant_id == tenants.c.tenant_id, placements.c.has_moved)
_LISTED = (
    *(tenants.c[name] for name in ("tenant_id", "created_at", "deleted_at", "self_test_rows", "prediction_policy")),
    _HAS_MOVED.correlate(tenants).label("has_moved"),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TenantInfo:
    """A tenant.

    Attributes:
        tenant_id: Its name.
        created_at: When it was created, UTC.
        deleted_at: When it was deleted, UTC, or None.
        self_test_rows: Which rows its versions keep as their self-test.
        prediction_policy: What is kept of its predictions; ``PredictionRepository.set_policy`` changes it.
        has_moved: Whether its dedicated cell serves it, see ``ml_core.registry.placements``.
    """

    tenant_id: TenantId
    created_at: datetime
    deleted_at: datetime | None = None
    self_test_rows: SelfTestRows = SelfTestRows.TRAINING
    prediction_policy: PredictionPolicy = PredictionPolicy.DIGEST
    has_moved: bool = False

    @property
    def cell(self) -> str:
        """The cell that serves it."""
        return dedicated_cell(self.tenant_id) if self.has_moved else SHARED_CELL

    @property
    def is_deleted(self) -> bool:
        """Whether only its name is left."""
        return self.deleted_at is not None


class TenantRepository:
    """The tenants of the platform.

    Args:
        db: The registry.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db

    def create(self, tenant_id: str) -> TenantInfo:
        """Create a tenant in the shared cell.

        Raises:
            TenantExistsError: It exists, or it was deleted: the name of a deleted tenant is never used again.
        """
        name = TenantId(tenant_id)
        created = self._insert(name)
        if created is None:
            raise self._taken(name)
        return created

    def require_new(self, tenant_id: str) -> None:
        """Refuse the name of a tenant that exists or existed, as ``create`` does, without creating one."""
        if self.find(tenant_id) is not None:
            raise self._taken(TenantId(tenant_id))

    def _taken(self, tenant_id: TenantId) -> TenantExistsError:
        is_there = self.exists(tenant_id)
        return TenantExistsError(
            f"The tenant {tenant_id!s} exists already."
            if is_there
            else f"A tenant {tenant_id!s} was deleted, and its name is never used again.",
            remedy="Choose another name, or use this tenant." if is_there else "Choose another name.",
            tenant_id=tenant_id,
        )

    def ensure(self, tenant_id: str) -> TenantInfo:
        """A tenant; on the embedded server one that does not exist is created, and the log says so.

        Raises:
            TenantNotFoundError: It was deleted, or it does not exist on a database that others may share.
        """
        found = self.find(tenant_id)
        if found is not None and not found.is_deleted:
            return found
        name = TenantId(tenant_id)
        created = self._insert(name) if self._db.is_embedded else None
        if created is None:
            return self.get(name)  # refuses it, unless another session has created it
        # ``acme-2`` after ``acme-1`` is the next of a series and no typo.
        others = [known for known in self._others(name) if _without_digits(known) != _without_digits(name)]
        near = difflib.get_close_matches(name, others, n=1, cutoff=_NEAR)
        hint = f" Did you mean {near[0]}?" if near else ""
        _log.warning("%s", f"The tenant {name} did not exist and was created.{hint}")
        return created

    def _others(self, name: TenantId) -> Sequence[str]:
        """Tenants whose name may have been meant; none for a principal of one tenant, which must not learn others."""
        if not self._db.principal.is_operator:
            return []
        statement = (
            sa.select(tenants.c.tenant_id)
            .where(tenants.c.deleted_at.is_(None), tenants.c.tenant_id != name)
            .order_by(tenants.c.tenant_id)
            .limit(_COMPARED)
        )
        try:
            with self._db.serving() as connection:
                return connection.scalars(statement).all()
        except MLFrameworkError:  # a login that may not read other tenants gets no hint
            return []

    def _insert(self, tenant_id: TenantId) -> TenantInfo | None:
        statement = (
            insert(tenants)
            .values(tenant_id=tenant_id, feed_generation=advance_feed())
            .on_conflict_do_nothing()
            .returning(*_LISTED)
        )
        with self._db.tenant(tenant_id) as connection:
            row = connection.execute(statement).one_or_none()  # None: another session has created it
            if row is not None:
                journal.record(connection, tenant_id, "tenant.created", {"tenant_id": tenant_id})
        return None if row is None else value_of(TenantInfo, row)

    def find(self, tenant_id: str) -> TenantInfo | None:
        """A tenant, also one that was deleted; None if there never was one of this name."""
        name = TenantId(tenant_id)
        with self._db.tenant(name) as connection:
            row = connection.execute(sa.select(*_LISTED).where(tenants.c.tenant_id == name)).one_or_none()
        return None if row is None else value_of(TenantInfo, row)

    def exists(self, tenant_id: str) -> bool:
        """Whether there is such a tenant, which was not deleted."""
        found = self.find(tenant_id)
        return found is not None and not found.is_deleted

    def get(self, tenant_id: str) -> TenantInfo:
        """A tenant.

        Raises:
            TenantNotFoundError: There is no such tenant, or it was deleted; names the nearest to an operator.
        """
        found = self.find(tenant_id)
        if found is None:
            error = tenant_not_found(TenantId(tenant_id))
            error.remedy = f"{did_you_mean(tenant_id, self._others(TenantId(tenant_id)))}{error.remedy}"
            raise error
        if found.is_deleted:
            raise tenant_deleted(found.tenant_id)
        return found

    def update(self, tenant_id: str, *, self_test_rows: str) -> TenantInfo:
        """Change a tenant.

        Args:
            tenant_id: The tenant.
            self_test_rows: ``training`` or ``synthetic``: which rows the versions that are trained from now on keep as
                their self-test. Existing versions keep theirs.

        Raises:
            InvalidRequestError: There is no such kind of rows.
            PermissionDeniedError: The principal lacks the scope ``admin``.
        """
        name, rows = TenantId(tenant_id), check_choice(SelfTestRows, self_test_rows, "self_test_rows")
        changed = sa.update(tenants).where(tenants.c.tenant_id == name).values(self_test_rows=rows.value)
        with journal.writing(self._db, name) as connection:
            journal.record(connection, name, "tenant.self_test_rows_set", {"tenant_id": name}, {"rows": rows.value})
            return value_of(TenantInfo, connection.execute(changed.returning(*_LISTED)).one())

    def quota(self, tenant_id: str) -> PredictionQuota:
        """What a tenant may ask of its cell."""
        name = self.get(tenant_id).tenant_id
        with self._db.tenant(name) as connection:
            row = connection.execute(
                sa.select(prediction_quotas).where(prediction_quotas.c.tenant_id == name)
            ).one_or_none()
        return PredictionQuota() if row is None else value_of(PredictionQuota, row)

    def set_quota(self, tenant_id: str, quota: PredictionQuota) -> None:
        """Set what a tenant may ask of its cell; replicas apply it within about a second.

        Raises:
            PermissionDeniedError: The principal belongs to a tenant, or lacks the scope ``admin``.
        """
        name, values = TenantId(tenant_id), asdict(quota)
        put = insert(prediction_quotas).values(tenant_id=name, **values)
        with self._db.platform() as connection:
            journal.lock_tenant(connection, name)
            journal.record(connection, name, "tenant.quota_set", {"tenant_id": name}, values)
            connection.execute(put.on_conflict_do_update(index_elements=["tenant_id"], set_=values))
            stamped = sa.update(tenants).where(tenants.c.tenant_id == name)
            connection.execute(stamped.values(feed_generation=advance_feed()))

    def list(
        self, *, limit: int = 100, cursor: str | None = None, deleted: bool = False, name: str | None = None
    ) -> Page[TenantInfo]:
        """A page of the tenants of all cells by name, or of those that were deleted; read by the serving role.

        Args:
            limit: At most so many.
            cursor: Of the page before.
            deleted: Whether those that were deleted are listed, instead of the others.
            name: Only those whose name contains this text.
        """
        is_deleted = tenants.c.deleted_at.is_not(None) if deleted else tenants.c.deleted_at.is_(None)
        statement = sa.select(*_LISTED).where(is_deleted)
        if name is not None:
            statement = statement.where(tenants.c.tenant_id.icontains(name, autoescape=True))
        with self._db.serving() as connection:
            page = read_page(connection, statement, [tenants.c.tenant_id], limit=limit, cursor=cursor)
        return page.map(lambda row: value_of(TenantInfo, row))


def tenant_ids(db: DatabaseConnection, *, deleted: bool = False) -> Iterator[TenantId]:
    """All tenants, or all that were deleted, by name; read a page at a time."""
    listed = every(lambda limit, cursor: TenantRepository(db).list(limit=limit, cursor=cursor, deleted=deleted))
    return (tenant.tenant_id for tenant in listed)


def _without_digits(name: str) -> str:
    return "".join(character for character in name if not character.isdigit())
