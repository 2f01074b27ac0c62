"""Models."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from ml_core.api.access import TenantAccess
from ml_core.api.operation import ArchivedQuery, CursorQuery, LimitQuery, NameQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.models import Model
from ml_core.api.schemas.trainings import TrainingCheck, TrainingFields
from ml_core.domain.api_key import Scope
from ml_core.domain.tenant_policies import SelfTestRows
from ml_core.domain.train_spec import TrainSpec
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.models import ModelRepository

router = operations("models", "/tenants/{tenant}/models")

_TABLE_IS_KEPT = (
    "The tenant's policy keeps training rows out of versions, but not out of datasets: a table that is uploaded is "
    "kept, with all its rows, at least as long as the versions that were trained on it."
)


@operation(router, "GET", "", "models.list", Scope.READ)
def list_models(
    access: TenantAccess,
    model_type: Annotated[str | None, Query(description="Only of this type.")] = None,
    name: NameQuery = None,
    include_archived: ArchivedQuery = False,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Model]:
    """List a tenant's models by name."""
    found = access.of(ModelRepository).list(
        model_type=model_type, name=name, include_archived=include_archived, limit=limit, cursor=cursor
    )
    return Page[Model].model_validate(found, from_attributes=True)


@operation(router, "POST", "/{model}/archive", "models.archive", Scope.TRAIN)
def archive_model(access: TenantAccess, model: str) -> None:
    """Hide a model with all its versions, until it is restored or collected."""
    access.of(ModelRepository).archive(model)


@operation(router, "POST", "/{model}/restore", "models.restore", Scope.TRAIN)
def restore_model(access: TenantAccess, model: str) -> None:
    """Show an archived model again."""
    access.of(ModelRepository).restore(model)


@operation(router, "DELETE", "/{model}", "models.delete", Scope.ADMIN)
def delete_model(access: TenantAccess, model: str) -> None:
    """Delete a model with all its versions, permanently."""
    access.of(ModelRepository).delete(model)


@operation(router, "POST", "/{model}/train/check", "models.check_training", Scope.TRAIN)
def check_training(access: TenantAccess, model: str, body: TrainingFields) -> TrainingCheck:
    """Check a training before its data is uploaded: names, rights and hyperparameters. Nothing is written."""
    # Imported late: only this operation needs the estimators in this process.
    from ml_core.training.trainer import Trainer

    Trainer(access.db, access.tenant_id).check_spec(model, TrainSpec.from_json(body.model_dump(exclude_unset=True)))
    tenant = TenantRepository(access.db).find(access.tenant_id)
    is_synthetic = tenant is not None and tenant.self_test_rows is SelfTestRows.SYNTHETIC
    return TrainingCheck(notes=[_TABLE_IS_KEPT] if is_synthetic else [])
