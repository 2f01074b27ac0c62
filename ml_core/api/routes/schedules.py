"""Schedules."""

from __future__ import annotations

from ml_core.api.access import TenantAccess
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.jobs import Job
from ml_core.api.schemas.schedules import NewSchedule, Schedule
from ml_core.domain.api_key import Scope
from ml_core.domain.job import JobKind
from ml_core.domain.retraining import OnDrift
from ml_core.jobs.kinds import SPECS
from ml_core.jobs.schedules import Schedules

router = operations("schedules", "/tenants/{tenant}/schedules")

_SCHEDULE = "/{schedule}"


@operation(router, "POST", "", "schedules.create", Scope.TRAIN, creates=True)
def create_schedule(access: TenantAccess, body: NewSchedule) -> Schedule:
    """Create a schedule, whose jobs are done on behalf of the caller. A job that would be refused now is refused."""
    spec = SPECS[JobKind(body.job.kind)].from_json(body.job.spec)
    options = {name: value for name, value in body.job.options.items() if name != "idempotency_key"}
    rule = None if body.on_drift is None else OnDrift.from_json(body.on_drift.model_dump())
    made = access.of(Schedules).create(
        body.name, body.cron, spec, timezone=body.timezone, options=options, on_drift=rule
    )
    return Schedule.model_validate(made)


@operation(router, "GET", "", "schedules.list", Scope.READ)
def list_schedules(access: TenantAccess, limit: LimitQuery = 100, cursor: CursorQuery = None) -> Page[Schedule]:
    """List schedules by name."""
    return Page[Schedule].model_validate(access.of(Schedules).list(limit=limit, cursor=cursor))


@operation(router, "GET", _SCHEDULE, "schedules.get", Scope.READ)
def get_schedule(access: TenantAccess, schedule: str) -> Schedule:
    """A schedule: when it is due, and what became of the last time."""
    return Schedule.model_validate(access.of(Schedules).get(schedule))


@operation(router, "POST", f"{_SCHEDULE}/pause", "schedules.pause", Scope.TRAIN)
def pause_schedule(access: TenantAccess, schedule: str) -> Schedule:
    """Submit no more jobs until it is resumed. Jobs that were submitted go on."""
    return Schedule.model_validate(access.of(Schedules).pause(schedule))


@operation(router, "POST", f"{_SCHEDULE}/resume", "schedules.resume", Scope.TRAIN)
def resume_schedule(access: TenantAccess, schedule: str) -> Schedule:
    """Go on with the next time from now."""
    return Schedule.model_validate(access.of(Schedules).resume(schedule))


@operation(router, "POST", f"{_SCHEDULE}/run-now", "schedules.run_now", Scope.TRAIN, creates=True)
def run_schedule_now(access: TenantAccess, schedule: str) -> Job:
    """Submit its job now, on behalf of the caller. Its times stay as they are."""
    return Job.model_validate(access.of(Schedules).run_now(schedule))


@operation(router, "DELETE", _SCHEDULE, "schedules.delete", Scope.TRAIN)
def delete_schedule(access: TenantAccess, schedule: str) -> None:
    """Delete a schedule. Jobs that were submitted go on."""
    access.of(Schedules).delete(schedule)
