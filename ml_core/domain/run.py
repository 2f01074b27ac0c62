"""Runs: their state machine, their recorded fields, and the comparison of several runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.notebook import RunComparison, fields_of, record_html
from ml_core.ids import Digest, ModelId

_MAX_SHOWN = 80  # characters of an error in one line
_COMPARED = 2  # runs that must have a metric before one of them is the best


class RunStatus(StrEnum):
    """The status of a run.

    ``dead`` is a running run without a heartbeat for longer than ``MLCORE_RUN_DEAD_AFTER_S``. Each read computes it by
    the clock of the database; no row has it, and the next heartbeat makes the run ``running`` again.
    """

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


class RunTrigger(StrEnum):
    """A change of the state of a run."""

    BEAT = "beat"
    LOG = "log"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"
    RESUME = "resume"


MOVES: Mapping[tuple[RunStatus, RunTrigger], RunStatus] = {
    (RunStatus.RUNNING, RunTrigger.BEAT): RunStatus.RUNNING,
    (RunStatus.RUNNING, RunTrigger.LOG): RunStatus.RUNNING,
    (RunStatus.RUNNING, RunTrigger.FINISH): RunStatus.FINISHED,
    (RunStatus.RUNNING, RunTrigger.FAIL): RunStatus.FAILED,
    (RunStatus.RUNNING, RunTrigger.CANCEL): RunStatus.CANCELLED,
    (RunStatus.FINISHED, RunTrigger.RESUME): RunStatus.RUNNING,
    (RunStatus.FAILED, RunTrigger.RESUME): RunStatus.RUNNING,
    (RunStatus.CANCELLED, RunTrigger.RESUME): RunStatus.RUNNING,
}
"""(stored state, trigger) → state; every other pair is refused. A missing heartbeat changes no stored state."""

TRACKED = "mlflow"
"""The kind of runs that MLflow's client starts. They take results after their end, and only they can be resumed: the
client logs scores of a model that it fitted before, and opens a run again to add to it."""


def sources(trigger: RunTrigger) -> list[RunStatus]:
    """The states that permit a trigger."""
    return [state for state, of in MOVES if of is trigger]


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """The summary of the series of a metric.

    Attributes:
        not_finite: The number of points that are NaN or infinite, as when a training diverges.
        last_step: The highest step.
        last_value: The value at the highest step; may be NaN or infinite.
        minimum: Of the finite values; None if there are none. So is ``maximum``.
    """

    # Updated by each write, so that lists of runs need not read points.

    points: int
    not_finite: int
    last_step: int
    last_value: float
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A training or tuning execution. Times are UTC.

    Attributes:
        run_id: ``run_`` and 16 hexadecimal digits.
        kind: ``train``, ``tune`` or a word of the caller's.
        status: As of the read, see ``RunStatus``.
        parameters: As given when it was started.
        finished_at: When it ended, or None.
        error: Why it failed or was cancelled, or None.
        metrics: Metric → its series in one line.
        tags: Key → value, for searches; may change.
        parent_run_id: The run that this one is a part of, such as the search of a trial.
        versions: The versions that it made, such as ``tickets@3``; most often one, or none.
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

    def _repr_html_(self) -> str:
        return record_html(f"Run {self.run_id}", fields_of(self))


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _MAX_SHOWN else f"{line[: _MAX_SHOWN - 1]}…"


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a metric, possibly NaN or infinite, and when it was logged, UTC."""

    step: int
    value: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Series:
    """The points of a metric in the order of steps, all or a selection.

    Attributes:
        total: How many points there are.
        points: The selected points; all if there are not more than requested.
    """

    metric: str
    total: int
    points: Sequence[Point]

    def to_json(self) -> dict[str, Any]:
        """The JSON form, by columns. NaN and infinities are null."""
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


def compare_runs(runs: Sequence[Run]) -> RunComparison:
    """Compare runs.

    Returns:
        ``runs``: ``run_id``, ``model_id``, ``kind``, ``status`` and ``started_at`` of each run, in the given order;
        ``parameters`` and ``tags``: those that differ, name → run → value, without runs that do not have them; objects
        are flattened (``hyperparameters.C``); ``same_parameters``: the others, name → value;
        ``metrics``: name → ``higher_is_better`` (None: unknown), ``runs`` (run → ``last``, ``last_step``, ``best``,
        ``points``), ``best_run`` (with the best value) and ``best_last_run`` (with the best last value). A best run is
        None if the direction is unknown, if fewer than two runs have a finite value, or if two share the best value.
        The direction of ``validation/accuracy`` is that of ``accuracy``.
    """
    parameters = {run.run_id: dict(flat(run.parameters)) for run in runs}
    names = sorted({metric for run in runs for metric in run.metrics})
    differing = _differing(parameters)
    return RunComparison(
        {
            "runs": [
                {
                    "run_id": run.run_id,
                    "model_id": str(run.model_id),
                    "kind": run.kind,
                    "status": run.status.value,
                    "started_at": run.started_at,
                }
                for run in runs
            ],
            "parameters": differing,
            "same_parameters": {
                name: value for name, value in sorted(parameters[runs[0].run_id].items()) if name not in differing
            },
            "tags": _differing({run.run_id: run.tags for run in runs}),
            "metrics": {
                name: _metric(name, {run.run_id: run.metrics[name] for run in runs if name in run.metrics})
                for name in names
            },
        }
    )


def _metric(name: str, lines: Mapping[str, MetricSummary]) -> dict[str, Any]:
    higher = HIGHER_IS_BETTER.get(name.rpartition("/")[2])
    best = {run_id: line.maximum if higher else line.minimum for run_id, line in lines.items() if higher is not None}
    last = {run_id: line.last_value for run_id, line in lines.items() if math.isfinite(line.last_value)}
    return {
        "higher_is_better": higher,
        "runs": {
            run_id: {
                "last": last.get(run_id),
                "last_step": line.last_step,
                "best": best.get(run_id),
                "points": line.points,
            }
            for run_id, line in lines.items()
        },
        "best_run": _best(best, higher),
        "best_last_run": _best(last, higher),
    }


def _best(values: Mapping[str, float | None], higher: bool | None) -> str | None:
    known = {run_id: value for run_id, value in values.items() if value is not None}  # no finite point, no best
    if higher is None or len(known) < _COMPARED:
        return None
    wanted = max(known.values()) if higher else min(known.values())
    best = [run_id for run_id, value in known.items() if value == wanted]
    return best[0] if len(best) == 1 else None


def _differing(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name → run → value, of the names whose values differ between the runs."""
    names = sorted({name for of in values.values() for name in of})
    found = {name: {run_id: of[name] for run_id, of in values.items() if name in of} for name in names}
    return {name: of for name, of in found.items() if len(of) < len(values) or not _same(of.values())}


def _same(values: Iterable[Any]) -> bool:
    first, *others = values
    # In Python 1, 1.0 and True are equal, but a boolean differs from a number.
    return all(other == first and isinstance(other, bool) == isinstance(first, bool) for other in others)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Names and values of parameters; objects are flattened (``hyperparameters.C``)."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
