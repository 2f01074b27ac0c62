"""``Schedules``: those of one tenant, with the checks of jobs; ``submit_due``: the jobs of all whose time has come."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Job
from ml_core.domain.job_spec import JobSpec, TrainJobSpec, TuneJobSpec
from ml_core.domain.retraining import OnDrift
from ml_core.domain.schedule import Cron, Schedule, keys_of
from ml_core.exceptions import (
    AuthenticationError,
    IdempotencyConflictError,
    InvalidRequestError,
    MLFrameworkError,
    is_unavailable,
)
from ml_core.ids import TenantId
from ml_core.jobs.kinds import SPECS, kind_of
from ml_core.jobs.revocation import refuse_revoked
from ml_core.jobs.submission import Jobs
from ml_core.registry.jobs.repository import check_options
from ml_core.registry.promotion.rules import check_move
from ml_core.registry.schedules import Due, ScheduleRepository, due_schedules

_log = logging.getLogger(__name__)


class Schedules(ScheduleRepository):
    """Schedules whose jobs the control loop submits."""

    def create(
        self,
        name: str,
        cron: str,
        spec: JobSpec,
        *,
        timezone: str = "UTC",
        options: Mapping[str, Any] | None = None,
        on_drift: OnDrift | None = None,
    ) -> Schedule:
        """Create a schedule whose jobs act with the rights of the principal.

        Args:
            name: The schedule; none of the tenant has this name.
            cron: Minute, hour, day of the month, month and day of the week.
            spec: What each job executes; a dataset without a number means its newest version each time.
            timezone: The zone of the cron line.
            options: ``cpus``, ``priority`` and ``max_attempts`` of the jobs, see ``JobRepository.submit``.
            on_drift: Train only on an alert of the model's quality or drift, and try the new version as a canary, see
                ``ml_core.jobs.retraining``.

        Raises:
            MLFrameworkError: A job of this spec would be refused now, or as ``Cron``, ``check_rule`` and
                ``ScheduleRepository.add``.
        """
        times, given = Cron(cron, timezone), {"cpus": 1.0, "priority": 0, "max_attempts": 3, **(options or {})}
        check_options(**given)
        kind_of(spec.kind).check(self._db, self._tenant_id, spec)
        if on_drift is not None:
            check_rule(self._db, self._tenant_id, spec, on_drift)
        return self.add(name, times, spec.kind, spec.to_json(), given, None if on_drift is None else on_drift.to_json())

    def run_now(self, name: str) -> Job:
        """Submit a job of a schedule now, with the rights of the principal; its times stay.

        Raises:
            ScheduleNotFoundError: There is no schedule of this name.
            MLFrameworkError: As ``Jobs.submit_spec``.
        """
        schedule = self.get(name)
        spec = SPECS[schedule.kind].from_json(schedule.spec)
        key = f"{keys_of(name)}now:{uuid.uuid4().hex}"
        job = Jobs(self._db, self._tenant_id).submit_spec(spec, idempotency_key=key, **schedule.options)
        self.submitted(name, job.job_id)
        return job


def submit_due(db: DatabaseConnection) -> None:
    """Submit a job of each schedule that is due. Times that were missed meanwhile are one time.

    Any number of callers may do it at once, and each can be killed at any time: the job of a time is submitted with an
    idempotency key that is made of the schedule and the time. Those that train on an alert only are left to
    ``ml_core.jobs.retraining``.

    Raises:
        RegistryUnavailableError: The registry is away; what is due stays so.
    """

    def submit(acting: DatabaseConnection, due: Due) -> None:
        own = ScheduleRepository(acting, due.schedule.tenant_id)
        own.advance(due, due.following, *submitted(acting, due))

    act(db, due_schedules(db), submit)


def act(db: DatabaseConnection, found: Sequence[Due], work: Callable[[DatabaseConnection, Due], object]) -> None:
    """Do something on behalf of whoever created each schedule; stop one that may not act, or whose work fails.

    Raises:
        RegistryUnavailableError: The registry is away; the rest is not done.
    """
    for due in found:
        acting = db.acting_as(due.principal)
        own = ScheduleRepository(acting, due.schedule.tenant_id)
        try:
            refuse_revoked(db, due.schedule.tenant_id, due.principal)
            work(acting, due)
        except MLFrameworkError as error:
            if is_unavailable(error):
                raise
            own.stop(due, str(error.public()))
        except Exception:  # noqa: BLE001 - one that was written past the checks; those of other tenants go on
            _log.exception("The schedule %s of %s stopped", due.schedule.name, due.schedule.tenant_id)
            own.stop(due, "It can't be submitted. Delete it, and create it again.")


def check_rule(db: DatabaseConnection, tenant_id: TenantId, spec: JobSpec, rule: OnDrift) -> None:
    """Refuse a schedule on drift that could not do all that it is for.

    Raises:
        InvalidRequestError: The job makes no version or promotes it itself, the log lacks a column that it needs, or
            there is no such environment.
        PermissionDeniedError: The principal may not move the environment.
    """
    if not isinstance(spec, TrainJobSpec | TuneJobSpec) or spec.promote_to is not None:
        raise InvalidRequestError(
            "A schedule on drift trains a version and tries it as a canary.",
            remedy="Give a job that trains or tunes, without promote_to.",
            field="on_drift",
        )
    absent = {name for name in ("group", "weight") if getattr(spec.training, name) is not None}
    if rule.collect_labels and (absent or spec.training.target is None):
        why = f"the prediction log has no {' or '.join(sorted(absent))} column" if absent else "it names no target"
        raise InvalidRequestError(
            f"Labels can't be collected for this training: {why}.",
            remedy="Leave out collect_labels, and register the rows as versions of the dataset.",
            field="on_drift.collect_labels",
        )
    check_move(db, tenant_id, spec.model_id, rule.environment)


def submitted(
    acting: DatabaseConnection, due: Due, prepare: Callable[[], object] = lambda: None
) -> tuple[str | None, str | None]:
    """The job of the time that a schedule is due, and why there is none.

    Args:
        acting: The registry, on behalf of whoever created the schedule.
        due: The schedule.
        prepare: Called before a job is submitted.

    Raises:
        AuthenticationError: The key of the creator was revoked.
        RegistryUnavailableError: The registry is away.
    """
    schedule, jobs = due.schedule, Jobs(acting, due.schedule.tenant_id)
    key = key_of(schedule)
    if (known := jobs.find(key)) is not None:  # by a process that was killed before it said so
        return known.job_id, None
    if schedule.last_job_id is not None and not (last := jobs.get(schedule.last_job_id)).is_final:
        return None, f"Skipped, because the job {last.job_id} had not ended; it was {last.state}."
    spec = SPECS[schedule.kind].from_json(schedule.spec)
    try:
        prepare()
        return jobs.submit_spec(spec, idempotency_key=key, **schedule.options).job_id, None
    except IdempotencyConflictError:  # another process was faster, on an older version of the dataset
        found = jobs.find(key)
        return None if found is None else found.job_id, None
    except MLFrameworkError as error:
        return None, note_of(error)


def note_of(error: MLFrameworkError) -> str:
    """The note on a schedule whose work failed, unless that stops the schedule, or may pass."""
    if isinstance(error, AuthenticationError) or is_unavailable(error):
        raise error
    return str(error.public())


def key_of(schedule: Schedule) -> str:
    """The idempotency key of the job of the time that a schedule is due."""
    return f"{keys_of(schedule.name)}{schedule.created_at.isoformat()}:{schedule.next_at}"
