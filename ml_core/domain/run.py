"""Runs as values: the states that one goes through, and what is known of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ml_core.ids import Digest, ModelId

_MAX_SHOWN = 80  # characters of an error in one line


class RunStatus(StrEnum):
    """The status of a run.

    ``dead`` is a running run that has given no sign of life for longer than ``MLCORE_RUN_DEAD_AFTER_S``. The database's
    clock says so with each read, so nothing has to find dead runs. One that was only slow is running again with its
    next sign of life. Only ``RunRepository.mark_dead`` makes it final; then ``finished_at`` is set.
    """

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


class RunTrigger(StrEnum):
    """What moves a run from one state to the next."""

    BEAT = "beat"
    LOG = "log"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"
    DIE = "die"


MOVES: Mapping[tuple[RunStatus, RunTrigger], RunStatus] = {
    (RunStatus.RUNNING, RunTrigger.BEAT): RunStatus.RUNNING,
    (RunStatus.RUNNING, RunTrigger.LOG): RunStatus.RUNNING,
    (RunStatus.RUNNING, RunTrigger.FINISH): RunStatus.FINISHED,
    (RunStatus.RUNNING, RunTrigger.FAIL): RunStatus.FAILED,
    (RunStatus.RUNNING, RunTrigger.CANCEL): RunStatus.CANCELLED,
    (RunStatus.RUNNING, RunTrigger.DIE): RunStatus.DEAD,
}
"""(state as it is stored, trigger) → state; everything else is refused. Silence alone changes no stored state."""


def sources(trigger: RunTrigger) -> list[RunStatus]:
    """The states in which a trigger is allowed."""
    return [state for state, of in MOVES if of is trigger]


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """A metric's series in one line, kept up to date with each write, so that no list reads the points.

    Attributes:
        points: How many there are.
        not_finite: How many of them are NaN or infinite, as when a training diverges.
        last_step: The highest step.
        last_value: Its value; may be NaN or infinite.
        minimum: Of the finite values; None without one.
        maximum: Likewise.
    """

    points: int
    not_finite: int
    last_step: int
    last_value: float
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """One training or tuning execution. Times are UTC. Printed, it is one short line.

    Attributes:
        run_id: ``run_`` and 16 hexadecimal digits.
        model_id: The model that it is for.
        kind: ``train``, ``tune`` or a word of the caller's.
        status: As of the read, see ``RunStatus``.
        parameters: As given when it was started.
        started_at: When it was started.
        heartbeat_at: Its last sign of life.
        finished_at: When it ended, or None.
        error: Why it failed or was cancelled, or None.
        metrics: Metric → its series in one line.
        tags: Key → value, to find it by; may change.
        parent_run_id: The run that this one is a part of, such as the search of a trial.
        created_by: Who started it; None for runs of releases that did not note it.
        versions: The versions that came of it, such as ``tickets@3``; most often one, or none.
    """

    run_id: str
    model_id: ModelId
    kind: str
    status: RunStatus
    parameters: Mapping[str, Any]
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None
    error: str | None
    metrics: Mapping[str, MetricSummary] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    parent_run_id: str | None = None
    created_by: str | None = None
    versions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = [self.run_id, f"{self.kind} of {self.model_id}", self.status.value]
        if self.error is not None:
            parts.append(_first_line(self.error))
        elif self.metrics:
            parts.append(f"{len(self.metrics)} metric{'' if len(self.metrics) == 1 else 's'}")
        return f"Run({', '.join(parts)})"


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _MAX_SHOWN else f"{line[: _MAX_SHOWN - 1]}…"


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric; NaN and the infinities are values too. ``at``: when it was logged, UTC."""

    step: int
    value: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Series:
    """A metric's points in the order of steps, all of them or a selection.

    Attributes:
        metric: Its name.
        total: How many points there are.
        points: Those selected: all if there are not more than asked for.
    """

    metric: str
    total: int
    points: Sequence[Point]

    def to_json(self) -> dict[str, Any]:
        """By columns. JSON has no NaN and no infinities: such a value is null."""
        return {
            "metric": self.metric,
            "total": self.total,
            "steps": [point.step for point in self.points],
            "values": [point.value if math.isfinite(point.value) else None for point in self.points],
            "at": [point.at.isoformat() for point in self.points],
        }


@dataclass(frozen=True, slots=True)
class RunArtifact:
    """A file of a run; the bytes are in the artifact store."""

    name: str
    digest: Digest
    size_bytes: int
    format: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Values between two bounds, both included; None: no bound."""

    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to find. What is None or empty does not restrict.

    Attributes:
        model_id: Of this model.
        kind: Of this kind.
        status: In this state as of the read; ``dead`` finds those that fell silent and those marked so.
        parent_run_id: Parts of this run.
        tags: With all of these tags.
        parameters: With all of these values; a name with points leads into objects: ``hyperparameters.C``.
        metrics: With the last value of each of these metrics in its range.
        started_from: Started at this moment or later.
        started_before: Started before this moment.
    """

    model_id: ModelId | None = None
    kind: str | None = None
    status: RunStatus | None = None
    parent_run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, ValueRange] = field(default_factory=dict)
    started_from: datetime | None = None
    started_before: datetime | None = None
