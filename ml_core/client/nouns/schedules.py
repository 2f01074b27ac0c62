"""Schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.jobs import Job
from ml_core.api.schemas.schedules import NewSchedule, Schedule
from ml_core.client.calls import Call, Mode, Noun, listing, operation, quoted


class Schedules(Noun[Mode]):
    """The schedules of a tenant, by which the platform submits jobs."""

    @operation
    def create(
        self,
        name: str,
        cron: str,
        job: Mapping[str, Any],
        *,
        timezone: str = "UTC",
        on_drift: Mapping[str, Any] | None = None,
    ) -> Call[Schedule]:
        """Create a schedule, whose jobs are done on behalf of the caller.

        Args:
            name: The schedule; none of the tenant has this name.
            cron: Minute, hour, day of the month, month and day of the week, such as ``0 3 * * *``.
            job: Fields of ``NewTrainJob`` or another kind, such as ``{"kind": "train", "model_id": "tickets",
                "training": {"dataset": "tickets"}}``; a dataset without a number means its newest version each time.
            timezone: The zone of the cron line, such as ``Europe/Berlin``.
            on_drift: Fields of ``NewDriftRule``: train only on an alert of quality or drift, and try the new version as
                a canary; ``{}``: as these are by default.
        """
        given = {"name": name, "cron": cron, "timezone": timezone, "job": job, "on_drift": on_drift}
        body = NewSchedule.model_validate(given)
        return Call("POST", f"{self._root}/schedules", Schedule, body=body)

    @listing
    def list(self) -> Call[Page[Schedule]]:
        """The schedules by name."""
        return Call("GET", f"{self._root}/schedules", Page[Schedule])

    @operation
    def get(self, name: str) -> Call[Schedule]:
        """A schedule: when it is due, and what became of the last time."""
        return Call("GET", self._path(name), Schedule)

    @operation
    def pause(self, name: str) -> Call[Schedule]:
        """Submit no more jobs until it is resumed; jobs that were submitted go on."""
        return Call("POST", f"{self._path(name)}/pause", Schedule)

    @operation
    def resume(self, name: str) -> Call[Schedule]:
        """Go on with the next time from now."""
        return Call("POST", f"{self._path(name)}/resume", Schedule)

    @operation
    def run_now(self, name: str) -> Call[Job]:
        """Submit its job now, on behalf of the caller; its times stay as they are."""
        return Call("POST", f"{self._path(name)}/run-now", Job)

    @operation
    def delete(self, name: str) -> Call[None]:
        """Delete a schedule; jobs that were submitted go on."""
        return Call("DELETE", self._path(name), type(None))

    def _path(self, name: str) -> str:
        return f"{self._root}/schedules/{quoted(name)}"
