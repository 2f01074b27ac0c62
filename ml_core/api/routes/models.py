"""Models."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, status

from ml_core.api.access import TenantAccess, needs
from ml_core.api.operation import ArchivedQuery, CursorQuery, LimitQuery, operations
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.models import Model
from ml_core.domain.api_key import Scope
from ml_core.registry.versions.models import ModelRepository

router = operations("models", "/tenants/{tenant}/models")


@router.get("", operation_id="models.list", openapi_extra=needs(Scope.READ))
def list_models(
    access: TenantAccess,
    model_type: Annotated[str | None, Query(description="Only of this type.")] = None,
    include_archived: ArchivedQuery = False,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Model]:
    """List a tenant's models by name."""
    found = ModelRepository(access.db, access.tenant_id).list(
        model_type=model_type, include_archived=include_archived, limit=limit, cursor=cursor
    )
    return Page[Model].model_validate(found, from_attributes=True)


@router.post(
    "/{model}/archive",
    operation_id="models.archive",
    openapi_extra=needs(Scope.TRAIN),
    status_code=status.HTTP_204_NO_CONTENT,
)
def archive_model(access: TenantAccess, model: str) -> None:
    """Hide a model with all its versions, until it is restored or collected."""
    ModelRepository(access.db, access.tenant_id).archive(model)


@router.post(
    "/{model}/restore",
    operation_id="models.restore",
    openapi_extra=needs(Scope.TRAIN),
    status_code=status.HTTP_204_NO_CONTENT,
)
def restore_model(access: TenantAccess, model: str) -> None:
    """Show an archived model again."""
    ModelRepository(access.db, access.tenant_id).restore(model)


@router.delete(
    "/{model}", operation_id="models.delete", openapi_extra=needs(Scope.ADMIN), status_code=status.HTTP_204_NO_CONTENT
)
def delete_model(access: TenantAccess, model: str) -> None:
    """Delete a model with all its versions, permanently."""
    ModelRepository(access.db, access.tenant_id).delete(model)
