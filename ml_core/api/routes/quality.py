"""Live quality and drift."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Query, Request
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import TenantAccess
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.quality import DriftReport, LiveVerdict, QualityReport
from ml_core.domain.api_key import Scope
from ml_core.domain.quality import MAX_DAYS
from ml_core.monitoring import Quality
from ml_core.registry.verdicts import VerdictRepository

T = TypeVar("T")

router = operations("quality", "/tenants/{tenant}")
_MODEL = "/models/{model}"

EnvironmentQuery = Annotated[str, Query(description="Whose requests.")]
DaysQuery = Annotated[int, Query(ge=1, le=MAX_DAYS, description="Whole days (UTC), the present one included.")]


@operation(router, "GET", f"{_MODEL}/quality", "quality.report", Scope.READ)
async def report_quality(
    access: TenantAccess,
    request: Request,
    model: str,
    environment: EnvironmentQuery = "production",
    days: DaysQuery = 7,
) -> QualityReport:
    """Metrics per version and day from the labels that arrived, beside those of the held-out rows of training."""
    return QualityReport.model_validate(
        await _in_turn(access, request, lambda quality: quality.report(model, environment, days=days))
    )


@operation(router, "GET", f"{_MODEL}/drift", "quality.drift", Scope.READ)
async def report_drift(
    access: TenantAccess,
    request: Request,
    model: str,
    environment: EnvironmentQuery = "production",
    days: DaysQuery = 7,
) -> DriftReport:
    """The inputs and predictions of the stable version, compared with the profile of its training."""
    return DriftReport.model_validate(
        await _in_turn(access, request, lambda quality: quality.drift(model, environment, days=days))
    )


@operation(router, "GET", "/verdicts", "quality.verdicts", Scope.READ)
def list_verdicts(
    access: TenantAccess,
    only_alerts: Annotated[bool, Query(description="Without those that have no alert.")] = False,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[LiveVerdict]:
    """List what the platform last found of each version that is served, by model and environment.

    It measures each about once an hour; a version that it has not measured yet is left out.
    """
    found = access.of(VerdictRepository).list(only_alerts=only_alerts, limit=limit, cursor=cursor)
    return Page[LiveVerdict].model_validate(found)


async def _in_turn(access: TenantAccess, request: Request, work: Callable[[Quality], T]) -> T:
    """Read days of the prediction log, which takes seconds where a day has a million rows, for few at a time."""
    async with request.app.state.services.report_work.of(access.tenant_id):
        return await run_in_threadpool(work, access.of(Quality))
