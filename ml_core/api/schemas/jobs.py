"""Jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ml_core.api.schemas.base import Input, Schema
from ml_core.api.schemas.trainings import TrainingFields
from ml_core.domain.job import JobKind, JobState
from ml_core.domain.job_spec import OnError
from ml_core.domain.tune_spec import AUTO, Sampler


class JobTraining(TrainingFields):
    """How to train."""

    dataset: str = Field(description="Such as `tickets_2026@3`; without a number its newest version now.")


class NewJob(Input):
    """A job to submit: the members of its specification, and these."""

    cpus: float = Field(default=1.0, description="The cores that it gets.")
    priority: int = Field(default=0, description="-100 to 100; of the tenant's jobs a higher one goes first.")
    max_attempts: int = Field(default=3, description="How often it is started at most, if its process is lost.")
    idempotency_key: str | None = Field(
        default=None, description="A text of the client, 1 to 200 characters; the same again is the same job, for good."
    )

    @property
    def options(self) -> dict[str, Any]:
        """The fields that do not depend on the kind."""
        return self.model_dump(include=set(NewJob.model_fields))

    @property
    def spec(self) -> dict[str, Any]:
        """The members of the specification that were given."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"kind", *NewJob.model_fields})


class NewTrainJob(NewJob):
    """A training to submit."""

    kind: Literal["train"]
    model_id: str = Field(description="The model; created with its first version.", examples=["tickets"])
    training: JobTraining
    promote_to: str | None = Field(
        default=None, description="The environment whose pointer moves to the new version.", examples=["staging"]
    )


class JobToPlan(Input):
    """A training whose plan is asked for."""

    model_id: str = Field(description="The model.", examples=["tickets"])
    training: JobTraining
    cpus: float = Field(default=1.0, description="The cores that it would get.")


class PlanOption(Schema):
    """A strategy with its estimate."""

    strategy: str = Field(examples=["forest_by_trees"])
    seconds: float | None = Field(description="Estimated; null: it can't be used.")
    reason: str


class JobPlan(Schema):
    """How a job would train."""

    strategy: str = Field(description="The one that is chosen.", examples=["forest_by_trees"])
    options: list[PlanOption] = Field(description="All strategies, the chosen one first.")
    missing: list[str] = Field(description="What keeps it from starting.")


class Search(Input):
    """How to search for hyperparameters."""

    algorithm: str = Field(
        default=AUTO,
        description="`auto`: a linear model, boosted trees and a random forest.",
        examples=["gradient_boosting"],
    )
    space: dict[str, Any] = Field(
        default={},
        description="Hyperparameter → `{low, high, log, step}`, a list of choices, or a text such as `2..12`; empty: "
        "the default of the algorithm.",
        examples=[{"learning_rate": "log:0.001:0.3", "max_depth": {"low": 2, "high": 12}}],
    )
    sampler: Sampler = Sampler.OPTUNA
    folds: int = Field(default=5, description="Of the cross-validation.")
    trials: int | None = Field(default=None, description="At most; null: 60, or all of a grid.")
    seconds: float | None = Field(default=None, description="At most.")
    cpu_seconds: float | None = Field(default=None, description="Core-seconds of all trials at most.")
    early_stopping: bool = Field(
        default=True, description="Whether bad trials end after a share of the rows or a fold."
    )
    metric: str | None = Field(default=None, description="What the best is chosen by.", examples=["f1_macro"])
    seed: int = 0


class NewTuneJob(NewJob):
    """A search for hyperparameters to submit; each of its cores does one trial at a time."""

    kind: Literal["tune"]
    model_id: str = Field(description="The model; created with its first version.", examples=["tickets"])
    training: JobTraining = Field(description="What is trained; its hyperparameters are the same in all trials.")
    search: Search = Search()
    promote_to: str | None = Field(
        default=None, description="The environment whose pointer moves to the new version.", examples=["staging"]
    )


class NewPredictJob(NewJob):
    """The prediction of every row of a dataset to submit."""

    kind: Literal["predict"]
    model_id: str = Field(description="The model.", examples=["tickets"])
    dataset: str = Field(description="The rows, such as `inbox@7`; without a number the newest version now.")
    output: str = Field(
        description="The dataset that gets the predictions as its next version.", examples=["predictions_7"]
    )
    version: str | None = Field(default=None, description="The version that predicts, whatever environments serve.")
    environment: str | None = Field(
        default=None,
        description="The environment whose version predicts; without it `production`, or the newest version if that "
        "serves nothing.",
    )
    proba: bool = Field(default=False, description="Whether the probability of each class is a column.")
    keep: list[str] = Field(default=[], description="Columns of the rows to repeat, such as a key.")
    on_error: OnError = Field(
        default=OnError.FAIL,
        description="Whether a row that does not fit the model fails the job, or has no prediction and says why.",
    )


AnyNewJob = Annotated[NewTrainJob | NewTuneJob | NewPredictJob, Field(discriminator="kind")]


class Job(Schema):
    """A job."""

    job_id: str = Field(examples=["job_0123456789abcdef"])
    kind: JobKind
    spec: dict[str, Any]
    state: JobState
    priority: int
    cpus: float
    attempt: int = Field(description="How often it was started since it was submitted or retried.")
    max_attempts: int
    run_id: str | None = Field(description="The run of the last attempt.")
    process: str | None = Field(description="Its process, named after the first run that it had.")
    batch_id: str | None = Field(description="The batch that it is part of.")
    progress: dict[str, Any] = Field(
        description="What its process said last: `stage` and `elapsed_s`; where they are known `done`, `total`, `unit`,"
        " `metrics` and `eta_s`, the seconds to the end of the stage.",
        examples=[{"stage": "fit"}],
    )
    result: dict[str, Any] = Field(description="What it made.", examples=[{"model_id": "tickets", "version": "4"}])
    error: dict[str, Any] | None = Field(description="Why it failed, in the form of an error.")
    submitted_at: datetime
    submitted_by: str
    not_before: datetime = Field(description="When it may start: a pause follows a lost process.")
    started_at: datetime | None
    finished_at: datetime | None
    waiting: str | None = Field(default=None, description="Why it has no process yet, where it is asked for alone.")


class JobLog(Schema):
    """A part of a job's log."""

    text: str = Field(description="Whole lines, each with its time (UTC).")
    position: int = Field(description="`after` of the next part.")
    is_final: bool = Field(description="Whether the job has ended, so that nothing follows.")


class JobQuota(Schema):
    """The share of a tenant in the queue, and its bounds; null: unbounded."""

    model_config = ConfigDict(extra="forbid")

    weight: float = Field(
        default=1.0, description="Turns, 0.01 to 100, compared with other tenants that wait at the same time."
    )
    max_queued: int | None = Field(default=1_000, description="Jobs that may wait.")
    max_running: int | None = Field(default=None, description="Jobs at the same time; more wait.")
    max_cpus: float | None = Field(default=None, description="Cores at the same time; more wait.")
    cpu_seconds_per_day: float | None = Field(
        default=None, description="Core-seconds within 24 hours; then submissions are refused."
    )


class JobUsage(Schema):
    """What a tenant uses of its quota now."""

    queued: int
    running: int
    cpus: float
    cpu_seconds: float = Field(description="Within the last 24 hours.")


class JobShare(Schema):
    """The quota of a tenant, and what it uses of it."""

    quota: JobQuota
    usage: JobUsage
