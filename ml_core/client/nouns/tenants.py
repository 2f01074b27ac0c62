"""The platform, its tenants, where they are served, and their keys."""

from __future__ import annotations

from collections.abc import Sequence

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.keys import CreatedKey, Key, NewKey
from ml_core.api.schemas.placements import Bounds, NewPlacement, Placement
from ml_core.api.schemas.platform import ActiveJob, CellTraffic, PlatformHealth, TenantAlerts
from ml_core.api.schemas.tenants import DeletedTenant, NewTenants, PredictionQuota, Tenant, TenantChanges
from ml_core.client.calls import Call, Mode, Noun, list_of, listing, operation, quoted
from ml_core.domain.keywords import texts
from ml_core.domain.tenant_policies import SelfTestRows
from ml_core.ids import TenantId

_SHARED_CELL = "/api/v1/platform/shared-cell"


class Tenants(Noun[Mode]):
    """The tenants of a platform. All but ``get``, ``update`` and ``quota`` take a key of the platform."""

    @operation
    def create(self, tenant_ids: Sequence[str]) -> Call[list_of[Tenant]]:
        """Create tenants in the shared cell: all of them, or none if a name can't be taken."""
        body = NewTenants(tenant_ids=texts("tenant_ids", tenant_ids))
        return Call("POST", "/api/v1/tenants", list_of[Tenant], body=body)

    @listing
    def list(self, *, deleted: bool = False, name: str | None = None) -> Call[Page[Tenant]]:
        """The tenants by name.

        Args:
            deleted: Those that were deleted, whose names stay taken.
            name: Only those with this text in the name.
        """
        return Call("GET", "/api/v1/tenants", Page[Tenant], {"deleted": deleted or None, "name": name})

    @operation
    def get(self, tenant_id: str) -> Call[Tenant]:
        """A tenant."""
        return Call("GET", f"/api/v1/tenants/{TenantId(tenant_id)}", Tenant)

    @operation
    def update(self, tenant_id: str, *, self_test_rows: SelfTestRows | str) -> Call[Tenant]:
        """Change which rows the tenant's versions keep as their self-test."""
        body = TenantChanges(self_test_rows=SelfTestRows(self_test_rows))
        return Call("PATCH", f"/api/v1/tenants/{TenantId(tenant_id)}", Tenant, body=body)

    @operation
    def quota(self, tenant_id: str) -> Call[PredictionQuota]:
        """What a tenant may ask of the cell that serves it."""
        return Call("GET", f"/api/v1/tenants/{TenantId(tenant_id)}/quota", PredictionQuota)

    @operation
    def set_quota(self, tenant_id: str, quota: PredictionQuota) -> Call[PredictionQuota]:
        """Set what a tenant may ask of its cell, which its replicas apply within a second or so."""
        return Call("PUT", f"/api/v1/tenants/{TenantId(tenant_id)}/quota", PredictionQuota, body=quota)

    @operation
    def delete(self, tenant_id: str) -> Call[DeletedTenant]:
        """Delete a tenant with everything that it has, permanently."""
        return Call("DELETE", f"/api/v1/tenants/{TenantId(tenant_id)}", DeletedTenant, timeout_s=3600)


class Placements(Noun[Mode]):
    """Which cell serves a tenant, and the bounds of cells; takes a key of the platform."""

    @operation
    def set(self, tenant_id: str, placement: NewPlacement) -> Call[Placement]:
        """Set where a tenant is served; it moves without a failed request."""
        return Call("PUT", f"/api/v1/tenants/{TenantId(tenant_id)}/placement", Placement, body=placement)

    @operation
    def get(self, tenant_id: str) -> Call[Placement]:
        """Where a tenant is served."""
        return Call("GET", f"/api/v1/tenants/{TenantId(tenant_id)}/placement", Placement)

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


class Keys(Noun[Mode]):
    """The API keys of a tenant."""

    @operation
    def create(self, scopes: Sequence[str], *, name: str = "unnamed") -> Call[CreatedKey]:
        """Create a key; the answer is the only place where the whole key is shown.

        Args:
            scopes: Of a tenant's key ``predict``, ``read``, ``label``, ``train``, ``promote``, ``approve``, ``admin``,
                or ``promote:<environment>``; of a key of the platform ``admin`` or ``read``.
            name: What it is for.
        """
        return Call("POST", self._path, CreatedKey, body=NewKey(name=name, scopes=texts("scopes", scopes)))

    @listing
    def list(self) -> Call[Page[Key]]:
        """The keys, revoked ones too."""
        return Call("GET", self._path, Page[Key])

    @operation
    def revoke(self, key_id: str) -> Call[Key]:
        """Revoke a key: its requests are refused, those of a tenant's key about a second later at the latest."""
        return Call("POST", f"{self._path}/{quoted(key_id)}/revoke", Key)

    @property
    def _path(self) -> str:
        return f"{self._root}/keys"


class PlatformKeys(Keys[Mode]):
    """The API keys of the platform, which act in all tenants; takes a key of the platform with the scope admin."""

    @property
    def _path(self) -> str:
        return "/api/v1/platform/keys"


class Platform(Noun[Mode]):
    """The platform itself; takes a key of the platform."""

    @operation
    def health(self) -> Call[PlatformHealth]:
        """The cells with their replicas and what these serve, and whether registry and store are usable."""
        return Call("GET", "/api/v1/platform", PlatformHealth)

    @operation
    def jobs(self) -> Call[list_of[ActiveJob]]:
        """The first hundred jobs of all tenants that run or wait, running ones first."""
        return Call("GET", "/api/v1/platform/jobs", list_of[ActiveJob])

    @operation
    def traffic(self) -> Call[list_of[CellTraffic]]:
        """Requests, errors and latency of each cell in the last 15 minutes."""
        return Call("GET", "/api/v1/platform/traffic", list_of[CellTraffic])

    @operation
    def alerts(self) -> Call[list_of[TenantAlerts]]:
        """The hundred tenants with the most alerts of quality and drift."""
        return Call("GET", "/api/v1/platform/alerts", list_of[TenantAlerts])
