"""Jobs, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.job_batches import JobBatch
from ml_core.api.schemas.jobs import (
    Job,
    JobLog,
    JobPlan,
    JobQuota,
    JobShare,
    JobToPlan,
    JobTraining,
    NewPredictJob,
    NewTrainJob,
    NewTuneJob,
    Search,
)
from ml_core.api.schemas.trainings import TrainingFields
from ml_core.client.calls import Call, Mode, Noun, listing, operation, quoted
from ml_core.domain.job import JobState
from ml_core.domain.job_spec import OnError
from ml_core.domain.keywords import check_keywords, texts
from ml_core.ids import ModelId

_ANSWER_S = 10.0
_SUBMITTED_WITHIN_S = 60.0
"""A submission for 10,000 tenants takes seconds."""


class Jobs(Noun[Mode]):
    """The jobs of a tenant."""

    @operation
    def train(
        self,
        model_id: str,
        dataset: str,
        *,
        training: Mapping[str, Any] | None = None,
        promote_to: str | None = None,
        cpus: float = 1.0,
        priority: int = 0,
        max_attempts: int = 3,
        idempotency_key: str | None = None,
    ) -> Call[Job]:
        """Submit a training on a registered dataset.

        Args:
            model_id: The model; created with its first version.
            dataset: Such as ``tickets_2026@3``; without a number its newest version now.
            training: Further fields of ``JobTraining``, such as ``target`` and ``hyperparameters``.
            promote_to: The environment whose pointer moves to the new version.
            cpus: The cores that it gets.
            priority: -100 to 100; of the tenant's jobs a higher one goes first.
            max_attempts: How often it is started at most, if its process is lost; 1 to 10.
            idempotency_key: A text of yours: the same again is the same job, such as one whose answer was not read.
        """
        check_keywords("train", training or (), TrainingFields.model_fields)
        body = NewTrainJob(
            kind="train",
            model_id=ModelId(model_id),
            training=JobTraining(dataset=dataset, **(training or {})),
            promote_to=promote_to,
            cpus=cpus,
            priority=priority,
            max_attempts=max_attempts,
            idempotency_key=idempotency_key,
        )
        return Call("POST", f"{self._root}/jobs", Job, body=body)

    @operation
    def predict(
        self,
        model_id: str,
        dataset: str,
        output: str,
        *,
        version: str | None = None,
        environment: str | None = None,
        proba: bool = False,
        keep: Sequence[str] = (),
        on_error: OnError = OnError.FAIL,
        cpus: float = 1.0,
        priority: int = 0,
        max_attempts: int = 3,
    ) -> Call[Job]:
        """Submit the prediction of every row of a registered dataset into the next version of another one.

        Args:
            model_id: The model.
            dataset: The rows, such as ``inbox@7``; without a number the newest version now.
            output: The dataset that gets the predictions; made with its first version.
            version: The version that predicts.
            environment: The environment whose version predicts; None: ``production``, or the newest version if that
                serves nothing.
            proba: Whether the probability of each class is a column.
            keep: Columns of the rows to repeat, such as a key.
            on_error: ``fail``: a row that does not fit fails the job; ``null``: it has no prediction, and a column says
                why.
            cpus: As ``train``; with 2 or more a large dataset is predicted by Ray actors.
            priority: As ``train``.
            max_attempts: As ``train``.
        """
        body = NewPredictJob(
            kind="predict",
            model_id=ModelId(model_id),
            dataset=dataset,
            output=output,
            version=version,
            environment=environment,
            proba=proba,
            keep=texts("keep", keep),
            on_error=on_error,
            cpus=cpus,
            priority=priority,
            max_attempts=max_attempts,
        )
        return Call("POST", f"{self._root}/jobs", Job, body=body)

    @operation
    def plan(
        self, model_id: str, dataset: str, *, training: Mapping[str, Any] | None = None, cpus: float = 1.0
    ) -> Call[JobPlan]:
        """How a job would train: the strategy, its alternatives with their estimates, and why. Nothing is queued.

        The arguments are those of ``train``.
        """
        body = JobToPlan(
            model_id=ModelId(model_id), training=JobTraining(dataset=dataset, **(training or {})), cpus=cpus
        )
        return Call("POST", f"{self._root}/jobs/plan", JobPlan, body=body)

    @operation
    def tune(
        self,
        model_id: str,
        dataset: str,
        *,
        training: Mapping[str, Any] | None = None,
        search: Mapping[str, Any] | None = None,
        promote_to: str | None = None,
        cpus: float = 1.0,
        priority: int = 0,
        max_attempts: int = 3,
    ) -> Call[Job]:
        """Submit a search for the hyperparameters of a training on a registered dataset.

        Args:
            model_id: As ``train``.
            dataset: As ``train``.
            training: As ``train``; its hyperparameters are the same in all trials.
            search: Fields of ``Search``, such as ``algorithm``, ``space`` and ``trials``.
            promote_to: As ``train``.
            cpus: The cores that it gets; each does one trial at a time.
            priority: As ``train``.
            max_attempts: As ``train``. Another attempt goes on with the trials that are left.
        """
        body = NewTuneJob(
            kind="tune",
            model_id=ModelId(model_id),
            training=JobTraining(dataset=dataset, **(training or {})),
            search=Search(**(search or {})),
            promote_to=promote_to,
            cpus=cpus,
            priority=priority,
            max_attempts=max_attempts,
        )
        return Call("POST", f"{self._root}/jobs", Job, body=body)

    @listing
    def list(self, *, state: JobState | str | None = None, schedule: str | None = None) -> Call[Page[Job]]:
        """The jobs, newest first, perhaps in one state or of one schedule only."""
        return Call("GET", f"{self._root}/jobs", Page[Job], {"state": state, "schedule": schedule})

    @operation
    def get(self, job_id: str, *, wait_s: float = 0.0) -> Call[Job]:
        """A job, once it has ended or after ``wait_s`` (up to 60) seconds."""
        return Call("GET", self._job(job_id), Job, {"wait_s": wait_s}, timeout_s=wait_s + _ANSWER_S)

    @operation
    def log(self, job_id: str, *, after: int = 0, wait_s: float = 0.0) -> Call[JobLog]:
        """What the attempts said after a position, once there is something or after ``wait_s`` (up to 60) seconds."""
        asked = {"after": after, "wait_s": wait_s}
        return Call("GET", f"{self._job(job_id)}/log", JobLog, asked, timeout_s=wait_s + _ANSWER_S)

    @operation
    def cancel(self, job_id: str, reason: str = "") -> Call[Job]:
        """Cancel a job: at once where it waits, else its process is stopped within seconds."""
        return Call("POST", f"{self._job(job_id)}/cancel", Job, {"reason": reason})

    @operation
    def retry(self, job_id: str) -> Call[Job]:
        """Queue a job again that failed or was cancelled."""
        return Call("POST", f"{self._job(job_id)}/retry", Job)

    @operation
    def quota(self) -> Call[JobShare]:
        """The tenant's share in the queue, and what it uses of it."""
        return Call("GET", f"{self._root}/job-quota", JobShare)

    @operation
    def set_quota(self, quota: JobQuota) -> Call[JobShare]:
        """Set the tenant's share in the queue, as the platform."""
        return Call("PUT", f"{self._root}/job-quota", JobShare, body=quota)

    def _job(self, job_id: str) -> str:
        return f"{self._root}/jobs/{quoted(job_id)}"


