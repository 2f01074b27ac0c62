"""Models."""

from __future__ import annotations

import asyncio
import functools
from typing import Annotated

from fastapi import Query, Request
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import Services, TenantAccess, caller
from ml_core.api.operation import ArchivedQuery, CursorQuery, LimitQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.models import Model
from ml_core.api.schemas.runs import Run
from ml_core.api.schemas.trainings import NewTraining, Training, TrainingCheck, TrainingFields, TrainingReport
from ml_core.api.trainings import Training as StartedTraining
from ml_core.api.trainings import begun
from ml_core.domain import training_report as domain
from ml_core.domain.api_key import Scope, bearer_token
from ml_core.domain.run import RunStatus
from ml_core.domain.tenant_policies import SelfTestRows
from ml_core.domain.train_spec import TrainSpec
from ml_core.exceptions import RequestTimeoutError
from ml_core.ids import ModelId, RunId
from ml_core.registry.authentication import is_token
from ml_core.registry.runs import RunRepository
from ml_core.registry.runs.lifecycle import run_not_found
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.training.assignment import Assignment

router = operations("models", "/tenants/{tenant}/models")

_TABLE_IS_KEPT = (
    "The tenant's policy keeps training rows out of versions, but not out of datasets: a table that is uploaded is "
    "kept, with all its rows, at least as long as the versions that were trained on it."
)
WaitQuery = Annotated[float, Query(ge=0, le=60, description="Wait for its end at most so long.")]
_TOLD_WITHIN_S = 2.0


@operation(router, "GET", "", "models.list", Scope.READ)
def list_models(
    access: TenantAccess,
    model_type: Annotated[str | None, Query(description="Only of this type.")] = None,
    include_archived: ArchivedQuery = False,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Model]:
    """List a tenant's models by name."""
    found = access.of(ModelRepository).list(
        model_type=model_type, include_archived=include_archived, limit=limit, cursor=cursor
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


@operation(router, "POST", "/{model}/train", "models.train", Scope.TRAIN, creates=True)
async def train_model(
    access: TenantAccess, model: str, body: NewTraining, request: Request, wait_s: WaitQuery = 0.0
) -> Training:
    """Train a model on a registered dataset, as a run that makes a version.

    The answer is there when the training was checked and has begun, or after `wait_s` if it ends by then. What is wrong
    with it is answered as an error. `models.training` waits for its end. Where the client leaves before it is answered,
    the training is cancelled.
    """
    spec = TrainSpec.from_json(body.model_dump(exclude_unset=True, exclude={"run_id"}))
    run_id = RunId.new() if body.run_id is None else RunId(body.run_id)
    training = _services(request).trainings.start(
        Assignment(access.db.principal, request.state.request_id, access.tenant_id, ModelId(model), spec, run_id),
        functools.partial(_check_key, request),
    )
    try:
        await begun(training, request.is_disconnected)
        answer = await _ended(access, request, run_id, wait_s)
        is_gone = await request.is_disconnected()
    except (asyncio.CancelledError, RequestTimeoutError):
        training.cancel()
        raise
    if is_gone:
        training.cancel()
    return answer


@operation(router, "POST", "/{model}/train/check", "models.check_training", Scope.TRAIN)
def check_training(access: TenantAccess, model: str, body: TrainingFields) -> TrainingCheck:
    """Check a training before its data is uploaded: names, rights and hyperparameters. Nothing is written."""
    # Imported late: only this operation needs the estimators in this process.
    from ml_core.training.trainer import Trainer

    Trainer(access.db, access.tenant_id).check_spec(model, TrainSpec.from_json(body.model_dump(exclude_unset=True)))
    tenant = TenantRepository(access.db).find(access.tenant_id)
    is_synthetic = tenant is not None and tenant.self_test_rows is SelfTestRows.SYNTHETIC
    return TrainingCheck(notes=[_TABLE_IS_KEPT] if is_synthetic else [])


@operation(router, "GET", "/{model}/trainings/{run}", "models.training", Scope.READ)
async def get_training(
    access: TenantAccess, model: str, run: str, request: Request, wait_s: WaitQuery = 0.0
) -> Training:
    """The run of a training, once it has ended or after `wait_s`. Why a training failed is answered as its error."""
    found = await run_in_threadpool(access.of(RunRepository).get, run)
    if found.model_id != ModelId(model):
        raise run_not_found(access.tenant_id, run)
    return await _ended(access, request, run, wait_s)


async def _ended(access: TenantAccess, request: Request, run_id: str, wait_s: float) -> Training:
    """The state of a training once it has ended, or after so many seconds; raises why it failed."""
    training, report = _services(request).trainings.find(access.tenant_id, run_id), None
    if training is not None:
        report = await _report(training, wait_s)
    run = await run_in_threadpool(access.of(RunRepository).get, run_id)
    if training is not None and report is None and run.status is not RunStatus.RUNNING:
        # The registry learns of the end a moment before this process does.
        report = await _report(training, _TOLD_WITHIN_S)
    return Training(
        run=Run.model_validate(run), report=None if report is None else TrainingReport.model_validate(report)
    )


async def _report(training: StartedTraining, wait_s: float) -> domain.TrainingReport | None:
    await asyncio.wait([training.finished], timeout=wait_s)
    is_known = training.finished.done() and not training.finished.cancelled()
    return training.finished.result() if is_known else None


def _check_key(request: Request) -> None:
    """Refuse a key that was revoked while its training waited.

    A token can't be revoked, and that it expired meanwhile takes no right away: it was valid when it was sent.
    """
    authorization = request.headers.get("authorization")
    if authorization is not None and not is_token(bearer_token(authorization)):
        caller(request).principal.require(Scope.TRAIN)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services
