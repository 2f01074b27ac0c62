"""The execution of a job's attempt, in whatever process a runner starts for it.

The process reports for itself: it renews its lease, says how far it is and writes the result, so it goes on while
dispatchers are restarted. An error that would come again ends the job. What may pass, such as a registry that is away,
and a process that dies, lose the attempt: a dispatcher queues the job again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Attempt, JobState
from ml_core.exceptions import (
    JobNotFoundError,
    JobStateError,
    MLFrameworkError,
    StorageFullError,
    TrainingError,
    is_unavailable,
)
from ml_core.jobs.kinds import SPECS, kind_of
from ml_core.jobs.revocation import refuse_revoked
from ml_core.jobs.work import Progress, Work
from ml_core.observability import NO_HOOKS
from ml_core.observability.export import tracing
from ml_core.registry.heartbeat import beating
from ml_core.registry.jobs import JobRepository

_log = logging.getLogger(__name__)

LEASE_S: Final = 30.0
"""Seconds without a sign of life after which another attempt is made."""
_BEAT_EVERY_S: Final = 2.0
"""Also how long it takes at most until a process learns that its job is cancelled."""


def execute(
    db: DatabaseConnection,
    attempt: Attempt,
    *,
    on_ray: bool = False,
    stop: Callable[[], object] | None = None,
    before_report: Callable[[], object] = lambda: None,
) -> JobState:
    """Do what an attempt is for, and write what came of it.

    Args:
        db: The registry.
        attempt: A claimed job.
        on_ray: Whether this process is a job of a Ray cluster, whose tasks get the cores.
        stop: Called from another thread when the job is cancelled or goes on elsewhere; None: this process ends.
        before_report: Called when the job is done or can't be done, before that is written; not where this process may
            be the cause. It raises nothing.

    Returns:
        The job's state afterwards; ``queued`` if another attempt follows.

    Raises:
        JobNotFoundError: The job is gone.
        JobStateError: It is no longer wanted, or another attempt goes on.
        RegistryUnavailableError: The registry is away, so the result could not be written; the lease will lapse.
    """
    acting = db.acting_as(attempt.principal, attempt.request_id)
    jobs = JobRepository(acting, attempt.tenant_id)
    key = attempt.job_id, attempt.run_id
    made = jobs.begin(*key, LEASE_S).result
    try:
        spec = SPECS[attempt.kind].from_json(attempt.spec)
        hooks = tracing(db.settings.observability) or NO_HOOKS
        work = Work(acting, attempt, spec, made, attempt.cpus if on_ray else 1.0, hooks=hooks)
        with beating(lambda: _beat(jobs, attempt, work.progress), _BEAT_EVERY_S, stop or _end_process):
            refuse_revoked(db, attempt.tenant_id, attempt.principal)
            try:
                result = kind_of(attempt.kind).execute(work)
            except BaseException:
                jobs.say(attempt.job_id, work.progress.take_lines())
                raise
            finally:
                hooks.close()  # before the job ends: a command that waits for it ends this process
        before_report()
        return jobs.succeed(*key, result, work.progress.take_lines()).state
    except (JobNotFoundError, JobStateError):
        raise
    except MLFrameworkError as error:
        if isinstance(error, StorageFullError) or is_unavailable(error):
            return jobs.lose(*key, str(error.public()), error.to_json()).state
        before_report()
        return jobs.fail(*key, error.to_json()).state
    except MemoryError:
        no_memory = TrainingError(
            "The training ran out of memory.", remedy="Train on fewer rows or columns, or a smaller model.", stage="fit"
        )
        return jobs.fail(*key, no_memory.to_json()).state
    except Exception as error:  # noqa: BLE001 - whoever waits for the job must learn of it
        _log.exception("The job %s failed", attempt.job_id)
        return jobs.fail(*key, TrainingError.wrap(error, "The job failed", stage="fit").to_json()).state


def _beat(jobs: JobRepository, attempt: Attempt, progress: Progress) -> None:
    """Renew the lease. Once the job is cancelled, its attempt is settled here, and the next heartbeat is refused."""
    key = attempt.job_id, attempt.run_id
    if jobs.beat(*key, LEASE_S, progress.to_json(), progress.take_lines()) is JobState.CANCELLING:
        jobs.lose(*key, "cancelled")
        jobs.beat(*key, LEASE_S)


def _end_process() -> None:
    # At once: a fit can't be interrupted. Nothing is half done, since every write is one transaction.
    os._exit(3)
