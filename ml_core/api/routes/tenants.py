"""Tenants."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from ml_core.api.access import PlatformAccess, TenantAccess
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.tenants import DeletedTenant, NewTenants, PredictionQuota, Tenant, TenantChanges
from ml_core.domain import tenant_policies
from ml_core.domain.api_key import Scope
from ml_core.models.store import platform_store
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.tenants import TenantRepository

router = operations("tenants", "/tenants")


@operation(router, "POST", "", "tenants.create", Scope.ADMIN, creates=True)
def create_tenants(db: PlatformAccess, body: NewTenants) -> list[Tenant]:
    """Create tenants in the shared cell: all of them, or none if a name can't be taken."""
    tenants = TenantRepository(db)
    for tenant_id in body.tenant_ids:
        tenants.require_new(tenant_id)
    return [Tenant.model_validate(tenants.create(tenant_id)) for tenant_id in body.tenant_ids]


@operation(router, "GET", "", "tenants.list", Scope.READ)
def list_tenants(
    db: PlatformAccess,
    deleted: Annotated[bool, Query(description="Those that were deleted, whose names stay taken.")] = False,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Tenant]:
    """List the tenants by name."""
    return Page[Tenant].model_validate(TenantRepository(db).list(deleted=deleted, limit=limit, cursor=cursor))


@operation(router, "GET", "/{tenant}", "tenants.get", Scope.READ)
def get_tenant(access: TenantAccess) -> Tenant:
    """A tenant."""
    return Tenant.model_validate(TenantRepository(access.db).get(access.tenant_id))


@operation(router, "PATCH", "/{tenant}", "tenants.update", Scope.ADMIN)
def update_tenant(access: TenantAccess, body: TenantChanges) -> Tenant:
    """Change what the platform keeps for a tenant."""
    changed = TenantRepository(access.db).update(access.tenant_id, self_test_rows=body.self_test_rows)
    return Tenant.model_validate(changed)


@operation(router, "GET", "/{tenant}/quota", "tenants.quota", Scope.READ)
def get_quota(access: TenantAccess) -> PredictionQuota:
    """What a tenant may ask of the cell that serves it."""
    return PredictionQuota.model_validate(TenantRepository(access.db).quota(access.tenant_id))


@operation(router, "PUT", "/{tenant}/quota", "tenants.set_quota", Scope.ADMIN)
def set_quota(access: TenantAccess, body: PredictionQuota) -> PredictionQuota:
    """Set what a tenant may ask of its cell. Replicas apply it within a second or so. Takes a key of the platform."""
    quota = tenant_policies.PredictionQuota(**body.model_dump())
    TenantRepository(access.db).set_quota(access.tenant_id, quota)
    return get_quota(access)


@operation(router, "DELETE", "/{tenant}", "tenants.delete", Scope.ADMIN)
def delete_tenant(access: TenantAccess) -> DeletedTenant:
    """Delete a tenant with everything that it has, permanently. Takes a key of the platform."""
    access.db.principal.enter(None)
    report = TenantDeletion(access.db, platform_store(access.db.settings)).delete(access.tenant_id)
    return DeletedTenant.model_validate(report)
