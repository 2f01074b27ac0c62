"""Models."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, status
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import Services, TenantAccess, needs
from ml_core.api.operation import ArchivedQuery, CursorQuery, LimitQuery, operations
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.models import Model
from ml_core.api.schemas.runs import Run
from ml_core.api.schemas.trainings import NewTraining
from ml_core.api.trainings import within
from ml_core.domain.api_key import Scope
from ml_core.domain.train_spec import TrainSpec
from ml_core.ids import ModelId
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.training.worker import Assignment

router = operations("models", "/tenants/{tenant}/models")

_MAX_WAIT_S = 60.0


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


@router.post(
    "/{model}/train", operation_id="models.train", openapi_extra=needs(Scope.TRAIN), status_code=status.HTTP_201_CREATED
)
async def train_model(
    access: TenantAccess,
    model: str,
    body: NewTraining,
    request: Request,
    wait_s: Annotated[float, Query(ge=0, le=_MAX_WAIT_S, description="Wait for its end at most so long.")] = 0.0,
) -> Run:
    """Train a model on a registered dataset, as a run that makes a version.

    The answer is there when the training was checked and has begun, or after `wait_s` if it ends by then. What is wrong
    with it is answered as an error; what fails later is in the run's `error`.
    """
    services: Services = request.app.state.services
    spec = TrainSpec.from_json(body.model_dump(exclude_unset=True))
    training = services.trainings.start(
        Assignment(access.db.principal, request.state.request_id, access.tenant_id, ModelId(model), spec)
    )
    run_id = await training.started
    await within(wait_s, training.finished)
    return Run.model_validate(await run_in_threadpool(RunRepository(access.db, access.tenant_id).get, run_id))
