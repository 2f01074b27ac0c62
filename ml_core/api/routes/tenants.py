"""Tenants."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, status

from ml_core.api.access import PlatformAccess, TenantAccess, needs
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.tenants import DeletedTenant, NewTenants, Tenant, TenantChanges
from ml_core.domain.api_key import Scope
from ml_core.models.store import platform_store
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.tenants import TenantRepository

router = operations("tenants", "/tenants")


@router.post("", operation_id="tenants.create", openapi_extra=needs(Scope.ADMIN), status_code=status.HTTP_201_CREATED)
def create_tenants(db: PlatformAccess, body: NewTenants) -> list[Tenant]:
    """Create tenants in the shared cell: all of them, or none if a name can't be taken."""
    tenants = TenantRepository(db)
    for tenant_id in body.tenant_ids:
        tenants.require_new(tenant_id)
    return [Tenant.model_validate(tenants.create(tenant_id)) for tenant_id in body.tenant_ids]


@router.get("", operation_id="tenants.list", openapi_extra=needs(Scope.READ))
def list_tenants(
    db: PlatformAccess,
    deleted: Annotated[bool, Query(description="Those that were deleted, whose names stay taken.")] = False,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Tenant]:
    """List the tenants by name."""
    return Page[Tenant].model_validate(TenantRepository(db).list(deleted=deleted, limit=limit, cursor=cursor))


@router.get("/{tenant}", operation_id="tenants.get", openapi_extra=needs(Scope.READ))
def get_tenant(access: TenantAccess) -> Tenant:
    """A tenant."""
    return Tenant.model_validate(TenantRepository(access.db).get(access.tenant_id))


@router.patch("/{tenant}", operation_id="tenants.update", openapi_extra=needs(Scope.ADMIN))
def update_tenant(access: TenantAccess, body: TenantChanges) -> Tenant:
    """Change what the platform keeps for a tenant."""
    changed = TenantRepository(access.db).update(access.tenant_id, self_test_rows=body.self_test_rows)
    return Tenant.model_validate(changed)


@router.delete("/{tenant}", operation_id="tenants.delete", openapi_extra=needs(Scope.ADMIN))
def delete_tenant(access: TenantAccess) -> DeletedTenant:
    """Delete a tenant with everything that it has, permanently. Takes a key of the platform."""
    access.db.principal.enter(None)
    report = TenantDeletion(access.db, platform_store(access.db.settings)).delete(access.tenant_id)
    return DeletedTenant.model_validate(report)
