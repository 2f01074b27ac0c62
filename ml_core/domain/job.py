"""Jobs: their state machine, their recorded fields and the shares of tenants in the queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ml_core.domain.principal import Principal
from ml_core.exceptions import Action, InvalidRequestError, TrainingError, error_from_json
from ml_core.ids import BatchId, JobId, RunId, TenantId

MAX_PRIORITY = 100
"""Priorities are -100 to 100; among the jobs of one tenant a higher one goes first."""


class JobKind(StrEnum):
    """What a job executes."""

    TRAIN = "train"
    TUNE = "tune"
    PREDICT = "predict"


class JobState(StrEnum):
    """The state of a job.

    ``starting`` is a job that a dispatcher has claimed and whose process has not begun; ``cancelling`` one whose
    process is being stopped. The last three are final until somebody retries the job.
    """

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobTrigger(StrEnum):
    """A change of the state of a job."""

    CLAIM = "claim"
    BEGIN = "begin"
    BEAT = "beat"
    SUCCEED = "succeed"
    FAIL = "fail"
    REQUEUE = "requeue"
    CANCEL = "cancel"
    STOP = "stop"
    RETRY = "retry"


_ACTIVE = (JobState.STARTING, JobState.RUNNING)
MOVES: Mapping[tuple[JobState, JobTrigger], JobState] = {
    (JobState.QUEUED, JobTrigger.CLAIM): JobState.STARTING,
    (JobState.STARTING, JobTrigger.BEGIN): JobState.RUNNING,
    **{(state, JobTrigger.BEAT): state for state in (*_ACTIVE, JobState.CANCELLING)},
    # The result may be there before the process learns that it is no longer wanted.
    **{(state, JobTrigger.SUCCEED): JobState.SUCCEEDED for state in (*_ACTIVE, JobState.CANCELLING)},
    **{(state, JobTrigger.FAIL): JobState.FAILED for state in _ACTIVE},
    **{(state, JobTrigger.REQUEUE): JobState.QUEUED for state in _ACTIVE},
    (JobState.QUEUED, JobTrigger.CANCEL): JobState.CANCELLED,
    **{(state, JobTrigger.CANCEL): JobState.CANCELLING for state in _ACTIVE},
    (JobState.CANCELLING, JobTrigger.STOP): JobState.CANCELLED,
    **{(state, JobTrigger.RETRY): JobState.QUEUED for state in (JobState.FAILED, JobState.CANCELLED)},
}
"""(state, trigger) → state; every other pair is refused."""

ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
"""The states in which nothing more happens, unless somebody retries the job."""
HOLDS_CORES = frozenset({JobState.STARTING, JobState.RUNNING, JobState.CANCELLING})
"""The states in which a job has, or may still have, a process."""


def sources(trigger: JobTrigger) -> list[JobState]:
    """The states that permit a trigger."""
    return [state for state, of in MOVES if of is trigger]


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is stored. Times are UTC.

    Attributes:
        spec: The JSON form of what to execute, such as ``TrainSpec.to_json`` with the model.
        cpus: The cores that it is given.
        attempt: The number of times that it was claimed since it was submitted or retried.
        max_attempts: How often it is claimed at most. Only a lost process is claimed again; an error is final.
        not_before: When it may be claimed: a pause after a lost process.
        run_id: The run of the last attempt.
        process: The process of the last attempt, named after the first run that it had.
        batch_id: The batch that it is part of.
        progress: What the process said last, such as ``{"stage": "fit"}``.
        result: What the job made, such as ``{"version": "3"}``; empty before.
        error: The JSON form of the error that ended it, or None.
    """

    tenant_id: TenantId
    job_id: JobId
    kind: JobKind
    spec: Mapping[str, Any]
    state: JobState
    priority: int
    cpus: float
    attempt: int
    max_attempts: int
    submitted_at: datetime
    submitted_by: str
    not_before: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    run_id: RunId | None = None
    process: RunId | None = None
    batch_id: BatchId | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state in ENDED


def refuse_failure(job_id: str, state: JobState, error: Mapping[str, Any] | None) -> None:
    """Raise why a job that has ended did not succeed.

    Raises:
        TrainingError: It was cancelled.
        MLFrameworkError: Why it failed.
    """
    if error is not None:
        raise error_from_json(error)
    if state is not JobState.SUCCEEDED:
        action = Action.of("jobs.retry", job=job_id)
        raise TrainingError(f"The job {job_id} was {state}.", remedy="Retry it.", action=action, stage="fit")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job that a dispatcher has claimed, with everything that its process needs.

    Attributes:
        principal: On whose behalf it is done; it acts in the job's tenant only.
        request_id: The request that submitted the job, for the audit.
        number: Which attempt it is, from 1.
        run_id: The run that records it, and by which its process reports; that of an earlier attempt is refused.
        process: The process that executes it, named after the first run that it had.
        dispatcher: Who started the process.
        batch_id: The batch that the job is part of; its process may go on with another job of it.
    """

    tenant_id: TenantId
    job_id: JobId
    kind: JobKind
    spec: Mapping[str, Any]
    cpus: float
    principal: Principal
    request_id: str
    number: int
    run_id: RunId
    process: RunId
    dispatcher: str
    batch_id: BatchId | None = None

    @property
    def process_cpus(self) -> float:
        """The cores that its own process holds; a search, and any job with several, leave them to tasks of Ray."""
        return 0 if self.kind is JobKind.TUNE or self.cpus >= 2 else self.cpus

    @property
    def arguments(self) -> list[str]:
        """Those of Python in its process."""
        return ["-m", "ml_core.jobs.worker", self.tenant_id, self.job_id, self.run_id]

    @property
    def arguments_on_ray(self) -> list[str]:
        """The same where its process is a job of a Ray cluster."""
        return [*self.arguments, "--on-ray"] if self.process_cpus < self.cpus else self.arguments

    @property
    def threads(self) -> dict[str, str]:
        """The variable by which OpenMP uses as many threads as it has cores."""
        return {"OMP_NUM_THREADS": str(max(1, int(self.cpus)))}


@dataclass(frozen=True, slots=True)
class JobQuota:
    """The share of a tenant in the queue, and its bounds; None: unbounded.

    Attributes:
        weight: Turns compared with other tenants: one of weight 2 gets two for each one of weight 1, while both wait.
        max_queued: Jobs that may wait.
        max_running: Jobs at the same time; more wait.
        max_cpus: Cores at the same time; more wait. A job that needs more is refused.
        cpu_seconds_per_day: Core-seconds (cores given times seconds) within the last 24 hours; when they are used up,
            submissions are refused.
    """

    weight: float = 1.0
    max_queued: int | None = 1_000
    max_running: int | None = None
    max_cpus: float | None = None
    cpu_seconds_per_day: float | None = None

    def __post_init__(self) -> None:
        if not 0.01 <= self.weight <= 100:
            raise _invalid("weight", self.weight, "a number from 0.01 to 100")
        for name in ("max_queued", "max_running", "max_cpus", "cpu_seconds_per_day"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1e9:
                raise _invalid(name, value, "a number from 0 to 1,000,000,000, or null for no bound")


def _invalid(field_name: str, value: object, wanted: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field_name} is {value!r}.", remedy=f"Give {wanted}.", field=field_name)
