"""Batches of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Schema
from ml_core.domain.job import JobKind, JobState


class RefusedTenant(Schema):
    """A tenant whose quota does not permit a job."""

    tenant_id: str
    reason: str


class FailedJobs(Schema):
    """Jobs that failed for one reason."""

    reason: str = Field(description="The message of one of them.")
    count: int
    tenants: list[str] = Field(description="Some of their tenants.")


class JobBatch(Schema):
    """Jobs of several tenants that were submitted as one."""

    batch_id: str = Field(examples=["batch_0123456789abcdef"])
    kind: JobKind
    spec: dict[str, Any] = Field(description="What each job executes, with the number of its tenant's dataset.")
    submitted_at: datetime
    submitted_by: str
    jobs: int
    states: dict[JobState, int] = Field(description="State → jobs in it.")
    percent: float = Field(description="The share of the jobs that have ended.")
    elapsed_s: float | None = Field(description="From the first start to the last end, or to now.")
    rate_per_s: float | None = Field(description="Jobs that ended within the last minute, a second.")
    eta_s: float | None = Field(description="Seconds until all have ended, at this rate.")
    without_dataset: int = Field(description="Tenants that were left out because they have no such dataset.")
    refused: list[RefusedTenant] = Field(description="Tenants that were left out because of their quota.")
    failures: list[FailedJobs] = Field(description="The most frequent reasons; empty in lists.")
