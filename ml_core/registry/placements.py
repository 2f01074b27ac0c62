"""Placements: which cell serves a tenant. The platform sets them; the control loop moves the tenant.

The shared cell follows a tenant until ``move`` takes it away, and again from the ``move`` back. The dedicated cell
follows its tenant all the time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection
from sqlalchemy.sql.dml import ReturningInsert

from ml_core.database.tables import PLATFORM, placements, tenants
from ml_core.domain.api_key import Scope
from ml_core.domain.placement import (
    IDLE_AFTER,
    NOTED_EVERY,
    SHARED_CELL,
    PlacedTenant,
    Placement,
    Placements,
    Readiness,
    dedicated_cell,
)
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.journal import advance_feed
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import OfPlatform, value_of
from ml_core.registry.tenants import TenantRepository

# A replica is ready for a tenant if it has applied every change of the tenant and has none of its versions pending. A
# version that its report has no room for may be the tenant's. LIMIT makes the tenants be found by their index: the
# placements are too few to be analyzed.
_PLACED = sa.text("""
SELECT p.*, r.*, p.min_replicas = 0 AND p.requested_at < now() - :idle_after AS is_idle FROM mlcore.placements p
CROSS JOIN LATERAL (SELECT feed_generation FROM mlcore.tenants t WHERE t.tenant_id = p.tenant_id
  AND t.deleted_at IS NULL LIMIT 1) t
CROSS JOIN LATERAL (SELECT greatest(t.feed_generation,
  (SELECT max(feed_generation) FROM mlcore.environments e WHERE e.tenant_id = p.tenant_id),
  (SELECT max(feed_generation) FROM mlcore.api_keys k WHERE k.tenant_id = p.tenant_id)) AS generation) wanted
CROSS JOIN LATERAL (
  SELECT count(*) FILTER (WHERE is_own) AS own_live, count(*) FILTER (WHERE is_own AND is_ready) AS own_ready,
    count(*) FILTER (WHERE NOT is_own) AS shared_live, count(*) FILTER (WHERE NOT is_own AND is_ready) AS shared_ready
  FROM (
    SELECT r.cell <> 'shared' AS is_own,
      r.epoch = c.epoch AND r.is_current AND r.generation >= wanted.generation AND r.unlisted = 0 AND NOT EXISTS (
        SELECT 1 FROM mlcore.replica_pending q WHERE q.cell = r.cell AND q.replica_id = r.replica_id
          AND q.tenant_id = p.tenant_id AND q.state IN ('loading', 'failed')) AS is_ready
    FROM mlcore.replica_reports r, mlcore.feed_clock c
    WHERE r.expires_at > now() AND r.cell IN ('shared', 't-' || p.tenant_id)
  ) reports
) r
ORDER BY p.tenant_id
""").bindparams(idle_after=IDLE_AFTER + NOTED_EVERY)


@dataclass(frozen=True, slots=True)
class PlacementInfo:
    """The placement of a tenant.

    Attributes:
        has_moved: Whether the dedicated cell serves the tenant, and the shared cell no longer does.
        updated_at: When the placement was set, UTC; None: never.
        updated_by: Who set it.
    """

    tenant_id: TenantId
    is_dedicated: bool
    min_replicas: int
    max_replicas: int
    target_ongoing: int
    has_moved: bool = False
    updated_at: datetime | None = None
    updated_by: str | None = None

    @property
    def cell(self) -> str:
        """The cell that serves the tenant: during a move, and while nothing is asked, not the placement's."""
        return dedicated_cell(self.tenant_id) if self.has_moved else SHARED_CELL


