"""``Schedules``: those of one tenant, with the checks of jobs; ``submit_due``: the jobs of all whose time has come."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Job
from ml_core.domain.job_spec import JobSpec
from ml_core.domain.schedule import Cron, Schedule
from ml_core.exceptions import AuthenticationError, IdempotencyConflictError, MLFrameworkError, status_of
from ml_core.jobs.kinds import SPECS, kind_of
from ml_core.jobs.revocation import refuse_revoked
from ml_core.jobs.submission import Jobs
from ml_core.registry.jobs.repository import check_options
from ml_core.registry.schedules import Due, ScheduleRepository, due_schedules

_log = logging.getLogger(__name__)

_UNAVAILABLE = 503


class Schedules(ScheduleRepository):
    """Schedules whose jobs the control loop submits."""

    def create(
        self, name: str, cron: str, spec: JobSpec, *, timezone: str = "UTC", options: Mapping[str, Any] | None = None
    ) -> Schedule:
        """Create a schedule whose jobs act with the rights of the principal.

        Args:
            name: The schedule; none of the tenant has this name.
            cron: Minute, hour, day of the month, month and day of the week.
            spec: What each job executes; a dataset without a number means its newest version each time.
            timezone: The zone of the cron line.
            options: ``cpus``, ``priority`` and ``max_attempts`` of the jobs, see ``JobRepository.submit``.

        Raises:
            MLFrameworkError: A job of this spec would be refused now, or as ``Cron`` and ``ScheduleRepository.add``.
        """
        times, given = Cron(cron, timezone), {"cpus": 1.0, "priority": 0, "max_attempts": 3, **(options or {})}
        check_options(**given)
        kind_of(spec.kind).check(self._db, self._tenant_id, spec)
        return self.add(name, times, spec.kind, spec.to_json(), given)

    def run_now(self, name: str) -> Job:
        """Submit a job of a schedule now, with the rights of the principal; its times stay.

        Raises:
            ScheduleNotFoundError: There is no schedule of this name.
            MLFrameworkError: As ``Jobs.submit_spec``.
        """
        schedule = self.get(name)
        spec = SPECS[schedule.kind].from_json(schedule.spec)
        job = Jobs(self._db, self._tenant_id).submit_spec(spec, **schedule.options)
        self.submitted(name, job.job_id)
        return job


def submit_due(db: DatabaseConnection) -> None:
    """Submit a job of each schedule that is due. Times that were missed meanwhile are one time.

    Any number of callers may do it at once, and each can be killed at any time: the job of a time is submitted with an
    idempotency key that is made of the schedule and the time.

    Raises:
        RegistryUnavailableError: The registry is away; what is due stays so.
    """
    for due in due_schedules(db):
        acting = db.acting_as(due.principal)
        own = ScheduleRepository(acting, due.schedule.tenant_id)
        try:
            refuse_revoked(db, due.schedule.tenant_id, due.principal)
            following = due.following
            own.advance(due, following, *_submitted(acting, due))
        except MLFrameworkError as error:
            if status_of(error) == _UNAVAILABLE:
                raise
            own.stop(due, str(error.public()))
        except Exception:  # noqa: BLE001 - one that was written past the checks; those of other tenants go on
            _log.exception("The schedule %s of %s stopped", due.schedule.name, due.schedule.tenant_id)
            own.stop(due, "It can't be submitted. Delete it, and create it again.")


def _submitted(acting: DatabaseConnection, due: Due) -> tuple[str | None, str | None]:
    """The job of the time that a schedule is due, and why there is none."""
    schedule, jobs = due.schedule, Jobs(acting, due.schedule.tenant_id)
    key = f"schedule:{schedule.name}:{schedule.created_at.isoformat()}:{schedule.next_at}"
    if (known := jobs.find(key)) is not None:  # by a process that was killed before it said so
        return known.job_id, None
    if schedule.last_job_id is not None and not (last := jobs.get(schedule.last_job_id)).is_final:
        return None, f"Skipped, because the job {last.job_id} had not ended; it was {last.state}."
    spec = SPECS[schedule.kind].from_json(schedule.spec)
    try:
        return jobs.submit_spec(spec, idempotency_key=key, **schedule.options).job_id, None
    except IdempotencyConflictError:  # another process was faster, on an older version of the dataset
        found = jobs.find(key)
        return None if found is None else found.job_id, None
    except AuthenticationError:
        raise
    except MLFrameworkError as error:
        if status_of(error) == _UNAVAILABLE:
            raise
        return None, str(error.public())
