"""``TrainingAttempt``: what a training is given where it is one of several attempts at a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nobody(*_: object) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True)
class TrainingAttempt:
    """The attempt at a job as which a training is executed; by default there is no job.

    Attributes:
        run_id: The id of the run that records it, for a caller that must know it before; None: a new one.
        job_id: What all attempts have in common: this one goes on from the trials and rounds of earlier ones.
        cores: Of the Ray cluster that this process is a job of, for tasks; at most 1: fit in this process.
        on_stage: Called with the name of each stage as it begins, such as ``fit``.
        on_round: Called with the rounds of the fit that are done and all of them, as some are.
    """

    run_id: str | None = None
    job_id: str | None = None
    cores: float = 1.0
    on_stage: Callable[[str], object] = _nobody
    on_round: Callable[[int, int], object] = _nobody


NO_JOB = TrainingAttempt()
