"""``Work``: what the execution of one kind of job is given, and how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Attempt
from ml_core.domain.job_spec import JobSpec
from ml_core.ids import RunId, TenantId
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.training.attempt import TrainingAttempt

Spec = TypeVar("Spec", bound=JobSpec)


class Progress:
    """How far an attempt is, for ``mlcore jobs show``; a heartbeat writes it to the job."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._first: tuple[float, float] | None = None  # when the stage's first count was said, and the count
        self._said: dict[str, Any] = {"stage": "start"}
        self._lines: list[str] = []

    def enter(self, stage: str) -> None:
        """A stage begins."""
        self._first = None
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
        now = self._clock()
        since, before = self._first = self._first or (now, done)
        pace = (done - before) / (now - since) if now > since else 0.0
        self._said = {
            "stage": self._said["stage"],
            "done": done,
            "total": total,
            "unit": unit,
            **({"metrics": dict(metrics)} if metrics else {}),
            **({"eta_s": round((total - done) / pace, 1)} if total is not None and pace > 0 else {}),
        }

    def to_json(self) -> dict[str, Any]:
        """``stage`` and ``elapsed_s``; where they are known ``done``, ``total``, ``unit``, ``metrics`` and ``eta_s``.

        ``eta_s`` are the seconds to the end of the stage at its pace, without what an earlier attempt had done.
        """
        return {**self._said, "elapsed_s": round(self._clock() - self._since, 1)}


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
        hooks: Called when a training ends.
    """

    db: DatabaseConnection
    attempt: Attempt
    spec: Spec
    made: Mapping[str, Any]
    cores: float = 1.0
    progress: Progress = field(default_factory=Progress)
    hooks: Hooks = NO_HOOKS

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
