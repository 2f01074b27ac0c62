"""Schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Input, Schema
from ml_core.api.schemas.jobs import AnyNewJob
from ml_core.domain.job import JobKind
from ml_core.domain.schedule import ScheduleState


class NewDriftRule(Input):
    """Train only on an alert of quality or drift, and try the new version as a canary."""

    environment: str = Field(
        default="production", description="Watched, and served by the new version if it is better."
    )
    days: int = Field(default=7, description="Days of the reports, the present one included.")
    canary_percent: int = Field(
        default=20, description="Percent of the requests that the new version answers on trial."
    )
    canary_hours: float = Field(default=72.0, description="Hours that it may take to be better; then it is aborted.")
    min_labels: int = Field(default=200, description="Labels that both versions need before they are compared.")
    collect_labels: bool = Field(
        default=False, description="Make the labelled rows of these days the next version of the dataset first."
    )


class NewSchedule(Input):
    """A schedule to create."""

    name: str = Field(examples=["nightly"])
    cron: str = Field(description="Minute, hour, day of the month, month, day of the week.", examples=["0 3 * * *"])
    timezone: str = Field(default="UTC", description="The zone of the cron line.", examples=["Europe/Berlin"])
    job: AnyNewJob = Field(description="A dataset without a number means its newest version each time.")
    on_drift: NewDriftRule | None = Field(default=None, description="null: submit the job at each time.")


class Schedule(Schema):
    """A schedule."""

    name: str = Field(examples=["nightly"])
    cron: str
    timezone: str
    kind: JobKind
    spec: dict[str, Any]
    options: dict[str, Any] = Field(description="Cores, priority and attempts of its jobs.")
    state: ScheduleState
    next_at: datetime | None = Field(description="When it is due; null: it is not active.")
    last_at: datetime | None = Field(description="When it was due last.")
    last_job_id: str | None = Field(description="The job that it submitted last.")
    note: str | None = Field(
        description="Why it submitted no job when it was due last, what became of a retraining, or why it was stopped."
    )
    on_drift: dict[str, Any] | None = Field(default=None, description="The rule of one that trains on an alert only.")
    retraining: dict[str, Any] | None = Field(default=None, description="The retraining that goes on: its job.")
    created_at: datetime
    created_by: str = Field(description="On whose behalf its jobs are done.")
