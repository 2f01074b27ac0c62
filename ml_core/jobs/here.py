"""``executing``: one job in this process, for a command that has no platform, or that is itself the job's process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Attempt
from ml_core.exceptions import JobNotFoundError, JobStateError, MLFrameworkError
from ml_core.jobs.dispatcher import settle
from ml_core.jobs.execution import LEASE_S, execute
from ml_core.registry.jobs import JobQueue, JobRepository

_log = logging.getLogger(__name__)

_NAME: Final = "here"


@contextmanager
def executing(db: DatabaseConnection, tenant_id: str, job_id: str) -> Iterator[None]:
    """Execute a queued job on a thread of this process, while the block waits for its end.

    Nothing is executed here if a dispatcher was faster; the block waits for that one. A block that is left before the
    job has ended cancels it. The thread goes on then, until the process ends, and registers nothing.

    Args:
        db: The registry; its principal belongs to no tenant.
        tenant_id: The tenant.
        job_id: The job.

    Raises:
        PermissionDeniedError: The principal belongs to a tenant.
    """
    queue, jobs = JobQueue(db), JobRepository(db, tenant_id)
    for held in queue.held(_NAME):
        if held.is_lapsed:  # a command was killed, and without a platform nobody else notices
            settle(db, held, "Its process did not report any more.")
    attempt = queue.claim_one(tenant_id, job_id, _NAME, LEASE_S)
    if attempt is not None:
        threading.Thread(target=_execute, args=(db, attempt), name="job", daemon=True).start()
    try:
        yield
    finally:
        if attempt is not None:
            with suppress(JobNotFoundError, JobStateError):  # it has ended, or is being cancelled
                jobs.cancel(job_id, "its command ended")
            with suppress(JobNotFoundError, JobStateError):
                jobs.lose(job_id, attempt.run_id, "Its command ended.")


def _execute(db: DatabaseConnection, attempt: Attempt) -> None:
    try:
        execute(db, attempt, stop=lambda: None)
    except (JobNotFoundError, JobStateError):
        pass  # it was cancelled, which whoever waits sees
    except MLFrameworkError as error:
        _log.warning("The job %s was left: %s", attempt.job_id, error)
