"""Schedules: jobs that the platform submits at the times of a cron line."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cronsim import CronSim, CronSimError

from ml_core.domain.job import JobKind
from ml_core.exceptions import InvalidRequestError, did_you_mean, shown
from ml_core.ids import JobId, ScheduleName, TenantId

_FIELDS = "minute, hour, day of the month, month and day of the week"
_FORM = f'Give {_FIELDS}, such as "0 3 * * *" or "*/15 8-18 * * MON-FRI".'


class ScheduleState(StrEnum):
    """The state of a schedule; ``stopped`` is one whose creator's key was revoked."""

    ACTIVE = "active"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Cron:
    """The times of a cron line in a time zone, as Debian's cron has them.

    A time that a change of the clocks leaves out is moved to the end of the gap; one that it repeats counts once. Lines
    whose minute or hour begins with ``*`` go by elapsed time.

    Attributes:
        line: Minute, hour, day of the month, month and day of the week.
        timezone: A name of the IANA database, such as ``Europe/Berlin``.

    Raises:
        InvalidRequestError: The line or the zone can't be used.
    """

    line: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if self.timezone not in (known := zoneinfo.available_timezones()):
            raise InvalidRequestError(
                f"There is no time zone {shown(self.timezone)}.",
                remedy=f"{did_you_mean(self.timezone, sorted(known))}Give a name such as Europe/Berlin or UTC.",
                field="timezone",
            )
        if (count := len(self.line.split())) != 5:
            raise self._invalid(f"has {count} fields; five are needed")
        try:
            CronSim(self.line, datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise self._invalid(f"has a {str(error).lower()}") from error

    def after(self, moment: datetime) -> datetime:
        """The first time after a moment, UTC.

        Raises:
            InvalidRequestError: There is none within 50 years.
        """
        for each in CronSim(self.line, moment.astimezone(zoneinfo.ZoneInfo(self.timezone))):
            if (time := each.astimezone(UTC)) > moment:  # not where the clocks were put back
                return time
        raise self._invalid("names a day that does not come")

    def _invalid(self, what: str) -> InvalidRequestError:
        return InvalidRequestError(f"The cron line {shown(self.line, 60)} {what}.", remedy=_FORM, field="cron")


def keys_of(name: str) -> str:
    """What the idempotency keys of all jobs of a schedule begin with."""
    return f"schedule:{ScheduleName(name)}:"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it is stored. Times are UTC.

    Attributes:
        kind: The kind of its jobs.
        spec: What they execute; a dataset without a number means its newest version each time.
        options: ``cpus``, ``priority`` and ``max_attempts`` of the jobs.
        created_by: On whose behalf the jobs are done.
        next_at: When it is due; None: it is not active.
        last_at: When it was due last.
        last_job_id: The job that it submitted last.
        note: What became of that time if it submitted no job then, or why the schedule was stopped.
        on_drift: The ``OnDrift`` of a schedule that trains on an alert only.
        retraining: The ``Retraining`` that goes on.
    """

    tenant_id: TenantId
    name: ScheduleName
    cron: str
    timezone: str
    kind: JobKind
    spec: Mapping[str, Any]
    state: ScheduleState
    created_at: datetime
    created_by: str
    options: Mapping[str, Any] = field(default_factory=dict)
    next_at: datetime | None = None
    last_at: datetime | None = None
    last_job_id: JobId | None = None
    note: str | None = None
    on_drift: Mapping[str, Any] | None = None
    retraining: Mapping[str, Any] | None = None
