"""Batches of jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from ml_core.api.access import PlatformAccess
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.job_batches import JobBatch
from ml_core.api.schemas.jobs import NewTrainJob
from ml_core.domain.api_key import Scope
from ml_core.domain.job_spec import TrainJobSpec
from ml_core.jobs.submission import submit_batch
from ml_core.registry.jobs import JobBatchRepository

router = operations("job batches", "/job-batches")


@operation(router, "POST", "", "job_batches.submit", Scope.ADMIN, creates=True)
def submit_job_batch(db: PlatformAccess, body: NewTrainJob) -> JobBatch:
    """Submit a job for each tenant that has the dataset, as the platform. A tenant whose quota refuses is left out."""
    spec = TrainJobSpec.from_json(body.spec)
    return JobBatch.model_validate(submit_batch(db, spec, **body.options))


@operation(router, "GET", "", "job_batches.list", Scope.READ)
def list_job_batches(db: PlatformAccess, limit: LimitQuery = 50, cursor: CursorQuery = None) -> Page[JobBatch]:
    """List batches, newest first, without the reasons of failures."""
    return Page[JobBatch].model_validate(JobBatchRepository(db).list(limit=limit, cursor=cursor))


@operation(router, "GET", "/{batch}", "job_batches.get", Scope.READ)
def get_job_batch(db: PlatformAccess, batch: str) -> JobBatch:
    """A batch: how many of its jobs are in which state, how fast they end, and why some failed."""
    return JobBatch.model_validate(JobBatchRepository(db).get(batch))


@operation(router, "POST", "/{batch}/cancel", "job_batches.cancel", Scope.ADMIN)
def cancel_job_batch(
    db: PlatformAccess, batch: str, reason: Annotated[str, Query(description="For the audit.")] = ""
) -> JobBatch:
    """Cancel the jobs of a batch that have not ended."""
    return JobBatch.model_validate(JobBatchRepository(db).cancel(batch, reason))


@operation(router, "POST", "/{batch}/retry", "job_batches.retry", Scope.ADMIN)
def retry_job_batch(db: PlatformAccess, batch: str) -> JobBatch:
    """Queue the jobs of a batch again that failed or were cancelled; `refused` are those whose quota refuses."""
    return JobBatch.model_validate(JobBatchRepository(db).retry(batch))
