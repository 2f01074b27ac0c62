"""Batches of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.job_batches import JobBatch
from ml_core.api.schemas.jobs import NewTrainJob
from ml_core.client.calls import Call, Mode, Noun, listing, operation, quoted

_SUBMITTED_WITHIN_S = 60.0
"""A submission for 10,000 tenants takes seconds."""


class JobBatches(Noun[Mode]):
    """Jobs that an operator submits for each tenant that has a dataset."""

    @operation
    def submit(self, job: NewTrainJob | Mapping[str, Any]) -> Call[JobBatch]:
        """Submit a job for each tenant that has its dataset.

        Args:
            job: Fields of ``NewTrainJob``, such as ``{"model_id": "tickets", "training": {"dataset": "tickets"}}``.
        """
        body = NewTrainJob.model_validate({"kind": "train", **job} if isinstance(job, Mapping) else job)
        return Call("POST", "/api/v1/job-batches", JobBatch, body=body, timeout_s=_SUBMITTED_WITHIN_S)

    @listing
    def list(self) -> Call[Page[JobBatch]]:
        """The batches, newest first, without the reasons of failures."""
        return Call("GET", "/api/v1/job-batches", Page[JobBatch])

    @operation
    def get(self, batch_id: str) -> Call[JobBatch]:
        """A batch: how many of its jobs are in which state, how fast they end, and why some failed."""
        return Call("GET", f"/api/v1/job-batches/{quoted(batch_id)}", JobBatch)

    @operation
    def cancel(self, batch_id: str, reason: str = "") -> Call[JobBatch]:
        """Cancel the jobs that have not ended."""
        return Call("POST", f"/api/v1/job-batches/{quoted(batch_id)}/cancel", JobBatch, {"reason": reason})

    @operation
    def retry(self, batch_id: str) -> Call[JobBatch]:
        """Queue the jobs again that failed or were cancelled; ``refused`` are those whose quota refuses."""
        return Call("POST", f"/api/v1/job-batches/{quoted(batch_id)}/retry", JobBatch)