class PlacementRepository(OfPlatform):
    """The placements of all tenants. All methods take a principal of the platform."""

    def get(self, tenant_id: str) -> PlacementInfo:
        """The placement of a tenant; the shared cell unless it was set."""
        tenant = TenantRepository(self._db).get(tenant_id).tenant_id
        with self._db.platform() as connection:
            row = connection.execute(sa.select(placements).where(placements.c.tenant_id == tenant)).one_or_none()
        return PlacementInfo(tenant, **asdict(Placement())) if row is None else value_of(PlacementInfo, row)

    def set(self, tenant_id: str, placement: Placement) -> PlacementInfo:
        """Set where a tenant is served. The control loop moves it, without a failed request.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``admin``.
            InvalidRequestError: It has bounds, and no cell that they could be of.
        """
        name, values = TenantId(tenant_id), asdict(placement)
        if not placement.is_dedicated and placement != Placement():
            raise InvalidRequestError(
                "The placement has bounds, and they would be those of no cell: the shared cell serves the tenant.",
                remedy="Leave them out, give the tenant a dedicated cell, or set those of the shared cell.",
                tenant_id=name,
                field="is_dedicated",
            )
        with self._db.platform() as connection:
            journal.lock_tenant(connection, name)
            journal.record(connection, name, "placement.set", {"tenant_id": name}, values)
            return value_of(PlacementInfo, connection.execute(_put(name, placement)).one())

    def list(self, *, limit: int = 100, cursor: str | None = None) -> Page[PlacementInfo]:
        """A page of the placements that were set, by tenant."""
        statement = sa.select(placements).where(placements.c.tenant_id != PLATFORM)
        with self._db.platform() as connection:
            page = read_page(connection, statement, [placements.c.tenant_id], limit=limit, cursor=cursor)
        return page.map(lambda row: value_of(PlacementInfo, row))

    def shared(self) -> Placement:
        """The bounds of the shared cell; ``MLCORE_REPLICAS`` unless they were set."""
        with self._db.platform() as connection:
            return self._shared(connection)

    def _shared(self, connection: Connection) -> Placement:
        row = connection.execute(sa.select(placements).where(placements.c.tenant_id == PLATFORM)).one_or_none()
        replicas = self._db.settings.platform.replicas
        return Placement(min_replicas=replicas, max_replicas=replicas) if row is None else value_of(Placement, row)

    def set_shared(self, bounds: Placement) -> Placement:
        """Set the bounds of the shared cell.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``admin``.
        """
        self._db.principal.require(Scope.ADMIN)
        with self._db.platform() as connection:
            return value_of(Placement, connection.execute(_put(PLATFORM, bounds)).one())

    def placed(self) -> Placements:
        """All placements, and what the live replicas have loaded of each tenant: what the control loop plans with."""
        with self._db.serving() as connection:
            rows = connection.execute(_PLACED).all()
            return Placements(
                self._shared(connection),
                tuple(
                    PlacedTenant(
                        TenantId(row.tenant_id),
                        value_of(Placement, row),
                        row.has_moved,
                        Readiness(row.own_live, row.own_ready),
                        Readiness(row.shared_live, row.shared_ready),
                        row.is_idle,
                    )
                    for row in rows
                ),
            )

    def move(self, tenant_id: str, *, to_dedicated: bool) -> None:
        """Let the shared cell stop to follow a tenant, or follow it again."""
        name = TenantId(tenant_id)
        cell = dedicated_cell(name) if to_dedicated else SHARED_CELL
        moved = placements.update().where(placements.c.tenant_id == name).values(has_moved=to_dedicated)
        with self._db.platform() as connection:
            journal.lock_tenant(connection, name)
            journal.record(connection, name, "placement.moved", {"tenant_id": name}, {"cell": cell})
            connection.execute(moved)
            stamped = tenants.update().where(tenants.c.tenant_id == name)
            connection.execute(stamped.values(feed_generation=advance_feed()))


def _put(name: str, placement: Placement) -> ReturningInsert[*tuple[object, ...]]:
    statement = insert(placements).values(tenant_id=name, updated_by="", **asdict(placement))
    stamped = {column: statement.excluded[column] for column in ("requested_at", "updated_at", "updated_by")}
    changed = {**asdict(placement), **stamped}
    return statement.on_conflict_do_update(index_elements=["tenant_id"], set_=changed).returning(placements)
