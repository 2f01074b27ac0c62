"""Jobs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Annotated

from fastapi import Query, Request
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import Services, TenantAccess
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas import jobs as schemas
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.jobs import AnyNewJob, Job, JobLog, JobPlan, JobShare, JobToPlan
from ml_core.domain import job as domain
from ml_core.domain.api_key import Scope
from ml_core.domain.job import JobKind, JobQuota, JobState
from ml_core.exceptions import error_from_json
from ml_core.jobs.kinds import SPECS
from ml_core.jobs.submission import Jobs
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.jobs.waiting import why_waiting

router = operations("jobs", "/tenants/{tenant}")

_JOB = "/jobs/{job}"
_LOOK_EVERY_S = 0.25

WaitQuery = Annotated[float, Query(ge=0, le=60, description="Wait for its end at most so long.")]


@operation(router, "POST", "/jobs", "jobs.submit", Scope.TRAIN, creates=True)
def submit_job(access: TenantAccess, body: AnyNewJob) -> Job:
    """Submit a job. What can be known beforehand is checked at once: names, rights, columns and quotas."""
    jobs = Jobs(access.db, access.tenant_id)
    return _shown(access, jobs.submit_spec(SPECS[JobKind(body.kind)].from_json(body.spec), **body.options))


@operation(router, "POST", "/jobs/plan", "jobs.plan", Scope.TRAIN)
def plan_job(access: TenantAccess, body: JobToPlan) -> JobPlan:
    """How a job would train: the strategy, its alternatives with their estimates, and why. Nothing is queued."""
    training = body.training.model_dump(mode="json", exclude_unset=True)
    plan = Jobs(access.db, access.tenant_id).plan(body.model_id, training, cpus=body.cpus)
    return JobPlan.model_validate(plan)


@operation(router, "GET", "/jobs", "jobs.list", Scope.READ)
def list_jobs(
    access: TenantAccess,
    state: Annotated[JobState | None, Query(description="In this state.")] = None,
    schedule: Annotated[str | None, Query(description="Of this schedule, at its times or by `run-now`.")] = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Page[Job]:
    """List jobs, newest first."""
    found = _jobs(access).list(state=state, schedule=schedule, limit=limit, cursor=cursor)
    return Page[Job].model_validate(found.map(lambda job: _shown(access, job)))


@operation(router, "GET", _JOB, "jobs.get", Scope.READ)
async def get_job(access: TenantAccess, job: str, request: Request, wait_s: WaitQuery = 0.0) -> Job:
    """A job, once it has ended or after `wait_s`; says why it waits."""
    services: Services = request.app.state.services
    deadline = time.monotonic() + wait_s
    while True:
        found = await run_in_threadpool(_jobs(access).get, job)
        if found.is_final or time.monotonic() >= deadline:
            why = await run_in_threadpool(why_waiting, services.db, access.tenant_id, found)
            return _shown(access, found).model_copy(update={"waiting": why})
        await asyncio.sleep(_LOOK_EVERY_S)


@operation(router, "GET", f"{_JOB}/log", "jobs.log", Scope.READ)
async def get_log(
    access: TenantAccess,
    job: str,
    after: Annotated[int, Query(ge=0, description="The `position` of the part before.")] = 0,
    wait_s: WaitQuery = 0.0,
) -> JobLog:
    """What the attempts of a job said after a position, once there is something or after `wait_s`."""
    jobs, deadline = _jobs(access), time.monotonic() + wait_s
    while True:
        is_final = (await run_in_threadpool(jobs.get, job)).is_final  # first: the last lines come before the end
        log = await run_in_threadpool(jobs.log, job, after)
        if log.text or is_final or time.monotonic() >= deadline:
            return JobLog(text=log.text, position=log.position, is_final=is_final)
        await asyncio.sleep(_LOOK_EVERY_S)


@operation(router, "POST", f"{_JOB}/cancel", "jobs.cancel", Scope.TRAIN)
def cancel_job(access: TenantAccess, job: str, reason: Annotated[str, Query(description="For the audit.")] = "") -> Job:
    """Cancel a job: at once where it waits, else its process is stopped within seconds."""
    return _shown(access, _jobs(access).cancel(job, reason))


@operation(router, "POST", f"{_JOB}/retry", "jobs.retry", Scope.TRAIN)
def retry_job(access: TenantAccess, job: str) -> Job:
    """Queue a job again that failed or was cancelled."""
    return _shown(access, _jobs(access).retry(job))


@operation(router, "GET", "/job-quota", "jobs.quota", Scope.READ)
def get_quota(access: TenantAccess) -> JobShare:
    """The tenant's share in the queue, and what it uses of it."""
    quota, usage = _jobs(access).share()
    return JobShare.model_validate({"quota": quota, "usage": usage})


@operation(router, "PUT", "/job-quota", "jobs.set_quota", Scope.ADMIN)
def set_quota(access: TenantAccess, body: schemas.JobQuota) -> JobShare:
    """Set the tenant's share in the queue, as the platform."""
    JobQueue(access.db).set_quota(access.tenant_id, JobQuota(**body.model_dump()))
    return get_quota(access)


def _jobs(access: TenantAccess) -> JobRepository:
    return JobRepository(access.db, access.tenant_id)


def _shown(access: TenantAccess, job: domain.Job) -> Job:
    """A job as the caller may see it: the internal part of its error is the operator's."""
    if job.error is not None and "internal" in job.error and access.db.principal.tenant_id is not None:
        job = replace(job, error=error_from_json(job.error).public().to_json())
    return Job.model_validate(job)
