"""``Work``: what the execution of one kind of job is given, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Attempt
from ml_core.domain.job_spec import JobSpec
from ml_core.ids import RunId, TenantId
from ml_core.training.attempt import TrainingAttempt

Spec = TypeVar("Spec", bound=JobSpec)


class Progress:
    """How far an attempt is, for ``mlcore jobs show``; a heartbeat writes it to the job."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._said: dict[str, Any] = {"stage": "start"}
        self._lines: list[str] = []

    def enter(self, stage: str) -> None:
        """A stage begins."""
        self._said = {"stage": stage}
        self.say(f"Stage: {stage}.")

    def say(self, line: str) -> None:
        """Add a line to the job's log. Its tenant reads it: nothing of the platform's machines belongs there."""
        self._lines.append(line)

    def take_lines(self) -> list[str]:
        """The lines that were said since this was called last."""
        lines, self._lines = self._lines, []
        return lines

    def advance(self, done: float, total: float | None, unit: str, metrics: Mapping[str, float] | None = None) -> None:
        """So many of so many units of the stage are done; ``metrics`` are the newest."""
        self._said = {
            "stage": self._said["stage"],
            "done": done,
            "total": total,
            "unit": unit,
            **({"metrics": dict(metrics)} if metrics else {}),
        }

    def to_json(self) -> dict[str, Any]:
        """``{"stage", "elapsed_s"}``, and ``done``, ``total``, ``unit`` and ``metrics`` where they are known."""
        return {**self._said, "elapsed_s": round(time.monotonic() - self._since, 1)}


@dataclass(frozen=True, slots=True)
class Work(Generic[Spec]):
    """One attempt at a job.

    Attributes:
        db: The registry, on behalf of whoever submitted the job.
        attempt: The attempt; its run records what is done.
        spec: What to do.
        made: The result of earlier attempts, such as the version that one registered before its process was lost.
        cores: Of the Ray cluster that this process is a job of, for tasks; at most 1: the process has its own.
        progress: Where to say how far it is.
    """

    db: DatabaseConnection
    attempt: Attempt
    spec: Spec
    made: Mapping[str, Any]
    cores: float = 1.0
    progress: Progress = field(default_factory=Progress)

    @property
    def tenant_id(self) -> TenantId:
        """The tenant of the job."""
        return self.attempt.tenant_id

    @property
    def run_id(self) -> RunId:
        """The run that records the attempt."""
        return self.attempt.run_id

    def as_training(self) -> TrainingAttempt:
        """The attempt as the training that it is."""
        advance = partial(self.progress.advance, unit="rounds")
        return TrainingAttempt(self.run_id, self.attempt.job_id, self.cores, self.progress.enter, advance)
