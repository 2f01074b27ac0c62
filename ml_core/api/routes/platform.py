"""The platform itself."""

from __future__ import annotations

from fastapi import APIRouter

from ml_core.api.access import PlatformAccess
from ml_core.api.operation import operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.platform import (
    ActiveJob,
    Alive,
    Cell,
    CellTraffic,
    PlatformHealth,
    Replica,
    TenantAlerts,
)
from ml_core.database.tables import SCHEMA_REVISION
from ml_core.domain.api_key import Scope
from ml_core.domain.placement import SHARED_CELL
from ml_core.exceptions import ModelLoadError
from ml_core.models.store import platform_store
from ml_core.registry.jobs import JobQueue
from ml_core.registry.replicas import cell_traffic, seen_replicas
from ml_core.registry.verdicts import alerting_tenants
from ml_core.settings import Settings

router = APIRouter(tags=["platform"])
_guarded = operations("platform", "/platform")
_MAX_ACTIVE = 100
_MAX_ALERTING = 100


@router.get("/healthz", operation_id="platform.alive", openapi_extra={"security": []})
async def alive() -> Alive:
    """Whether the control API answers. Takes no key, and asks neither the registry nor the store."""
    return Alive()


@operation(_guarded, "GET", "", "platform.health", Scope.READ)
def health(db: PlatformAccess) -> PlatformHealth:
    """Show the cells with their replicas and what these serve, and whether registry and store are usable."""
    revision = db.current_revision()
    replicas = seen_replicas(db)
    cells = sorted({SHARED_CELL, *(each.cell for each in replicas)})
    problem = _problem_of_store(db.settings)
    is_whole = not any(each.is_behind or each.failed for each in replicas)
    is_serving = is_whole and any(each.cell == SHARED_CELL for each in replicas)
    return PlatformHealth(
        status="running" if is_serving and problem is None and revision == SCHEMA_REVISION else "degraded",
        schema_revision=revision,
        wanted_schema_revision=SCHEMA_REVISION,
        is_store_reachable=problem is None,
        store_problem=problem,
        cells=[
            Cell(name=cell, replicas=[Replica.model_validate(each) for each in replicas if each.cell == cell])
            for cell in cells
        ],
    )


@operation(_guarded, "GET", "/jobs", "platform.jobs", Scope.READ)
def list_active_jobs(db: PlatformAccess) -> list[ActiveJob]:
    """The first hundred jobs of all tenants that run or wait, running ones first."""
    return [ActiveJob.model_validate(job) for job in JobQueue(db).active(_MAX_ACTIVE)]


@operation(_guarded, "GET", "/traffic", "platform.traffic", Scope.READ)
def show_traffic(db: PlatformAccess) -> list[CellTraffic]:
    """Requests, errors and latency of the fifty busiest cells in the last 15 minutes, as their replicas report them.

    A replica reports an interval within ten seconds after its end; the last two are left out.
    """
    return [CellTraffic(cell=cell, points=points) for cell, points in cell_traffic(db).items()]


@operation(_guarded, "GET", "/alerts", "platform.alerts", Scope.READ)
def list_alerting_tenants(db: PlatformAccess) -> list[TenantAlerts]:
    """The hundred tenants with the most alerts of quality and drift, as `quality.verdicts` has them."""
    return [TenantAlerts.model_validate(each) for each in alerting_tenants(db, _MAX_ALERTING)]


def _problem_of_store(settings: Settings) -> str | None:
    try:
        platform_store(settings).check()
    except ModelLoadError as error:
        return error.cause
    return None


router.include_router(_guarded)