class JobBatches(Noun[Mode]):
    """Jobs that an operator submits for each tenant that has a dataset."""

    @operation
    def submit(self, job: NewTrainJob | Mapping[str, Any]) -> Call[JobBatch]:
        """Submit a job for each tenant that has its dataset.

        Args:
            job: Fields of ``NewTrainJob``, such as ``{"model_id": "tickets", "training": {"dataset": "tickets"}}``.
        """
        body = NewTrainJob.model_validate({"kind": "train", **job} if isinstance(job, Mapping) else job)
        return Call("POST", "/api/v1/job-batches", JobBatch, body=body, timeout_s=_SUBMITTED_WITHIN_S)

    @listing
    def list(self) -> Call[Page[JobBatch]]:
        """The batches, newest first, without the reasons of failures."""
        return Call("GET", "/api/v1/job-batches", Page[JobBatch])

    @operation
    def get(self, batch_id: str) -> Call[JobBatch]:
        """A batch: how many of its jobs are in which state, how fast they end, and why some failed."""
        return Call("GET", f"/api/v1/job-batches/{quoted(batch_id)}", JobBatch)

    @operation
    def cancel(self, batch_id: str, reason: str = "") -> Call[JobBatch]:
        """Cancel the jobs that have not ended."""
        return Call("POST", f"/api/v1/job-batches/{quoted(batch_id)}/cancel", JobBatch, {"reason": reason})

    @operation
    def retry(self, batch_id: str) -> Call[JobBatch]:
        """Queue the jobs again that failed or were cancelled; ``refused`` are those whose quota refuses."""
        return Call("POST", f"/api/v1/job-batches/{quoted(batch_id)}/retry", JobBatch)
