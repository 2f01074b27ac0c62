"""Jobs: what a tenant submits and sees (``JobRepository``), and the queue of all tenants (``JobQueue``)."""

from ml_core.registry.jobs.queue import JobQueue
from ml_core.registry.jobs.repository import JobRepository

__all__ = ["JobQueue", "JobRepository"]
