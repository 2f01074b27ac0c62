"""Placements."""

from __future__ import annotations

from ml_core.api.access import PlatformAccess, TenantAccess
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas import placements as schemas
from ml_core.api.schemas.base import Page
from ml_core.domain.api_key import Scope
from ml_core.domain.placement import Placement
from ml_core.registry.placements import PlacementRepository

router = operations("placements", "")


@operation(router, "GET", "/placements", "placements.list", Scope.READ)
def list_placements(db: PlatformAccess, limit: LimitQuery = 100, cursor: CursorQuery = None) -> Page[schemas.Placement]:
    """List the placements that were set, by tenant. Other tenants are in the shared cell."""
    return Page[schemas.Placement].model_validate(PlacementRepository(db).list(limit=limit, cursor=cursor))


@operation(router, "GET", "/tenants/{tenant}/placement", "placements.get", Scope.READ)
def get_placement(access: TenantAccess) -> schemas.Placement:
    """Where a tenant is served. Takes a key of the platform."""
    return schemas.Placement.model_validate(PlacementRepository(access.db).get(access.tenant_id))


@operation(router, "PUT", "/tenants/{tenant}/placement", "placements.set", Scope.ADMIN)
def set_placement(access: TenantAccess, body: schemas.NewPlacement) -> schemas.Placement:
    """Set where a tenant is served; it moves without a failed request. Takes a key of the platform."""
    placed = PlacementRepository(access.db).set(access.tenant_id, Placement(**body.model_dump()))
    return schemas.Placement.model_validate(placed)


@operation(router, "GET", "/platform/shared-cell", "placements.shared_cell", Scope.READ)
def get_shared_cell(db: PlatformAccess) -> schemas.Bounds:
    """The bounds of the shared cell."""
    return schemas.Bounds.model_validate(PlacementRepository(db).shared())


@operation(router, "PUT", "/platform/shared-cell", "placements.set_shared_cell", Scope.ADMIN)
def set_shared_cell(db: PlatformAccess, body: schemas.Bounds) -> schemas.Bounds:
    """Set the bounds of the shared cell."""
    return schemas.Bounds.model_validate(PlacementRepository(db).set_shared(Placement(**body.model_dump())))
