"""Schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Input, Schema
from ml_core.api.schemas.jobs import AnyNewJob
from ml_core.domain.job import JobKind
from ml_core.domain.schedule import ScheduleState


class NewSchedule(Input):
    """A schedule to create."""

    name: str = Field(examples=["nightly"])
    cron: str = Field(description="Minute, hour, day of the month, month, day of the week.", examples=["0 3 * * *"])
    timezone: str = Field(default="UTC", description="The zone of the cron line.", examples=["Europe/Berlin"])
    job: AnyNewJob = Field(description="A dataset without a number means its newest version each time.")


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
    note: str | None = Field(description="Why it submitted no job when it was due last, or why it was stopped.")
    created_at: datetime
    created_by: str = Field(description="On whose behalf its jobs are done.")
