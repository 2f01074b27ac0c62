"""Jobs: what a tenant submits and sees (``JobRepository``), their batches, and the queue of all (``JobQueue``)."""

from ml_core.registry.jobs.batches import JobBatchRepository
from ml_core.registry.jobs.queue import JobQueue
from ml_core.registry.jobs.repository import JobRepository

__all__ = ["JobBatchRepository", "JobQueue", "JobRepository"]
