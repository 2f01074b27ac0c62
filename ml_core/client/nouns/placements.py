"""Placements."""

from __future__ import annotations

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.placements import Bounds, NewPlacement, Placement
from ml_core.client.calls import Call, Mode, Noun, listing, operation
from ml_core.ids import TenantId

_SHARED_CELL = "/api/v1/platform/shared-cell"


class Placements(Noun[Mode]):
    """Which cell serves a tenant, and the bounds of cells; takes a key of the platform."""

    @operation
    def set(self, tenant_id: str, placement: NewPlacement) -> Call[Placement]:
        """Set where a tenant is served; it moves without a failed request."""
        return Call("PUT", _path(tenant_id), Placement, body=placement)

    @operation
    def get(self, tenant_id: str) -> Call[Placement]:
        """Where a tenant is served."""
        return Call("GET", _path(tenant_id), Placement)

    @listing
    def list(self) -> Call[Page[Placement]]:
        """The placements that were set, by tenant. Other tenants are in the shared cell."""
        return Call("GET", "/api/v1/placements", Page[Placement])

    @operation
    def shared_cell(self) -> Call[Bounds]:
        """The bounds of the shared cell."""
        return Call("GET", _SHARED_CELL, Bounds)

    @operation
    def set_shared_cell(self, bounds: Bounds) -> Call[Bounds]:
        """Set the bounds of the shared cell."""
        return Call("PUT", _SHARED_CELL, Bounds, body=bounds)


def _path(tenant_id: str) -> str:
    return f"/api/v1/tenants/{TenantId(tenant_id)}/placement"
