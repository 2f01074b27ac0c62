"""Retraining on an alert: the rule of a schedule, how far it has come, and when a canary has won."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ml_core.domain.document import Document
from ml_core.domain.quality import MAX_DAYS
from ml_core.domain.rollout import MAX_PERCENT, MIN_PERCENT
from ml_core.domain.specification import Specification
from ml_core.ids import EnvironmentName, JobId

_PRODUCTION = EnvironmentName("production")
_MAX_HOURS = 24.0 * MAX_DAYS
_MAX_LABELS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDrift(Specification):
    """A schedule that trains only on an alert of quality or drift, and what becomes of the new version.

    Attributes:
        environment: The environment that is watched, and served by the new version if it is better.
        days: Days of the reports, the present one included.
        canary_percent: Percent of the requests that the new version answers on trial.
        canary_hours: Hours that it may take to be better; then it is aborted.
        min_labels: Labels that both versions need before they are compared.
        collect_labels: Whether the labelled rows of these days become the next version of the job's dataset before the
            training. False: somebody else writes that dataset.

    Raises:
        InvalidRequestError: A number is out of its range.
    """

    noun = "A rule on drift"

    environment: EnvironmentName = _PRODUCTION
    days: int = 7
    canary_percent: int = 20
    canary_hours: float = 72.0
    min_labels: int = 200
    collect_labels: bool = False

    def __post_init__(self) -> None:
        self.refuse_outside(
            days=(1, MAX_DAYS),
            canary_percent=(MIN_PERCENT, MAX_PERCENT),
            canary_hours=(0.1, _MAX_HOURS),
            min_labels=(30, _MAX_LABELS),
        )


@dataclass(frozen=True, slots=True)
class Retraining(Document):
    """A retraining that goes on.

    Attributes:
        job_id: The job that trains.
        compared_labels: Labels of the version with fewer when the versions were compared last.
    """

    job_id: JobId
    compared_labels: int = 0

    def is_due(self, labels: int, rule: OnDrift) -> bool:
        """Whether to compare again: each time there are half as many labels more.

        A comparison at 99 % is wrong one time in a hundred, so who compares every minute is wrong some time. From 200
        labels to 10,000 this makes ten comparisons.
        """
        return labels >= max(rule.min_labels, 1.5 * self.compared_labels)


class Decision(StrEnum):
    """What becomes of a canary."""

    FINISH = "finish"
    ABORT = "abort"
    WAIT = "wait"


def decide(worse_by: tuple[float, float] | None) -> Decision:
    """What becomes of a canary, by the confidence interval of how much worse than the stable version it is."""
    if worse_by is None:
        return Decision.WAIT
    low, high = worse_by
    return Decision.FINISH if high < 0 else Decision.ABORT if low > 0 else Decision.WAIT


def reason_of(schedule: str, job_id: str) -> str:
    """The reason of the moves of a retraining, by which its canary is recognised in the history."""
    return f"retraining {schedule}: job {job_id}"
